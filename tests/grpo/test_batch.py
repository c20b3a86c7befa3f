"""Rows of a step and their padded form."""

import numpy as np
import torch

from c2s_rl.grpo.batch import Row, pad_rows, rows_of
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
