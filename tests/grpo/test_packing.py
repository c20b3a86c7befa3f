"""Packing groups into micro-batches within a budget, and laying out one packed row."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from c2s_rl.grpo.batch import Row, pad_rows
from c2s_rl.grpo.packing import GreedyPacker, PackedPart, pack_rows


def make_group(prompt_length, completion_lengths, first=0):
    """Rows whose advantage tells them apart."""
    return [
        Row((first + 1,) * prompt_length, (2,) * length, (-0.5,) * length, float(first + i))
        for i, length in enumerate(completion_lengths)
    ]


def pack(groups, max_tokens):
    packer = GreedyPacker(max_tokens)
    return [cut for group in groups for cut in packer.add(group)] + packer.flush()


def sizes(cuts):
    return [[part.num_tokens for part in cut] for cut in cuts]


def test_whole_groups_fill_a_micro_batch_in_order():
    # tokens: 2+3+3 = 8, 1+4 = 5, 2+2 = 4, 3+9 = 12; of 14: {8, 5}, then 4 and 12 exceed it
    groups = [make_group(2, [3, 3]), make_group(1, [4]), make_group(2, [2]), make_group(3, [9])]
    assert sizes(pack(groups, 14)) == [[8, 5], [4], [12]]


def test_group_beyond_the_budget_is_split_by_completions_and_repeats_its_prompt():
    # prompt 4: 4+3+2 = 9 <= 10, then 4+5 = 9, then 4+5+1 = 10; the next group fits behind none
    cuts = pack([make_group(4, [3, 2, 5, 5, 1]), make_group(1, [1])], 10)
    assert sizes(cuts) == [[9], [9], [10], [2]]
    assert [part.prompt_ids for cut in cuts[:3] for part in cut] == [(1,) * 4] * 3


def test_next_group_joins_the_last_part_of_a_split_group():
    assert sizes(pack([make_group(4, [6, 1]), make_group(2, [3])], 10)) == [[10], [5, 5]]


def test_completion_beyond_the_budget_goes_alone():
    assert sizes(pack([make_group(4, [2, 20, 2])], 10)) == [[6], [24], [6]]


def test_flush_of_nothing_is_nothing():
    packer = GreedyPacker(5)
    assert packer.flush() == []
    assert packer.add(make_group(1, [1])) == []
    assert sizes(packer.flush()) == [[2]]
    assert packer.flush() == []


shapes = st.lists(
    st.tuples(st.integers(1, 30), st.lists(st.integers(0, 30), min_size=1, max_size=8)), max_size=12
)


@given(shapes, st.integers(1, 120))
def test_every_row_is_packed_once_in_order_within_the_budget(shapes, max_tokens):
    groups = [make_group(p, cs, first=100 * i) for i, (p, cs) in enumerate(shapes)]
    cuts = pack(groups, max_tokens)
    packed = [row for cut in cuts for part in cut for row in part.rows]
    assert packed == [row for group in groups for row in group]
    for cut in cuts:
        num_tokens = sum(part.num_tokens for part in cut)
        assert num_tokens <= max_tokens or (len(cut) == 1 and len(cut[0].rows) == 1)
    whole = [group for group in groups if PackedPart(group[0].prompt_ids, tuple(group)).num_tokens
             <= max_tokens]  # fmt: skip
    parts = [part.rows for cut in cuts for part in cut]
    assert all(tuple(group) in parts for group in whole)


@given(shapes, st.integers(1, 120))
def test_no_micro_batch_could_take_the_next_part(shapes, max_tokens):
    cuts = pack([make_group(p, cs, first=100 * i) for i, (p, cs) in enumerate(shapes)], max_tokens)
    for cut, following in pairwise(cuts):
        assert sum(p.num_tokens for p in cut) + following[0].num_tokens > max_tokens


def test_rows_of_one_group_must_share_a_prompt():
    packer = GreedyPacker(10)
    rows = [Row((1,), (2,), (0.0,), 0.0), Row((3, 3), (2,), (0.0,), 0.0)]
    with pytest.raises(ValueError, match=r"share one prompt .* got 2 prompts of lengths \[1, 2\]"):
        packer.add(rows)
    with pytest.raises(ValueError, match="got 0 prompts"):
        packer.add([])
    with pytest.raises(ValueError, match=r"at least 1 token, got 1 prompts of lengths \[0\]"):
        packer.add([Row((), (2,), (0.0,), 0.0)])


def test_budget_must_hold_something():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        GreedyPacker(0)


def test_packed_row_by_hand():
    parts = [
        PackedPart((1, 2), (Row((1, 2), (7, 8, 9), (-0.1, -0.2, -0.3), 1.5),
                            Row((1, 2), (4,), (-0.4,), -1.0))),
        PackedPart((3,), (Row((3,), (5, 6), (-0.5, -0.6), 0.5),)),
    ]  # fmt: skip
    batch = pack_rows(parts, pad_id=0)
    #                                       0  1  2  3  4  5  6  7  8
    assert batch.input_ids_1_L.tolist() == [[1, 2, 7, 8, 9, 4, 3, 5, 6]]
    assert batch.position_ids_1_L.tolist() == [[0, 1, 2, 3, 4, 2, 0, 1, 2]]
    # 7 and 4 are predicted by the prompt's end (1), 8 by 7, 9 by 8; 5 by 3, 6 by 5
    assert batch.predict_N.tolist() == [1, 2, 3, 1, 6, 7]
    assert batch.targets_N.tolist() == [7, 8, 9, 4, 5, 6]
    assert batch.mask_B_T.tolist() == [[1, 1, 1], [1, 0, 0], [1, 1, 0]]
    assert batch.flat_index_N.tolist() == [0, 1, 2, 3, 6, 7]
    torch.testing.assert_close(
        batch.rollout_logprobs_B_T,
        torch.tensor([[-0.1, -0.2, -0.3], [-0.4, 0.0, 0.0], [-0.5, -0.6, 0.0]]),
    )
    assert batch.advantages_B.tolist() == [1.5, -1.0, 0.5]


def test_flat_and_padded_undo_each_other():
    batch = pack_rows([PackedPart((1,), tuple(make_group(1, [2, 0, 3])))], pad_id=0)
    values_N = torch.arange(1.0, 6.0)
    assert batch.padded(values_N).tolist() == [[1, 2, 0], [0, 0, 0], [3, 4, 5]]
    assert torch.equal(batch.flat(batch.padded(values_N)), values_N)
    assert torch.equal(batch.padded(values_N)[batch.mask_B_T.bool()], values_N)


def test_packed_and_padded_batches_hold_the_same_rows():
    rows = make_group(3, [2, 4])
    packed = pack_rows([PackedPart(rows[0].prompt_ids, tuple(rows))], pad_id=0)
    padded = pad_rows(rows, pad_id=0)
    assert torch.equal(packed.mask_B_T, padded.mask_B_T)
    assert torch.equal(packed.rollout_logprobs_B_T, padded.rollout_logprobs_B_T)
    assert torch.equal(packed.advantages_B, padded.advantages_B)


def test_filler_weighs_nothing_but_has_a_token_to_score():
    filler = pack_rows([], pad_id=3)
    assert filler.input_ids_1_L.tolist() == [[3, 3]]
    assert filler.predict_N.tolist() == [0]
    assert filler.targets_N.tolist() == [3]
    assert filler.mask_B_T.tolist() == [[0.0]]
    assert filler.flat(filler.mask_B_T).tolist() == [0.0]
    assert filler.to(torch.device("cpu")).layout == filler.layout
