"""The completions of a step as rows, and as padded tensors.

In the padded form every completion carries its own copy of the prompt. Slow and simple, it is the
reference that the packed form (`packing.py`) is tested against.
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
        )


def rows_of(groups: Sequence[Group], advantages: Sequence[Sequence[float]]) -> list[Row]:
    """List all completions, group after group.

    Args:
        groups: P whole groups.
        advantages: [P][G] in the order of the groups.
    """
    return [
        Row(
            group.prompt_token_ids,
            completion.token_ids_T,
            completion.rollout_logprobs_T,
            advantage,
        )
        for group, group_advantages in zip(groups, advantages, strict=True)
        for completion, advantage in zip(group.completions_G, group_advantages, strict=True)
    ]


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
    )
