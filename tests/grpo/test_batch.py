"""Padding, micro-batches and the division between ranks."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from c2s_rl.grpo.batch import Row, micro_batches, pad_rows, rows_of, split_between_ranks
from c2s_rl.types import Completion, Group, ParsedCell, PromptRecord, Split, Task

EMPTY = np.zeros(0, dtype=np.int32)


def make_group(name, prompt_length, completion_lengths):
    record = PromptRecord(
        name, "p", " t", Task.CELL_GENERATION, "c", "", "", Split.TRAIN, EMPTY, EMPTY
    )
    completions = tuple(
        Completion("x", tuple(range(5, 5 + n)), (-0.5,) * n, 0, is_truncated=False)
        for n in completion_lengths
    )
    cells = tuple(ParsedCell(EMPTY, 0, 0, (), is_truncated=False) for _ in completions)
    return Group(record, tuple(range(1, prompt_length + 1)), completions, cells)


def test_padded_rows_by_hand():
    rows = [Row((1, 2), (7, 8, 9), (-0.1, -0.2, -0.3), 1.5), Row((3,), (4,), (-0.4,), -1.0)]
    batch = pad_rows(rows, pad_id=0)
    assert batch.input_ids_B_L.tolist() == [[1, 2, 7, 8, 9], [3, 4, 0, 0, 0]]
    assert batch.attention_mask_B_L.tolist() == [[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]
    assert batch.prompt_lengths_B.tolist() == [2, 1]
    assert batch.completion_ids_B_T.tolist() == [[7, 8, 9], [4, 0, 0]]
    assert batch.mask_B_T.tolist() == [[1, 1, 1], [1, 0, 0]]
    torch.testing.assert_close(
        batch.rollout_logprobs_B_T, torch.tensor([[-0.1, -0.2, -0.3], [-0.4, 0.0, 0.0]])
    )
    assert batch.advantages_B.tolist() == [1.5, -1.0]


def test_rows_keep_the_order_of_groups_and_completions():
    groups = [make_group("a", 2, [1, 2]), make_group("b", 3, [4])]
    rows = rows_of(groups, [[0.1, 0.2], [0.3]])
    assert [(len(r.prompt_ids), len(r.completion_ids), r.advantage) for r in rows] == [
        (2, 1, 0.1),
        (2, 2, 0.2),
        (3, 4, 0.3),
    ]


def test_ranks_get_whole_groups_of_balanced_size():
    # tokens: a 2 x (2 + 8) = 20, b 2 x (2 + 3) = 10, c 2 x (2 + 2) = 8: {a} and {b, c}
    groups = [make_group("a", 2, [8, 8]), make_group("b", 2, [3, 3]), make_group("c", 2, [2, 2])]
    assert split_between_ranks(groups, 2) == [[0], [1, 2]]


def test_more_ranks_than_groups_leaves_ranks_without_work():
    assert split_between_ranks([make_group("a", 1, [1, 1])], 3) == [[0], [], []]


lengths = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), max_size=40)


@given(lengths, st.integers(1, 200))
def test_micro_batches_hold_every_row_once_within_the_budget(shapes, max_tokens):
    rows = [Row((1,) * p, (2,) * c, (0.0,) * c, 0.0) for p, c in shapes]
    batches = micro_batches(rows, max_tokens)
    assert sorted(i for batch in batches for i in batch) == list(range(len(rows)))
    for batch in batches:
        padded = max(rows[i].num_tokens for i in batch) * len(batch)
        assert padded <= max_tokens or len(batch) == 1


@given(lengths, st.integers(1, 5))
def test_every_group_goes_to_one_rank(shapes, num_ranks):
    groups = [make_group(str(i), p, [c, c]) for i, (p, c) in enumerate(shapes)]
    shares = split_between_ranks(groups, num_ranks)
    assert len(shares) == num_ranks
    assert sorted(i for share in shares for i in share) == list(range(len(groups)))


def test_completions_of_an_older_policy_are_marked_as_stale():
    group = make_group("a", 1, (1, 2))  # sampled by version 0
    for version, is_stale in ((0, False), (1, True)):
        batch = pad_rows(rows_of([group], [(0.5, -0.5)], version=version), pad_id=0)
        assert batch.is_stale_B.tolist() == [is_stale, is_stale]
