"""Turning groups into padded micro-batches, and sharing whole groups between ranks.

The plain, padded form: every completion carries its own copy of the prompt. Slow and simple, it is
the reference that packed forms are tested against.
Shape suffixes: B rows of a micro-batch, L = prompt + completion tokens, T completion tokens.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from c2s_rl.types import Group


@dataclass(frozen=True)
class Row:
    """One completion with what the loss needs of it."""

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    rollout_logprobs: tuple[float, ...]
    """One natural-log probability per completion token, as the sampler saw it."""
    advantage: float
    is_stale: bool = False
    """Sampled by weights older than those that learn from it."""

    @property
    def num_tokens(self) -> int:
        """Prompt plus completion."""
        return len(self.prompt_ids) + len(self.completion_ids)


@dataclass(frozen=True, eq=False)
class PaddedBatch:
    """Right-padded rows."""

    input_ids_B_L: torch.Tensor
    """[B, L] int64; padding holds `pad_id`."""
    attention_mask_B_L: torch.Tensor
    """[B, L] int64; 1 for tokens, 0 for padding."""
    prompt_lengths_B: torch.Tensor
    """[B] int64."""
    completion_ids_B_T: torch.Tensor
    """[B, T] int64; padding holds `pad_id`."""
    mask_B_T: torch.Tensor
    """[B, T] float32; 1.0 for completion tokens, 0.0 for padding."""
    rollout_logprobs_B_T: torch.Tensor
    """[B, T] float32; 0.0 for padding."""
    advantages_B: torch.Tensor
    """[B] float32."""
    is_stale_B: torch.Tensor
    """[B] bool; True where an older policy sampled the completion."""

    def to(self, device: torch.device) -> "PaddedBatch":
        """Copy every tensor to a device."""
        return PaddedBatch(
            input_ids_B_L=self.input_ids_B_L.to(device),
            attention_mask_B_L=self.attention_mask_B_L.to(device),
            prompt_lengths_B=self.prompt_lengths_B.to(device),
            completion_ids_B_T=self.completion_ids_B_T.to(device),
            mask_B_T=self.mask_B_T.to(device),
            rollout_logprobs_B_T=self.rollout_logprobs_B_T.to(device),
            advantages_B=self.advantages_B.to(device),
            is_stale_B=self.is_stale_B.to(device),
        )


def rows_of(
    groups: Sequence[Group], advantages: Sequence[Sequence[float]], *, version: int = 0
) -> list[Row]:
    """List all completions, group after group.

    Args:
        groups: P whole groups.
        advantages: [P][G] in the order of the groups.
        version: Of the policy that learns from them.
    """
    return [
        Row(
            group.prompt_token_ids,
            completion.token_ids_T,
            completion.rollout_logprobs_T,
            advantage,
            is_stale=completion.policy_version < version,
        )
        for group, group_advantages in zip(groups, advantages, strict=True)
        for completion, advantage in zip(group.completions_G, group_advantages, strict=True)
    ]


def split_between_ranks(groups: Sequence[Group], num_ranks: int) -> list[list[int]]:
    """Give every rank whole groups of about equal token counts.

    Greedy, longest first; ties go to the lowest rank, so that the result depends on nothing else.

    Returns:
        [num_ranks] lists of indices into `groups`, each ascending.
    """
    sizes = [
        sum(len(g.prompt_token_ids) + len(c.token_ids_T) for c in g.completions_G) for g in groups
    ]
    shares: list[list[int]] = [[] for _ in range(num_ranks)]
    loads = [0] * num_ranks
    for index in sorted(range(len(groups)), key=lambda i: (-sizes[i], i)):
        rank = loads.index(min(loads))
        shares[rank].append(index)
        loads[rank] += sizes[index]
    return [sorted(share) for share in shares]


def micro_batches(rows: Sequence[Row], max_tokens: int) -> list[list[int]]:
    """Cut rows into micro-batches of at most `max_tokens` padded tokens.

    Rows of similar length go together (less padding); a row longer than the budget goes alone.

    Returns:
        Lists of indices into `rows`; every row exactly once.
    """
    batches: list[list[int]] = []
    longest = 0
    for index in sorted(range(len(rows)), key=lambda i: (-rows[i].num_tokens, i)):
        if batches and longest * (len(batches[-1]) + 1) <= max_tokens:
            batches[-1].append(index)
            continue
        # rows come longest first, so the first row of a batch sets its padded length
        longest = rows[index].num_tokens
        batches.append([index])
    return batches


class PaddedCutter:
    """Cuts rows into micro-batches of at most `max_tokens` padded tokens, in the order given.

    A micro-batch is given out when the next row does not fit any more, so that the cuts depend on
    the rows and not on when they come. A row longer than the budget goes alone.
    """

    def __init__(self, max_tokens: int) -> None:
        self._max_tokens = max_tokens
        self._open: list[Row] = []

    def add(self, rows: Iterable[Row]) -> list[list[Row]]:
        """Take the next rows; returns the micro-batches that are full."""
        full: list[list[Row]] = []
        for row in rows:
            longest = max(r.num_tokens for r in (row, *self._open))
            if self._open and longest * (len(self._open) + 1) > self._max_tokens:
                full.append(self._open)
                self._open = []
            self._open.append(row)
        return full

    def flush(self) -> list[list[Row]]:
        """Give out what is left."""
        rest, self._open = self._open, []
        return [rest] if rest else []


def pad_rows(rows: Iterable[Row], pad_id: int) -> PaddedBatch:
    """Stack rows into right-padded tensors; see `PaddedBatch` for what padding holds."""
    rows = list(rows)
    num_rows = len(rows)
    length = max(row.num_tokens for row in rows)
    num_completion = max(len(row.completion_ids) for row in rows)
    input_ids = torch.full((num_rows, length), pad_id, dtype=torch.int64)
    attention = torch.zeros((num_rows, length), dtype=torch.int64)
    completion_ids = torch.full((num_rows, num_completion), pad_id, dtype=torch.int64)
    mask = torch.zeros((num_rows, num_completion), dtype=torch.float32)
    rollout_logprobs = torch.zeros((num_rows, num_completion), dtype=torch.float32)
    for index, row in enumerate(rows):
        num_row_completion = len(row.completion_ids)
        input_ids[index, : row.num_tokens] = torch.tensor(row.prompt_ids + row.completion_ids)
        attention[index, : row.num_tokens] = 1
        completion_ids[index, :num_row_completion] = torch.tensor(row.completion_ids)
        mask[index, :num_row_completion] = 1.0
        rollout_logprobs[index, :num_row_completion] = torch.tensor(row.rollout_logprobs)
    return PaddedBatch(
        input_ids_B_L=input_ids,
        attention_mask_B_L=attention,
        prompt_lengths_B=torch.tensor([len(row.prompt_ids) for row in rows]),
        completion_ids_B_T=completion_ids,
        mask_B_T=mask,
        rollout_logprobs_B_T=rollout_logprobs,
        advantages_B=torch.tensor([row.advantage for row in rows], dtype=torch.float32),
        is_stale_B=torch.tensor([row.is_stale for row in rows], dtype=torch.bool),
    )
