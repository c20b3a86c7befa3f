import math
from collections.abc import Sequence

import pytest
import torch

from c2s_rl.pipeline.sft_data import TokenRow
from c2s_rl.pipeline.sft_evaluation import Batch, EvalBatch, EvalRows, eval_losses


def row(tokens: Sequence[int]) -> TokenRow:
    return {"input_ids": list(tokens), "seq_lengths": [len(tokens)], "prompt_lengths": [1]}


def collate(rows: Sequence[TokenRow]) -> Batch:
    """Everything but the first token of a row is learnt; padding is not."""
    length = max(len(r["input_ids"]) for r in rows)
    labels = torch.full((len(rows), length), -100)
    for i, r in enumerate(rows):
        labels[i, 1 : len(r["input_ids"])] = torch.tensor(r["input_ids"][1:])
    return {"labels": labels}


def mean_label(batch: Batch) -> float:
    """Stands for a loss: each token costs its own number."""
    return float(batch["labels"][batch["labels"] != -100].double().mean())


@pytest.mark.usefixtures("process_group")
def test_tokens_weigh_the_same_whatever_the_batches() -> None:
    rows = {
        "typing": [row([0, 6])],
        # learnt: 1 2 3 | 4 | 5 5
        "making": [row([0, 1, 2, 3]), row([0, 4]), row([0, 5, 5])],
    }
    for batch_size in (1, 2, 3):
        losses = eval_losses(EvalRows(rows, batch_size, collate), mean_label)
        # making: (1 + 2 + 3 + 4 + 5 + 5) / 6; all: 26 / 7
        assert losses == pytest.approx(
            {"eval_loss": 26 / 7, "eval_loss/making": 20 / 6, "eval_loss/typing": 6.0}
        )


def test_batches_hold_one_task_each_in_the_order_of_task_and_row() -> None:
    rows = {"b": [row([0, 1])] * 3, "a": [row([0, 2])]}
    assert EvalRows(rows, 2, collate).batches() == [
        EvalBatch("a", 0, 1),
        EvalBatch("b", 0, 2),
        EvalBatch("b", 2, 3),
    ]


@pytest.mark.usefixtures("process_group")
def test_task_without_learnt_tokens_has_no_loss() -> None:
    rows = {"a": [row([0])], "b": [row([0, 3])]}
    evaluated = EvalRows(rows, 1, collate)
    losses = eval_losses(evaluated, lambda batch: 3.0 if (batch["labels"] != -100).any() else 0.0)
    assert losses["eval_loss"] == 3.0
    assert math.isnan(losses["eval_loss/a"])
