"""Texts of studies from a table of two columns: which study, and its abstract.

    .tsv       study <tab> abstract, one a line; a first line 'study <tab> abstract' is a header
    .jsonl     {"study": ..., "abstract": ...} a line
    .parquet   columns study and abstract

White space within an abstract becomes single spaces: a prompt keeps its lines for its own parts.
Left out: several texts of one study (`dataset_interpretation`).
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from c2s_rl.cells.vocabulary import shown, unknown_name
from c2s_rl.config import expand_variables
from c2s_rl.data.corpus_sections import MultiCellConfig
from c2s_rl.data.drafts import Material
from c2s_rl.errors import DataError, MissingFileError

STUDY, ABSTRACT = "study", "abstract"


def study_abstracts(material: Material, settings: MultiCellConfig) -> Mapping[str, str]:
    """Read the abstract of every study that the cells are of; empty without a file.

    Returns:
        Value of dataset_column to abstract; '' to the only one without such a column.

    Raises:
        MissingFileError: If there is no file.
        DataError: If a study of the cells is not in it, or it holds several and cells do not say
            which they are of.
    """
    if settings.abstracts is None:
        return {}
    abstracts = read_abstracts(settings.abstracts)
    column = settings.dataset_column
    if column is None:
        if len(abstracts) > 1:
            raise DataError(
                "abstracts of several studies need multi_cell.dataset_column, got "
                f"{shown(sorted(abstracts))} in {settings.abstracts} and no such column"
            )
        return {"": next(iter(abstracts.values()))}
    studies = {material.value(cell, column) for cell in material.cells} - {""}
    for study in sorted(studies - abstracts.keys()):
        known = sorted(abstracts)
        raise DataError(
            unknown_name(f"a study of obs {column}", study, known, str(settings.abstracts))
        )
    return {**abstracts, "": ""}  # a cell without a study is left out and counted


def read_abstracts(path: Path) -> dict[str, str]:
    """Read a table of studies.

    Args:
        path: .tsv, .jsonl or .parquet; ${VARIABLES} allowed.

    Raises:
        MissingFileError: If there is no such file.
        ConfigError: If the path names a variable that is not set.
        DataError: If it is of another format, a row breaks a rule, or a study stands twice.
    """
    file = Path(expand_variables(str(path)))
    if not file.is_file():
        raise MissingFileError(f"a table of abstracts must be a file that exists, got {file}")
    abstracts: dict[str, str] = {}
    for number, (study, text) in _rows(file):
        where = f"row {number} of {file}"
        name, abstract = study.strip(), " ".join(text.split())
        if not name or not abstract:
            raise DataError(f"a row must have study and abstract, got {study!r} in {where}")
        if name in abstracts:
            raise DataError(f"a study must stand once, got {name!r} again in {where}")
        abstracts[name] = abstract
    if not abstracts:
        raise DataError(f"a table of abstracts must hold at least one, got none in {file}")
    return abstracts


def _rows(file: Path) -> Iterator[tuple[int, tuple[str, str]]]:
    readers = {".tsv": _tsv, ".jsonl": _jsonl, ".parquet": _parquet}
    if file.suffix not in readers:
        raise DataError(f"abstracts must be .tsv, .jsonl or .parquet, got {file}")
    yield from readers[file.suffix](file)


def _tsv(file: Path) -> Iterator[tuple[int, tuple[str, str]]]:
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        parts = line.split("\t")
        if len(parts) != 2:
            raise DataError(
                "a row must be study and abstract separated by a tab, got "
                f"{len(parts)} columns in row {number} of {file}"
            )
        if number == 1 and [part.strip().lower() for part in parts] == [STUDY, ABSTRACT]:
            continue
        yield number, (parts[0], parts[1])


def _jsonl(file: Path) -> Iterator[tuple[int, tuple[str, str]]]:
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"each line must be JSON, got {error} in row {number} of {file}") from (
                error
            )
        if not isinstance(row, dict):
            raise DataError(f"each line must be a JSON object, got {row!r} in {file}")
        yield number, _texts(row, number, file)


def _parquet(file: Path) -> Iterator[tuple[int, tuple[str, str]]]:
    try:
        rows: Iterable[Mapping[str, object]] = pq.read_table(file).to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"abstracts must be whole Parquet, got {reason} in {file}") from error
    for number, row in enumerate(rows, start=1):
        yield number, _texts(row, number, file)


def _texts(row: Mapping[str, object], number: int, file: Path) -> tuple[str, str]:
    study, abstract = row.get(STUDY), row.get(ABSTRACT)
    if not isinstance(study, str) or not isinstance(abstract, str):
        raise DataError(
            f"a row must have texts {STUDY} and {ABSTRACT}, got {sorted(row)} in row {number} "
            f"of {file}"
        )
    return study, abstract
