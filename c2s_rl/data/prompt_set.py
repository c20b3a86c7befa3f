"""Prompt shards on disk: Parquet files with one column per field of PromptRecord, and a manifest.

    manifest.json             vocabulary, counts, config, seed, hash of the cells' manifest
    prompts-00000.parquet ... zstd; rows in a seeded shuffled order: any first part is a fair sample

Left out: making the records (`corpus.py`) and tokenising them.

Shape suffixes: P prompts of a file, K genes of one prompt.
"""

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.errors import DataError, MissingFileError
from c2s_rl.types import IntArray, PromptRecord, Split, Task

SCHEMA_VERSION = 3
MANIFEST = "manifest.json"
# Large enough to compress well, small enough that one file's rankings fit in memory many times.
ROWS_PER_FILE = 8192
ROWS_PER_GROUP = 1024
# Prompts of one condition repeat its pseudobulk ranking (some 30 kB). A page must hold many of them
# and zstd look back far enough to find the repeats: 2.5 times smaller than with level 1.
PAGE_BYTES = 8 * 2**20
ZSTD_LEVEL = 6

_WORD = pa.dictionary(pa.int32(), pa.string())
_GENES = pa.list_(pa.int32())
_WORDS = pa.list_(pa.string())
SCHEMA = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("prompt", pa.string()),
        ("target", pa.string()),
        ("task", _WORD),
        ("condition", _WORD),
        ("context_id", pa.string()),
        ("target_id", pa.string()),
        ("split", _WORD),
        ("target_genes", _GENES),
        ("context_genes", _GENES),
        ("tier", _WORD),
        ("keywords", _WORDS),
        ("context_ids", _WORDS),
        ("target_ids", _WORDS),
    ]
)


class ConditionCount(BaseModel):
    """How much there is of one condition on one side."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: Task = Field(description="What the prompts ask.")
    split: Split = Field(description="Side of the held-out line.")
    condition: str = Field(description="Population that the answers belong to.")
    num_prompts: int = Field(description="Prompts written.")
    num_cells: int = Field(description="Cells of the condition on this side, used or not.")
    tier: str = Field("", description="How far it is from training; '' on the training side.")


class PromptManifest(BaseModel):
    """What a folder of prompt shards was made from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = Field(SCHEMA_VERSION, description="Version of this layout.")
    organism: str = Field(description="Species of the cells.")
    num_genes: int = Field(description="Length of cell sentences, in genes.")
    seed: int = Field(description="Seed of split, pairing, wording and order.")
    counts: tuple[ConditionCount, ...] = Field(description="Per task, side and condition.")
    dropped: dict[str, int] = Field(description="Reason to number left out.")
    held_out_conditions: tuple[str, ...] = Field(
        (), description="Conditions that no training prompt may have, sorted."
    )
    num_shortened: dict[Task, int] = Field(
        default_factory=dict, description="Per task, prompts that were cut to the token budget."
    )
    num_short_targets: int = Field(description="Target sentences of fewer than num_genes genes.")
    cells_manifest_sha256: str = Field(description="SHA-256 of the cell shards' manifest.json.")
    sources_sha256: dict[str, str] = Field(
        default_factory=dict,
        description="SHA-256 of each other file (questions, abstracts, gene sets), by its name.",
    )
    config: dict[str, JsonValue] = Field(description="The stage's config, resolved.")
    phrasings: dict[Task, tuple[str, ...]] = Field(description="Templates the prompts came from.")
    symbols: tuple[str, ...] = Field(description="Vocabulary as written in sentences.")
    original: tuple[str, ...] = Field(description="Vocabulary as written in the source file.")

    def num_prompts(self, split: Split) -> int:
        """Count the prompts of one side."""
        return sum(count.num_prompts for count in self.counts if count.split is split)


