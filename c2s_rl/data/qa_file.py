"""Questions about cells, read from a JSONL or Parquet file, one a row.

    question    what is asked (required)
    answer      a right answer (required)
    keywords    list of words that a right answer names
    context     text about the study
    id          unique; default: the row's number
    condition   group that results are shown by; default: the cell type, else 'questions'

and what the question is about, exactly one of

    cells       list of cell ids of the cell shards
    sentences   list of cell sentences, for cells that are in no shard
    cell_type   a label: cells of that type are drawn when the corpus is made

Any other column (study, topic, ...) is kept as text, for splits. Left out: drawing and splitting
(`qa_drafts.py`).
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import JsonValue

from c2s_rl.config import expand_variables
from c2s_rl.errors import DataError, MissingFileError

ABOUT = ("cells", "sentences", "cell_type")
NO_CONDITION = "questions"


@dataclass(frozen=True)
class QaItem:
    """One question with its answer."""

    question_id: str
    """Unique within the file."""
    question: str
    answer: str
    keywords: tuple[str, ...]
    """What a right answer names; may be empty."""
    context: str
    """Text about the study; '' without one."""
    condition: str
    """Group that results are shown by."""
    cells: tuple[str, ...]
    """Ids of the cells shown; empty unless the file names them."""
    sentences: tuple[str, ...]
    """Cells shown as sentences; empty unless the file holds them."""
    cell_type: str
    """Type of the cells to draw; '' unless they are to be drawn."""
    columns: Mapping[str, str]
    """Every text column of the row, for splits."""


def read_questions(path: Path) -> list[QaItem]:
    """Read and check a file of questions.

    Args:
        path: .jsonl or .parquet; ${VARIABLES} allowed.

    Returns:
        Questions in the order of the file.

    Raises:
        MissingFileError: If there is no such file.
        ConfigError: If the path names a variable that is not set.
        DataError: If the file is neither format, holds no question, or a row breaks a rule; names
            the row.
    """
    file = questions_file(path)
    items = [_item(row, number, file) for number, row in enumerate(_rows(file), start=1)]
    if not items:
        raise DataError(f"a file of questions must hold at least one, got none in {file}")
    first: dict[str, int] = {}
    for number, item in enumerate(items, start=1):
        if item.question_id in first:
            raise DataError(
                f"ids of questions must differ, got {item.question_id!r} in rows "
                f"{first[item.question_id]} and {number} of {file}"
            )
        first[item.question_id] = number
    return items


def questions_file(path: Path) -> Path:
    """The file that a config names, variables replaced.

    Raises:
        MissingFileError: If there is no such file.
        ConfigError: If the path names a variable that is not set.
    """
    file = Path(expand_variables(str(path)))
    if not file.is_file():
        raise MissingFileError(f"qa.path must be a file that exists, got {file}")
    return file


def _rows(file: Path) -> Iterator[Mapping[str, JsonValue]]:
    if file.suffix == ".parquet":
        try:
            rows: Iterable[Mapping[str, JsonValue]] = pq.read_table(file).to_pylist()
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError(f"questions must be whole Parquet, got {error} in {file}") from error
        yield from rows
        return
    if file.suffix != ".jsonl":
        raise DataError(f"questions must be .jsonl or .parquet, got {file}")
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(
                f"each line must be JSON, got {error} in line {number} of {file}"
            ) from None
        if not isinstance(row, dict):
            raise DataError(
                f"each line must be a JSON object, got {row!r} in line {number} of {file}"
            )
        yield row


def _item(row: Mapping[str, JsonValue], number: int, file: Path) -> QaItem:
    where = f"row {number} of {file}"
    about = [name for name in ABOUT if row.get(name)]
    if len(about) != 1:
        raise DataError(
            f"a question must have exactly one of {', '.join(ABOUT)}, "
            f"got {', '.join(about) or 'none'} in {where}"
        )
    cell_type = _text(row, "cell_type", where)
    return QaItem(
        question_id=_text(row, "id", where) or str(number),
        question=_required(row, "question", where),
        answer=_required(row, "answer", where),
        keywords=_texts(row, "keywords", where),
        context=_text(row, "context", where),
        condition=_text(row, "condition", where) or cell_type or NO_CONDITION,
        cells=_texts(row, "cells", where),
        sentences=_texts(row, "sentences", where),
        cell_type=cell_type,
        columns={
            name: str(value) for name, value in row.items() if isinstance(value, str | int | float)
        },
    )


def _text(row: Mapping[str, JsonValue], name: str, where: str) -> str:
    value = row.get(name)
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise DataError(f"{name} must be text, got {value!r} in {where}")
    return str(value).strip()


def _required(row: Mapping[str, JsonValue], name: str, where: str) -> str:
    text = _text(row, name, where)
    if not text:
        raise DataError(f"a question must have a {name}, got {row.get(name)!r} in {where}")
    return text


def _texts(row: Mapping[str, JsonValue], name: str, where: str) -> tuple[str, ...]:
    values = row.get(name)
    if values is None:
        return ()
    if not isinstance(values, list) or not all(isinstance(v, str) and v.strip() for v in values):
        raise DataError(f"{name} must be a list of texts, got {values!r} in {where}")
    return tuple(str(value).strip() for value in values)
