"""Eval losses during training: mean negative log-likelihood of a learnt token, task by task.

transformers averages the means of batches, so that its number changes with batch size and workers;
here tokens are summed first. Left out: metrics of generated answers, which need an engine.
Shape suffixes: K tasks.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import distributed

from c2s_rl.pipeline.sft import EVAL_LOSS, EVAL_LOSS_OF
from c2s_rl.pipeline.sft_data import IGNORED_LABEL, TokenRow

if TYPE_CHECKING:
    from datasets import Dataset

Batch = dict[str, torch.Tensor]
Collate = Callable[[Sequence[TokenRow]], Batch]


@dataclass(frozen=True)
class EvalBatch:
    """Rows of one task that go through the model together."""

    task: str
    """Their task."""
    start: int
    """First row of that task's rows."""
    stop: int
    """One past the last."""


@dataclass(frozen=True)
class EvalRows:
    """Rows that are kept out, by task, and how they are cut into batches."""

    by_task: "Mapping[str, Dataset]"
    """Task to its token rows."""
    batch_size: int
    """Most rows of a batch."""
    collate: Collate
    """Makes tensors of rows."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks that have rows, sorted."""
        return tuple(sorted(self.by_task))

    def batches(self) -> list[EvalBatch]:
        """All batches, by task and row: the same list on every rank."""
        size = self.batch_size
        return [
            EvalBatch(task, start, min(start + size, len(self.by_task[task])))
            for task in self.tasks
            for start in range(0, len(self.by_task[task]), size)
        ]

    def read(self, batch: EvalBatch) -> Batch:
        """Read the rows of a batch as tensors."""
        rows = self.by_task[batch.task]
        return self.collate([rows[i] for i in range(batch.start, batch.stop)])


def eval_losses(evaluated: EvalRows, mean_loss: Callable[[Batch], float]) -> dict[str, float]:
    """Compute the loss of every task and of all; every rank must call it.

    Under ZeRO-3 a forward pass is a collective, so all ranks make the same number of passes: one
    that has no batch left repeats the first one, without counting it.

    Args:
        evaluated: All rows, the same on every rank.
        mean_loss: Mean over a batch's learnt tokens, in nats; may be a collective.

    Returns:
        eval_loss (all tokens of all tasks weigh the same) and eval_loss/<task>, in nats a token;
        the same on every rank.
    """
    rank, world = distributed.get_rank(), distributed.get_world_size()
    tasks, batches = evaluated.tasks, evaluated.batches()
    nll_K = torch.zeros(len(tasks), dtype=torch.float64)
    tokens_K = torch.zeros_like(nll_K)
    for mine in range(rank, rank + len(batches), world):
        is_counted = mine < len(batches)
        batch = batches[mine] if is_counted else batches[0]
        inputs = evaluated.read(batch)
        num_tokens = int((inputs["labels"] != IGNORED_LABEL).sum())
        loss = mean_loss(inputs)
        if is_counted:
            k = tasks.index(batch.task)
            nll_K[k] += loss * num_tokens
            tokens_K[k] += num_tokens
    return _figures(tasks, *_summed_over_ranks(nll_K, tokens_K))


def _summed_over_ranks(*sums: torch.Tensor) -> list[torch.Tensor]:
    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    stacked = torch.stack(sums).to(device)
    distributed.all_reduce(stacked)
    return list(stacked.cpu())


def _figures(tasks: Sequence[str], nll_K: torch.Tensor, tokens_K: torch.Tensor) -> dict[str, float]:
    # A task whose rows have no learnt token has no loss: 0 / 0, which is not a number.
    of_task = (nll_K / tokens_K).tolist()
    return {
        EVAL_LOSS: float(nll_K.sum() / tokens_K.sum()),
        **{f"{EVAL_LOSS_OF}{task}": x for task, x in zip(tasks, of_task, strict=True)},
    }
