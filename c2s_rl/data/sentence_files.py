"""Reading cell sentences as models and other programs leave them: one text a cell, and its labels.

    completions/*.parquet      what `align` and `evaluate` write (`completions.py`)
    *.parquet, *.jsonl         a column of sentences, `cell_sentence` or `text`; others are labels
    a folder                   of such Parquet files, or of a Hugging Face data set (save_to_disk)
    any other file             text, one sentence a line

A few thousand texts are in memory at a time; labels that are lists or records are left out. What
the words mean is not looked at here (`c2s_rl.cells.reading`).

Shapes: C cells of a batch.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from c2s_rl.cells.vocabulary import shown, unknown_name
from c2s_rl.data.h5ad_stream import Column
from c2s_rl.errors import DataError, MissingFileError

COMPLETION, PROMPT_ID = "completion", "prompt_id"
SENTENCE_COLUMNS = (COMPLETION, "cell_sentence", "text")
ID_COLUMNS = (PROMPT_ID, "cell_name", "cell_id")
TRUNCATED = "is_truncated"
RECORDED_GENES = "genes"  # of completions: vocabulary indices, as parsed when they were sampled
TEXTS_PER_BATCH = 2_048
HUGGING_FACE = "dataset_info.json"
# What is counted from the texts themselves; columns of a source that are called so are left out.
COUNTS = ("num_words", "num_genes", "num_unknown_words", "num_repeated_words", "num_below_zero")
# Of completions: longer than a label, or counted anew under another name.
LEFT_OUT = ("prompt", "group", "num_duplicates")

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class SentenceBatch:
    """Consecutive sentences of a source."""

    texts: list[str]
    """[C]"""
    is_truncated: list[bool]
    """[C] whether the sampler stopped at its length limit; False where that is not known."""
    ids: list[str]
    """[C] unique over the source: prompt_id#number, or cell_name (#number from the second on)."""
    obs: dict[str, Column]
    """Label to [C] values: texts (objects, '' where missing), numbers or flags."""
    recorded_genes: list[list[int]] | None
    """[C] vocabulary indices that each text had when it was sampled; None where not recorded."""
    place: str
    """File, for messages."""


@dataclass(frozen=True)
class _Layout:
    """What the columns of a source are."""

    sentences: str
    """The column of sentences."""
    ids: str | None
    """The column that names cells or prompts."""
    is_prompt: bool
    """Whether ids name prompts, each of which may have many samples."""
    labels: dict[str, pa.DataType]
    """Columns that become obs, with their types."""
    has_recorded_genes: bool


@dataclass(eq=False)
class _Ids:
    """Names the cells of a source."""

    seen: Counter[str] = field(default_factory=Counter)
    num_rows: int = 0

    def rows(self, num: int) -> list[str]:
        """Name cells without an id by their row."""
        start, self.num_rows = self.num_rows, self.num_rows + num
        return [f"sentence-{row}" for row in range(start, start + num)]

    def samples(self, names: Sequence[str]) -> list[int]:
        """Count how often each id was there before."""
        numbers: list[int] = []
        for name in names:
            numbers.append(self.seen[name])
            self.seen[name] += 1
        return numbers


def iter_sentences(path: Path, column: str | None) -> Iterator[SentenceBatch]:
    """Read all sentences of a file or folder.

    Args:
        path: See the module's text.
        column: Which column holds the sentences; None takes the first of SENTENCE_COLUMNS.

    Raises:
        MissingFileError: If there is no such file, or nothing to read in the folder.
        DataError: If a file is not whole, lacks the column, or a sentence in it is no text.
    """
    ids = _Ids()
    files = _files(path)
    if files is None:
        yield from _from_tables(_hugging_face(path), column, ids, str(path))
    elif files[0].suffix == ".parquet":
        # The columns of all files first: a reward may have a figure in some of them only.
        layout = _layout([_schema(file) for file in files], column, str(path))
        for file in files:
            for table in _parquet(file):
                yield _batch(table, layout, ids, str(file))
    elif files[0].suffix in {".jsonl", ".ndjson"}:
        yield from _from_tables(_json_lines(files[0]), column, ids, str(path))
    else:
        yield from _from_lines(files[0], column, ids)


def _files(path: Path) -> list[Path] | None:
    """List the files to read; None for a data set of Hugging Face."""
    if path.is_file():
        return [path]
    if (path / HUGGING_FACE).is_file():
        return None
    files = sorted(path.glob("*.parquet"))
    if not files:
        raise MissingFileError(
            "sentences must be a file, a folder of Parquet files or a data set of Hugging Face "
            f"(save_to_disk), got {path}"
        )
    return files


def _from_lines(path: Path, column: str | None, ids: _Ids) -> Iterator[SentenceBatch]:
    if column is not None:
        raise DataError(
            f"a text file has one sentence a line and no columns, got {column} of {path}"
        )
    try:
        with path.open(encoding="utf-8") as file:
            while lines := [line.rstrip("\n") for line in islice(file, TEXTS_PER_BATCH)]:
                num = len(lines)
                yield SentenceBatch(lines, [False] * num, ids.rows(num), {}, None, str(path))
    except UnicodeDecodeError as error:
        raise DataError(f"sentences must be UTF-8 text, got {error} in {path}") from error


