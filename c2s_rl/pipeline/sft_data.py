"""Prompt records as token rows for supervised fine-tuning, packed or not, without contamination.

A sample is prompt + target + end token; only target and end token are learnt. Packing lays several
samples into one row. They are kept apart by position ids that start again at 0, from which
transformers builds a block-diagonal attention mask for its 'sdpa' and 'eager' attention as long as
no attention mask is passed; TRL's own packing flattens the whole batch into one row for kernels
that take sequence lengths, which costs a [batch * length]^2 mask where there is no such kernel.
Left out: chat templates, streaming (all token rows are held in memory).
Shape suffixes: B rows, L tokens of the longest row.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NotRequired, TypedDict

from pydantic import Field

from c2s_rl.config import FrozenConfig
from c2s_rl.errors import DataError
from c2s_rl.types import PromptRecord, Task

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

IGNORED_LABEL = -100  # what torch's cross entropy, TRL and transformers leave out of the loss

log = logging.getLogger(__name__)


class TooLong(StrEnum):
    """What becomes of a sample that has more tokens than `max_length`."""

    ERROR = "error"
    DROP = "drop"


class SftDataConfig(FrozenConfig):
    """Which prompts are learnt from, and how they are laid out in rows."""

    tasks: tuple[Task, ...] | None = Field(
        None, min_length=1, description="Tasks to learn; default: all of the corpus"
    )
    max_length: int = Field(
        1024, ge=2, description="Most tokens of a row; no sample may be longer (see too_long)"
    )
    too_long: TooLong = Field(
        TooLong.ERROR, description="A sample longer than max_length: error, or drop (counted)"
    )
    packing: bool = Field(
        default=False, description="Lay several samples into each row, up to max_length tokens"
    )
    eval_fraction: float = Field(
        0.0, ge=0, lt=1, description="Share of the training cells kept out for the eval loss"
    )


class TokenRow(TypedDict):
    """One row as the collator is given it."""

    input_ids: list[int]
    labels: list[int]
    """The input ids again, IGNORED_LABEL where nothing is learnt."""
    seq_lengths: NotRequired[list[int]]
    """Tokens of each sample, in order, if the row is packed."""


@dataclass(frozen=True)
class SftRows:
    """Token rows of one split, ready for TRL: columns input_ids, completion_mask (0 or 1)."""

    rows: "Dataset"
    """One row a sample; packed: several, with a column seq_lengths."""
    num_samples: int
    """Samples in the rows."""
    num_too_long: int
    """Samples that were dropped for their length."""
    longest: int
    """Tokens of the longest sample that is in."""


def build_dataset(
    records: Sequence[PromptRecord], tokenizer: "PreTrainedTokenizerBase", config: SftDataConfig
) -> SftRows:
    """Tokenise prompt and target apart, join them, add the end token, and pack if asked to.

    Tokenised apart, the prompt's ids are a prefix of the sample's ids whatever the tokenizer
    merges, which is what the policy sees when it is sampled from. No begin token is added.

    Args:
        records: Prompts with targets.
        tokenizer: The base model's; must have an end token.
        config: Longest row, and whether to pack.

    Raises:
        DataError: If a sample is too long and `too_long` is 'error', if none is left, or if the
            tokenizer has no end token.
    """
    from datasets import Dataset

    eos = tokenizer.eos_token_id
    if eos is None:
        raise DataError("the base model's tokenizer must have an end token, got none")
    prompts = _tokenise([record.prompt for record in records], tokenizer)
    targets = _tokenise([record.target for record in records], tokenizer)
    samples = [(p, [*t, int(eos)]) for p, t in zip(prompts, targets, strict=True)]
    lengths = [len(prompt) + len(target) for prompt, target in samples]
    _check_lengths(records, lengths, config)
    kept = [i for i, length in enumerate(lengths) if length <= config.max_length]
    if not kept:
        raise DataError(
            f"at least one sample must have at most data.max_length = {config.max_length} tokens, "
            f"got {len(records)} samples and none of them that short"
        )
    rows = Dataset.from_dict(
        {
            "input_ids": [samples[i][0] + samples[i][1] for i in kept],
            "completion_mask": [[0] * len(samples[i][0]) + [1] * len(samples[i][1]) for i in kept],
        }
    )
    return SftRows(
        rows=_pack(rows, config.max_length) if config.packing else rows,
        num_samples=len(kept),
        num_too_long=len(records) - len(kept),
        longest=max(lengths[i] for i in kept),
    )


def split_validation(
    records: Sequence[PromptRecord], *, fraction: float, seed: int
) -> tuple[list[PromptRecord], list[PromptRecord]]:
    """Keep a share of the training cells out, all prompts of a cell on the same side.

    Which side depends on the target cell's id and the seed alone, not on order or number.

    Args:
        records: Training prompts.
        fraction: Expected share that is kept out, in [0, 1).
        seed: The run's seed.

    Returns:
        Records to learn from and records kept out, each in the order given.
    """
    # Not at the top: it loads numba, and reading a config must be quick.
    from c2s_rl.cells.rank import stable_hash

    border = int(fraction * 2**64)
    is_out = [stable_hash(r.target_id or r.prompt_id, seed) < border for r in records]
    learnt = [record for record, out in zip(records, is_out, strict=True) if not out]
    return learnt, [record for record, out in zip(records, is_out, strict=True) if out]


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
            input_ids [B, L] (padding: `pad_id`), labels [B, L] (padding and the first token of
            every sample: IGNORED_LABEL), position_ids [B, L], all int64.
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
            labels_B_L[i, :num_tokens] = torch.tensor(row["labels"])
            starts, ends = _bounds(row.get("seq_lengths") or [num_tokens], length)
            for start, end in zip(starts, ends, strict=True):
                position_ids_B_L[i, start:end] = torch.arange(end - start)
            # The token before a sample's first one belongs to another sample: no prediction.
            labels_B_L[i, starts] = IGNORED_LABEL
        return {
            "input_ids": input_ids_B_L,
            "labels": labels_B_L,
            "position_ids": position_ids_B_L,
        }


def _tokenise(texts: list[str], tokenizer: "PreTrainedTokenizerBase") -> list[list[int]]:
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return ids


def _check_lengths(
    records: Sequence[PromptRecord], lengths: Sequence[int], config: SftDataConfig
) -> None:
    num_too_long = sum(length > config.max_length for length in lengths)
    if num_too_long == 0:
        return
    longest = max(range(len(lengths)), key=lengths.__getitem__)
    if config.too_long is TooLong.ERROR:
        raise DataError(
            f"prompt + target + end token must be at most data.max_length = {config.max_length} "
            f"tokens, got {lengths[longest]} in prompt {records[longest].prompt_id!r} (the longest;"
            f" {num_too_long} of {len(records)} are too long): raise data.max_length, make the "
            "corpus with fewer genes a cell, or set data.too_long to 'drop'"
        )
    log.warning(
        "dropped %d of %d samples longer than %d tokens",
        num_too_long,
        len(records),
        config.max_length,
    )


def _pack(rows: "Dataset", max_length: int) -> "Dataset":
    """Best-fit-decreasing packing by TRL; no sample is cut, since none is over `max_length`."""
    from trl.data_utils import pack_dataset

    # One batch, so that packing sees all samples and does not depend on a batch size.
    return pack_dataset(rows, max_length, "bfd", {"batch_size": len(rows)})


def _bounds(seq_lengths: Sequence[int], length: int) -> tuple[list[int], list[int]]:
    """Start and end of each sample in a row of `length`; padding is counted to the last one."""
    starts = [0]
    for seq_length in seq_lengths[:-1]:
        starts.append(starts[-1] + seq_length)
    return starts, [*starts[1:], length]
