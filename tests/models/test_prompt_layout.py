"""Positions, sequence ids and blocks of a packed row."""

import pytest

from c2s_rl.models.prompt_layout import PartShape, Piece, PieceKind, SharedPromptLayout


def test_positions_and_sequences_by_hand():
    layout = SharedPromptLayout((PartShape(2, (3, 1)), PartShape(1, (2,))))
    assert layout.num_tokens == 9
    assert layout.longest_sequence == 5
    assert layout.position_ids_L == (0, 1, 2, 3, 4, 2, 0, 1, 2)
    prompt, other = (0, -1), (1, -1)
    assert layout.sequence_ids_L == (
        prompt, prompt, (0, 0), (0, 0), (0, 0), (0, 1), other, (1, 0), (1, 0),
    )  # fmt: skip


def test_equally_long_neighbours_share_a_block_and_empty_completions_have_none():
    layout = SharedPromptLayout((PartShape(4, (3, 3, 0, 2, 3)), PartShape(2, ())))
    on_prompt, own = PieceKind.COMPLETIONS_ON_PROMPT, PieceKind.COMPLETIONS
    assert layout.pieces == (
        Piece(PieceKind.PROMPT, 0, 4, 0, 4),
        Piece(on_prompt, 4, 11, 0, 4),
        Piece(own, 4, 3, 4, 3, num_sequences=2),
        Piece(own, 10, 2, 10, 2),
        Piece(own, 12, 3, 12, 3),
        Piece(PieceKind.PROMPT, 15, 2, 15, 2),
    )


def test_a_part_needs_a_prompt():
    with pytest.raises(ValueError, match=r"a prompt of at least 1 token .* got 0 and"):
        PartShape(0, (1,))
    with pytest.raises(ValueError, match=r"completions of at least 0, got 1 and \(-1,\)"):
        PartShape(1, (-1,))
