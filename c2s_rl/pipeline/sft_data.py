"""Token rows as batches for the trainer, packed or not, without contamination.

Packing lays several samples into one row. They are kept apart by position ids that start again at
0, from which transformers builds a block-diagonal attention mask for its 'sdpa' and 'eager'
attention as long as no attention mask is passed; TRL's own packing flattens the whole batch into
one row for kernels that take sequence lengths, which costs a [batch * length]^2 mask where there is
no such kernel. Left out: making the rows (`c2s_rl.pipeline.tokens`).
Shape suffixes: B rows, L tokens of the longest row.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, NotRequired, TypedDict

if TYPE_CHECKING:
    import torch

IGNORED_LABEL = -100  # what torch's cross entropy, TRL and transformers leave out of the loss


class TokenRow(TypedDict):
    """One row of token shards as the collator is given it (see `c2s_rl.data.token_shards`)."""

    input_ids: list[int]
    """Tokens of the row's samples, one after another."""
    seq_lengths: list[int]
    """Tokens of each sample, in order."""
    prompt_lengths: list[int]
    """Leading tokens of each sample that are not learnt."""
    tasks: NotRequired[list[int]]
    """Code of each sample's task; not looked at here."""


class RowCollator:
    """Right-pads token rows into one batch with position ids and without an attention mask.

    Padding needs no mask under causal attention: it stands behind every token that is learnt, and
    its own labels are ignored. Its positions go on counting, so that a row with one sample is not
    taken for a packed one and keeps the fast causal attention.
    """

    def __init__(self, pad_id: int) -> None:
        self._pad_id = pad_id

    def __call__(self, rows: Sequence[TokenRow]) -> "dict[str, torch.Tensor]":
        """Collate B rows.

        Returns:
            input_ids [B, L] (padding: `pad_id`), labels [B, L] (prompts as far as they are not
            learnt, padding and the first token of every sample: IGNORED_LABEL), position_ids
            [B, L], all int64.
        """
        import torch

        length = max(len(row["input_ids"]) for row in rows)
        shape = (len(rows), length)
        input_ids_B_L = torch.full(shape, self._pad_id)
        labels_B_L = torch.full(shape, IGNORED_LABEL)
        position_ids_B_L = torch.zeros(shape, dtype=torch.int64)
        for i, row in enumerate(rows):
            num_tokens = len(row["input_ids"])
            input_ids_B_L[i, :num_tokens] = torch.tensor(row["input_ids"])
            labels_B_L[i, :num_tokens] = input_ids_B_L[i, :num_tokens]
            starts = [0, *accumulate(row["seq_lengths"][:-1])]
            ends = [*starts[1:], length]  # padding is counted to the last sample
            for start, end, num_prompt in zip(starts, ends, row["prompt_lengths"], strict=True):
                position_ids_B_L[i, start:end] = torch.arange(end - start)
                # The token before a sample's first one belongs to another sample: no prediction.
                labels_B_L[i, start : start + max(1, num_prompt)] = IGNORED_LABEL
        return {
            "input_ids": input_ids_B_L,
            "labels": labels_B_L,
            "position_ids": position_ids_B_L,
        }
