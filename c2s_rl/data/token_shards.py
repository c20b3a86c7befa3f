"""Token shards on disk: rows of token ids in the order of an epoch, memory-mapped by `datasets`.

    manifest.json             what they were made from, tasks by code, counts, shards
    train-00000.arrow ...     training rows in a seeded shuffled order
    eval-<task>-00000.arrow   rows kept out for the eval loss, each of one task
    statistics.json report.html   counts by task, and as pictures
    hashes.json               SHA-256 of every other file

A file is an Arrow stream (the format that `datasets` maps) with one row a training row:

    input_ids       list<int32>, tokens of the row's samples one after another
    seq_lengths     list<int32>, tokens of each sample
    prompt_lengths  list<int32>, leading tokens of each sample that are not learnt
    tasks           list<int16>, code of each sample's task: its place in the manifest's `tasks`

Left out: tokenising (`token_samples.py`), and how rows become batches (`RowCollator`).
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from c2s_rl.checkpoint import MANIFEST
from c2s_rl.data.token_packing import best_fit
from c2s_rl.data.token_spill import KeyedSample
from c2s_rl.data.token_statistics import TaskCounts, TokenSide
from c2s_rl.errors import DataError, MissingFileError
from c2s_rl.types import Task

if TYPE_CHECKING:
    from datasets import Dataset

SCHEMA_VERSION = 1
# Rows of a record batch: finding a row in the file stays quick, and offsets stay below 2^31.
ROWS_PER_BATCH = 256

_IDS = pa.list_(pa.int32())
SCHEMA = pa.schema(
    [
        ("input_ids", _IDS),
        ("seq_lengths", _IDS),
        ("prompt_lengths", _IDS),
        ("tasks", pa.list_(pa.int16())),
    ]
)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TokenShard(_Frozen):
    """One file of rows."""

    name: str = Field(description="File name.")
    side: TokenSide = Field(description="What its rows are for.")
    task: Task | None = Field(description="Task of eval rows; None for training rows.")
    num_rows: int = Field(description="Rows.")
    num_samples: int = Field(description="Samples in the rows, repeats counted.")
    num_tokens: int = Field(description="Tokens in the rows.")
    sha256: str = Field(description="SHA-256 of the file.")


class TokenManifest(_Frozen):
    """What a folder of token shards was made from, and what is in it."""

    schema_version: int = Field(SCHEMA_VERSION, description="Version of this layout.")
    made_from: dict[str, JsonValue] = Field(
        description="Config, seed, hashes of corpus and tokenizer: what decides every byte."
    )
    tasks: tuple[Task, ...] = Field(description="Tasks; a task's code is its place here.")
    max_length: int = Field(description="Most tokens of a row.")
    counts: tuple[TaskCounts, ...] = Field(description="Samples and tokens by task and side.")
    shards: tuple[TokenShard, ...] = Field(description="Files, in order.")

    def num_rows(self, side: TokenSide) -> int:
        """Rows of one side."""
        return sum(shard.num_rows for shard in self.shards if shard.side is side)

    def num_samples(self, side: TokenSide) -> int:
        """Samples in the rows of one side, repeats counted."""
        return sum(shard.num_samples for shard in self.shards if shard.side is side)

    def num_tokens(self, side: TokenSide) -> int:
        """Tokens in the rows of one side."""
        return sum(shard.num_tokens for shard in self.shards if shard.side is side)

    def efficiency(self, side: TokenSide) -> float:
        """Share of rows of `max_length` that is tokens and not room, in [0, 1]; 0 without rows."""
        room = self.num_rows(side) * self.max_length
        return self.num_tokens(side) / room if room else 0.0


def write_shard(path: Path, samples: Sequence[KeyedSample], *, row_length: int | None) -> int:
    """Write samples as rows, packed or not.

    Args:
        path: The file.
        samples: Samples in order.
        row_length: Most tokens of a packed row; None gives each sample a row.

    Returns:
        Number of rows.
    """
    lengths = [len(sample.ids) for sample in samples]
    rows = (
        [[place] for place in range(len(samples))]
        if row_length is None
        else best_fit(lengths, row_length)
    )
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, SCHEMA) as writer:
        for start in range(0, len(rows), ROWS_PER_BATCH):
            some = rows[start : start + ROWS_PER_BATCH]
            writer.write_batch(_to_batch([[samples[place] for place in row] for row in some]))
    return len(rows)


def read_token_manifest(folder: Path) -> TokenManifest:
    """Read the manifest of token shards.

    Raises:
        MissingFileError: If there is none.
        DataError: If it is not one of this schema version.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise MissingFileError(f"token shards must have a {MANIFEST}, got none in {folder}")
    try:
        manifest = TokenManifest.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise DataError(
            f"a manifest of token shards must follow its schema, got {first['msg']!r} at {place} "
            f"in {path}"
        ) from error
    if manifest.schema_version != SCHEMA_VERSION:
        raise DataError(
            f"schema_version must be {SCHEMA_VERSION}, got {manifest.schema_version} in {path}; "
            "tokenise again"
        )
    return manifest


def open_token_rows(folder: Path, side: TokenSide = TokenSide.TRAIN) -> "Dataset":
    """Map the rows of one side; nothing is read before it is asked for.

    Args:
        folder: Token shards.
        side: Training rows in the order of an epoch, or eval rows, task by task.

    Raises:
        MissingFileError: If the folder holds no token shards, or lacks one that it lists.
        DataError: If the side has no rows.
    """
    manifest = read_token_manifest(folder)
    return _map(folder, [shard for shard in manifest.shards if shard.side is side], side)


def open_eval_rows(folder: Path) -> "dict[Task, Dataset]":
    """Map the eval rows by task; tasks without any are left out, and all are if none is kept out.

    Raises:
        MissingFileError: If the folder holds no token shards, or lacks one that it lists.
    """
    shards = [s for s in read_token_manifest(folder).shards if s.side is TokenSide.EVAL]
    return {
        task: _map(folder, [shard for shard in shards if shard.task is task], TokenSide.EVAL)
        for task in dict.fromkeys(shard.task for shard in shards)
        if task is not None
    }


def _map(folder: Path, shards: Sequence[TokenShard], side: TokenSide) -> "Dataset":
    from datasets import Dataset, concatenate_datasets

    if not shards:
        raise DataError(f"token shards must have {side.value} rows, got none in {folder}")
    for shard in shards:
        if not (folder / shard.name).is_file():
            raise MissingFileError(
                f"token shards must hold every file they list, got no {shard.name} in {folder}"
            )
    return concatenate_datasets([Dataset.from_file(str(folder / s.name)) for s in shards])


def _to_batch(rows: Sequence[Sequence[KeyedSample]]) -> pa.RecordBatch:
    samples = [sample for row in rows for sample in row]
    num_samples = [len(row) for row in rows]
    columns = [
        _lists([sum(len(s.ids) for s in row) for row in rows], [s.ids for s in samples], _IDS),
        _lists(num_samples, [[len(s.ids) for s in samples]], _IDS),
        _lists(num_samples, [[s.num_prompt for s in samples]], _IDS),
        _lists(num_samples, [[s.task for s in samples]], SCHEMA.field("tasks").type),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def _lists(lengths: Sequence[int], parts: Iterable[npt.ArrayLike], kind: pa.DataType) -> pa.Array:
    offsets = np.zeros(len(lengths) + 1, dtype=np.int32)
    np.cumsum(lengths, out=offsets[1:])
    values = np.concatenate([np.asarray(part) for part in parts])
    return pa.ListArray.from_arrays(offsets, pa.array(values, kind.value_type), type=kind)