@dataclass(frozen=True, eq=False)
class PromptSet:
    """Prompts read from a folder, with the vocabulary that their genes index."""

    records: tuple[PromptRecord, ...]
    """[P] in the order of the files."""
    manifest: PromptManifest
    """What they were made from; its counts are of the whole folder."""

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Gene symbols by index."""
        return Vocabulary(symbols=self.manifest.symbols, original=self.manifest.original)

    @property
    def num_genes(self) -> int:
        """Length of cell sentences, in genes."""
        return self.manifest.num_genes

    def __len__(self) -> int:
        return len(self.records)


@dataclass(frozen=True, slots=True)
class PromptPlace:
    """Which side a prompt stands on, and with which cells; the rest of it is not read."""

    split: Split
    condition: str
    context_id: str
    target_id: str
    context_ids: tuple[str, ...]
    target_ids: tuple[str, ...]


def write_prompts(folder: Path, records: Iterable[PromptRecord], manifest: PromptManifest) -> None:
    """Write prompts and their manifest into an existing folder, in the order given.

    Raises:
        ValueError: If a record breaks the joining rule (see `c2s_rl.prompts.render`).
    """
    write_shards(folder, records)
    write_manifest(folder, manifest)


def write_shards(folder: Path, records: Iterable[PromptRecord]) -> None:
    """Write prompts without a manifest, one file in memory at a time.

    Raises:
        ValueError: If a record breaks the joining rule (see `c2s_rl.prompts.render`).
    """
    remaining = iter(records)
    for index in itertools.count():
        chunk = list(itertools.islice(remaining, ROWS_PER_FILE))
        if not chunk and index > 0:
            break
        pq.write_table(
            _to_table(chunk),
            folder / f"prompts-{index:05d}.parquet",
            compression="zstd",
            compression_level=ZSTD_LEVEL,
            row_group_size=ROWS_PER_GROUP,
            data_page_size=PAGE_BYTES,
            use_dictionary=["task", "condition", "split", "tier"],
        )


def write_manifest(folder: Path, manifest: PromptManifest) -> None:
    """Write what the shards were made from."""
    text = manifest.model_dump_json(indent=1)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def read_prompts(
    folder: Path, *, split: Split | None = None, task: Task | None = None
) -> PromptSet:
    """Read prompt shards, or one side or task of them.

    Args:
        folder: What the stage `corpus` wrote.
        split: Only this side; None reads both.
        task: Only this task; None reads all.

    Raises:
        MissingFileError: If the folder holds no prompt shards.
        DataError: If manifest or shards cannot be read, or a gene is not in the vocabulary.
    """
    manifest = read_manifest(folder)
    records: list[PromptRecord] = []
    for path in _shards(folder):
        table = _read_table(path)
        for column, wanted in (("split", split), ("task", task)):
            if wanted is not None:
                table = table.filter(pc.equal(table[column].cast(pa.string()), wanted.value))
        records += _to_records(table, len(manifest.symbols), path)
    return PromptSet(tuple(records), manifest)


def iter_places(folder: Path) -> Iterator[PromptPlace]:
    """Yield where every prompt stands, in the order of the files, a row group in memory at a time.

    Raises:
        MissingFileError: If the folder holds no prompt shards.
        DataError: If a shard is not whole Parquet with the columns of this schema.
    """
    for path in _shards(folder):
        try:
            with pq.ParquetFile(path) as file:
                if not file.schema_arrow.equals(SCHEMA):
                    raise _wrong_columns(file.schema_arrow.names, path)
                names = [column.name for column in fields(PromptPlace)]
                for batch in file.iter_batches(ROWS_PER_GROUP, columns=names):
                    yield from map(_to_place, batch.to_pylist())
        except (pa.ArrowException, OSError) as error:
            raise _not_whole(error, path) from error


def read_manifest(folder: Path) -> PromptManifest:
    """Read the manifest of prompt shards.

    Raises:
        MissingFileError: If there is none.
        DataError: If it is not one of this schema version.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise MissingFileError(f"a corpus must hold {MANIFEST}, got none in {folder}")
    text = path.read_text(encoding="utf-8")
    _check_version(text, path)
    try:
        return PromptManifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise DataError(
            f"a corpus manifest must follow its schema, got {first['msg']!r} at {place} in {path}"
        ) from error


def _check_version(text: str, path: Path) -> None:
    """Refuse the manifest of another version before its fields are looked at."""
    try:
        content = json.loads(text)
    except ValueError:
        return  # the schema's own check has the better message
    version = content.get("schema_version") if isinstance(content, dict) else SCHEMA_VERSION
    if version != SCHEMA_VERSION:
        raise DataError(
            f"schema_version must be {SCHEMA_VERSION}, got {version} in {path}; "
            "make the corpus again"
        )


