"""Packing groups into micro-batches: each prompt once, its completions behind it.

A packed row is `prompt, completion 0, completion 1, ..., prompt, completion 0, ...`; attention
keeps its sequences apart (`c2s_rl.models.shared_prompt`). The padded form in `batch` is the
reference.
Left out: reordering groups for a tighter fit, so that cuts depend on the order of groups alone.
Shape suffixes: B rows (completions), T completion tokens, L packed tokens, N completion tokens of
all rows, one row after another.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from c2s_rl.grpo.batch import Row
from c2s_rl.models.prompt_layout import PartShape, SharedPromptLayout


@dataclass(frozen=True)
class PackedPart:
    """Some or all completions of one prompt."""

    prompt_ids: tuple[int, ...]
    rows: tuple[Row, ...]
    """At least one; all with this prompt."""

    @property
    def num_tokens(self) -> int:
        """The prompt once, plus all completions."""
        return len(self.prompt_ids) + sum(len(row.completion_ids) for row in self.rows)


class GreedyPacker:
    """Fills micro-batches with whole groups, in the order given, up to a token budget.

    Where a micro-batch ends depends on the groups and their order alone, not on when they arrive.
    A group that exceeds the budget alone is split by completions, each part with its own copy of
    the prompt; a single completion that exceeds it with its prompt goes alone.
    """

    def __init__(self, max_tokens: int) -> None:
        if max_tokens < 1:
            raise ValueError(f"a token budget must be at least 1, got {max_tokens}")
        self._max_tokens = max_tokens
        self._open: list[PackedPart] = []

    def add(self, rows: Sequence[Row]) -> list[list[PackedPart]]:
        """Take one group's rows and return the micro-batches that are now full, in order.

        Raises:
            ValueError: If there are no rows, or their prompts differ or are empty.
        """
        finished: list[list[PackedPart]] = []
        for part in self._split(rows):
            used = sum(p.num_tokens for p in self._open)
            if self._open and used + part.num_tokens > self._max_tokens:
                finished.append(self._open)
                self._open = []
            self._open.append(part)
        return finished

    def flush(self) -> list[list[PackedPart]]:
        """Return the micro-batch under way, if any, and start anew."""
        finished = [self._open] if self._open else []
        self._open = []
        return finished

    def _split(self, rows: Sequence[Row]) -> list[PackedPart]:
        """Cut one group into parts within the budget; most groups are one part."""
        prompts = {row.prompt_ids for row in rows}
        if len(prompts) != 1 or () in prompts:
            raise ValueError(
                "rows of a group must share one prompt of at least 1 token, "
                f"got {len(prompts)} prompts of lengths {sorted(len(p) for p in prompts)}"
            )
        (prompt,) = prompts
        cuts: list[list[Row]] = [[]]
        used = len(prompt)
        for row in rows:
            if cuts[-1] and used + len(row.completion_ids) > self._max_tokens:
                cuts.append([])
                used = len(prompt)
            cuts[-1].append(row)
            used += len(row.completion_ids)
        return [PackedPart(prompt, tuple(cut)) for cut in cuts]


@dataclass(frozen=True, eq=False)
class PackedBatch:
    """One packed row with what the loss needs of it."""

    input_ids_1_L: torch.Tensor
    """[1, L] int64."""
    position_ids_1_L: torch.Tensor
    """[1, L] int64; each completion goes on from its prompt."""
    layout: SharedPromptLayout
    """Lengths of the parts."""
    predict_N: torch.Tensor
    """[N] int64 index into L of the hidden state that predicts each completion token."""
    targets_N: torch.Tensor
    """[N] int64 completion tokens."""
    flat_index_N: torch.Tensor
    """[N] int64 place of each completion token in a [B, T] tensor laid out flat."""
    mask_B_T: torch.Tensor
    """[B, T] float32; 1.0 for completion tokens, 0.0 for padding and for a filler."""
    rollout_logprobs_B_T: torch.Tensor
    """[B, T] float32; 0.0 for padding."""
    advantages_B: torch.Tensor
    """[B] float32."""

    def to(self, device: torch.device) -> "PackedBatch":
        """Copy every tensor to a device."""
        return PackedBatch(
            input_ids_1_L=self.input_ids_1_L.to(device),
            position_ids_1_L=self.position_ids_1_L.to(device),
            layout=self.layout,
            predict_N=self.predict_N.to(device),
            targets_N=self.targets_N.to(device),
            flat_index_N=self.flat_index_N.to(device),
            mask_B_T=self.mask_B_T.to(device),
            rollout_logprobs_B_T=self.rollout_logprobs_B_T.to(device),
            advantages_B=self.advantages_B.to(device),
        )

    def flat(self, x_B_T: torch.Tensor) -> torch.Tensor:
        """Take the completion tokens of a padded tensor, row after row: [N]."""
        return x_B_T.flatten()[self.flat_index_N]

    def padded(self, x_N: torch.Tensor) -> torch.Tensor:
        """Lay per-token values out as [B, T], 0 at padding; differentiable."""
        num_rows, num_places = self.mask_B_T.shape
        flat = x_N.new_zeros(num_rows * num_places).index_copy(0, self.flat_index_N, x_N)
        return flat.view(num_rows, num_places)


def pack_rows(parts: Sequence[PackedPart], pad_id: int) -> PackedBatch:
    """Lay out one micro-batch.

    Args:
        parts: In the order of the row. None at all gives a filler, for a rank that has fewer
            micro-batches than its peers: one row of one token, so that every forward and backward
            pass happens, with a mask of 0, so that it weighs nothing.
        pad_id: Token of the filler.

    Returns:
        The batch; its rows are those of the parts, in order.
    """
    if not parts:
        filler = Row((pad_id,), (pad_id,), (0.0,), 0.0)
        batch = pack_rows([PackedPart(filler.prompt_ids, (filler,))], pad_id)
        batch.mask_B_T.zero_()
        return batch
    rows = [row for part in parts for row in part.rows]
    lengths = [len(row.completion_ids) for row in rows]
    num_places = max(lengths)
    ids: list[int] = []
    predict: list[int] = []
    for part in parts:
        last_prompt = len(ids) + len(part.prompt_ids) - 1
        ids += part.prompt_ids
        for row in part.rows:
            if row.completion_ids:
                # the first token comes from the prompt's end, each other from the one before it
                predict += [last_prompt, *range(len(ids), len(ids) + len(row.completion_ids) - 1)]
            ids += row.completion_ids
    layout = SharedPromptLayout(
        tuple(
            PartShape(len(p.prompt_ids), tuple(len(row.completion_ids) for row in p.rows))
            for p in parts
        )
    )
    steps_T = torch.arange(num_places)
    mask_B_T = steps_T < torch.tensor(lengths).unsqueeze(1)
    rollout_logprobs_B_T = torch.zeros(len(rows), num_places)
    rollout_logprobs_B_T[mask_B_T] = torch.tensor([x for row in rows for x in row.rollout_logprobs])
    return PackedBatch(
        input_ids_1_L=torch.tensor([ids]),
        position_ids_1_L=torch.tensor([layout.position_ids_L]),
        layout=layout,
        predict_N=torch.tensor(predict, dtype=torch.int64),
        targets_N=torch.tensor([t for row in rows for t in row.completion_ids], dtype=torch.int64),
        flat_index_N=mask_B_T.flatten().nonzero().squeeze(1),
        mask_B_T=mask_B_T.float(),
        rollout_logprobs_B_T=rollout_logprobs_B_T,
        advantages_B=torch.tensor([row.advantage for row in rows], dtype=torch.float32),
    )