def _parquet(path: Path) -> Iterator[pa.Table]:
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=TEXTS_PER_BATCH):
                yield pa.Table.from_batches([batch])
    except (pa.ArrowException, OSError) as error:
        raise _broken(path, "whole Parquet", error) from error


def _json_lines(path: Path) -> Iterator[pa.Table]:
    from pyarrow.json import open_json

    try:
        with open_json(path) as reader:
            for batch in reader:
                table = pa.Table.from_batches([batch])
                for start in range(0, len(table), TEXTS_PER_BATCH):
                    yield table.slice(start, TEXTS_PER_BATCH)
    except pa.ArrowException as error:
        raise _broken(path, "JSON, one record a line, all of one form", error) from error


def _hugging_face(path: Path) -> Iterator[pa.Table]:
    import datasets

    try:
        dataset = datasets.load_from_disk(str(path))
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise _broken(path, "a whole data set of Hugging Face", error) from error
    yield from dataset.with_format("arrow").iter(batch_size=TEXTS_PER_BATCH)


def _broken(path: Path, form: str, error: Exception) -> DataError:
    reason = " ".join(str(error).split())
    return DataError(f"sentences must be {form}, got {reason} in {path}")


def _schema(path: Path) -> pa.Schema:
    try:
        return pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise _broken(path, "whole Parquet", error) from error


def _from_tables(
    tables: Iterator[pa.Table], column: str | None, ids: _Ids, place: str
) -> Iterator[SentenceBatch]:
    layout: _Layout | None = None
    for table in tables:
        layout = layout or _layout([table.schema], column, place)
        yield _batch(table, layout, ids, place)


def _layout(schemas: Sequence[pa.Schema], column: str | None, place: str) -> _Layout:
    kinds: dict[str, pa.DataType] = {}
    for schema in schemas:
        for one in schema:
            kind = one.type.value_type if pa.types.is_dictionary(one.type) else one.type
            if kinds.setdefault(one.name, kind) != kind:
                raise DataError(
                    f"a column must be of one type in all files, got {kinds[one.name]} and {kind} "
                    f"for {one.name!r} in {place}"
                )
    sentences = _sentence_column(list(kinds), column, place)
    ids = next((name for name in ID_COLUMNS if name in kinds), None)
    is_prompt = ids == PROMPT_ID
    skipped = {sentences, *COUNTS, *(LEFT_OUT if is_prompt else ()), *([] if is_prompt else [ids])}
    labels = {name: kind for name, kind in kinds.items() if name not in skipped and _is_label(kind)}
    left_out = [name for name in kinds if name not in {*labels, sentences, ids}]
    if left_out:
        log.info("to-anndata: columns that are no labels are left out: %s", ", ".join(left_out))
    has_recorded_genes = sentences == COMPLETION and RECORDED_GENES in kinds
    return _Layout(sentences, ids, is_prompt, labels, has_recorded_genes)


def _sentence_column(known: Sequence[str], column: str | None, place: str) -> str:
    if column is not None:
        if column not in known:
            raise DataError(unknown_name("the column of sentences", column, known, place))
        return column
    found = [name for name in SENTENCE_COLUMNS if name in known]
    if not found:
        raise DataError(
            f"sentences must be in a column {' or '.join(SENTENCE_COLUMNS)}, got {shown(known)} in "
            f"{place}; name theirs with --column"
        )
    return found[0]


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_label(kind: pa.DataType) -> bool:
    tests = (_is_text, pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating)
    return any(test(kind) for test in tests)


def _batch(table: pa.Table, layout: _Layout, ids: _Ids, place: str) -> SentenceBatch:
    texts = table[layout.sentences].to_pylist()
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataError(
                f"a sentence must be text, got {text!r} in row {ids.num_rows + row} of {place}"
            )
    obs = {
        # A slash would make a group of the HDF5 file.
        name.replace("/", "_"): _column(table, name, kind)
        for name, kind in layout.labels.items()
    }
    row_ids = ids.rows(len(texts))
    if layout.ids is not None:
        names = ["" if name is None else str(name) for name in table[layout.ids].to_pylist()]
        numbers = ids.samples(names)
        row_ids = [
            f"{name}#{number}" if number or layout.is_prompt else name
            for name, number in zip(names, numbers, strict=True)
        ]
        if layout.is_prompt:
            obs["sample"] = np.array(numbers, dtype=np.int64)
    flags = table[TRUNCATED].to_pylist() if TRUNCATED in table.column_names else [None] * len(texts)
    recorded = table[RECORDED_GENES].to_pylist() if layout.has_recorded_genes else None
    return SentenceBatch(texts, [flag is True for flag in flags], row_ids, obs, recorded, place)


def _column(table: pa.Table, name: str, kind: pa.DataType) -> Column:
    """Return a column as obs holds it: missing texts are '', other missing values nan."""
    num = len(table)
    if name not in table.column_names:
        return np.full(num, "", dtype=np.object_) if _is_text(kind) else np.full(num, np.nan)
    column = table[name]
    if _is_text(kind):
        return np.array(column.cast(pa.string()).fill_null("").to_pylist(), dtype=np.object_)
    if pa.types.is_boolean(kind) and not column.null_count:
        return np.array(column.to_pylist(), dtype=np.bool_)
    if pa.types.is_integer(kind) and not column.null_count:
        return np.array(column.to_pylist(), dtype=np.int64)
    return np.array(column.cast(pa.float64()).to_pylist(), dtype=np.float64)