def _to_table(records: Sequence[PromptRecord]) -> pa.Table:
    for record in records:
        _check_joining(record)
    columns = [
        pa.array([r.prompt_id for r in records], pa.string()),
        pa.array([r.prompt for r in records], pa.string()),
        pa.array([r.target for r in records], pa.string()),
        pa.array([r.task.value for r in records], _WORD),
        pa.array([r.condition for r in records], _WORD),
        pa.array([r.context_id for r in records], pa.string()),
        pa.array([r.target_id for r in records], pa.string()),
        pa.array([r.split.value for r in records], _WORD),
        _to_lists([r.target_genes_K for r in records]),
        _to_lists([r.context_genes_K for r in records]),
        pa.array([r.tier for r in records], _WORD),
        pa.array([list(r.keywords) for r in records], _WORDS),
        pa.array([list(r.context_ids) for r in records], _WORDS),
        pa.array([list(r.target_ids) for r in records], _WORDS),
    ]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def _check_joining(record: PromptRecord) -> None:
    if record.prompt != record.prompt.rstrip() or not record.prompt:
        raise ValueError(
            f"a prompt must be text that ends without whitespace, got {record.prompt[-20:]!r} "
            f"in {record.prompt_id}"
        )
    if record.target[:1] != " " or record.target != " " + record.target.strip():
        raise ValueError(
            f"a target must start with exactly one space and end with none, "
            f"got {record.target[:20]!r} in {record.prompt_id}"
        )


def _to_lists(genes_P_K: Sequence[IntArray]) -> pa.ListArray:
    offsets = np.zeros(len(genes_P_K) + 1, dtype=np.int32)
    np.cumsum([len(genes) for genes in genes_P_K], out=offsets[1:])
    flat = np.concatenate(genes_P_K) if genes_P_K else np.zeros(0, dtype=np.int32)
    return pa.ListArray.from_arrays(offsets, flat.astype(np.int32, copy=False), type=_GENES)


def _shards(folder: Path) -> list[Path]:
    paths = sorted(folder.glob("prompts-*.parquet"))
    if not paths:
        raise MissingFileError(f"a corpus must hold prompts-*.parquet, got none in {folder}")
    return paths


def _to_place(row: Mapping[str, str | list[str]]) -> PromptPlace:
    return PromptPlace(
        split=Split(str(row["split"])),
        condition=str(row["condition"]),
        context_id=str(row["context_id"]),
        target_id=str(row["target_id"]),
        context_ids=tuple(row["context_ids"]),
        target_ids=tuple(row["target_ids"]),
    )


def _read_table(path: Path) -> pa.Table:
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise _not_whole(error, path) from error
    if not table.schema.equals(SCHEMA):
        raise _wrong_columns(table.column_names, path)
    return table.combine_chunks()


def _not_whole(error: Exception, path: Path) -> DataError:
    return DataError(f"a prompt shard must be whole Parquet, got {error} in {path}")


def _wrong_columns(names: Sequence[str], path: Path) -> DataError:
    return DataError(
        f"a prompt shard must have the columns {SCHEMA.names}, got {list(names)} in {path}"
    )


def _to_records(table: pa.Table, num_symbols: int, path: Path) -> list[PromptRecord]:
    texts = {
        name: table[name].cast(pa.string()).to_pylist()
        for name in SCHEMA.names
        if not pa.types.is_list(SCHEMA.field(name).type)
    }
    words = {n: table[n].to_pylist() for n in ("keywords", "context_ids", "target_ids")}
    target_genes = _from_lists(table["target_genes"], num_symbols, path)
    context_genes = _from_lists(table["context_genes"], num_symbols, path)
    return [
        PromptRecord(
            prompt_id=texts["prompt_id"][row],
            prompt=texts["prompt"][row],
            target=texts["target"][row],
            task=Task(texts["task"][row]),
            condition=texts["condition"][row],
            context_id=texts["context_id"][row],
            target_id=texts["target_id"][row],
            split=Split(texts["split"][row]),
            target_genes_K=target_genes[row],
            context_genes_K=context_genes[row],
            tier=texts["tier"][row],
            keywords=tuple(words["keywords"][row]),
            context_ids=tuple(words["context_ids"][row]),
            target_ids=tuple(words["target_ids"][row]),
        )
        for row in range(table.num_rows)
    ]


def _from_lists(column: pa.ChunkedArray, num_symbols: int, path: Path) -> list[IntArray]:
    """Cut a list column into one array a row; they share the column's memory."""
    lists: list[IntArray] = []
    for chunk in column.chunks:
        flat = chunk.flatten().to_numpy()
        if len(flat) and not 0 <= flat.min() <= flat.max() < num_symbols:
            raise DataError(
                f"a gene must be one of the {num_symbols} of the vocabulary, "
                f"got index {flat.max() if flat.max() >= num_symbols else flat.min()} in {path}"
            )
        offsets = chunk.offsets.to_numpy()
        lists += np.split(flat, offsets[1:-1] - offsets[0])
    return lists
