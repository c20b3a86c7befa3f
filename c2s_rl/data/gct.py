"""GCT files: expression as text, one row a gene, with labels of genes and profiles around it.

    #1.3                                 version
    978  377  11  35                     genes, profiles, label columns of genes, label rows
    id   <11 names>   <377 profile ids>
    <35 rows: name, 11 fields that hold nothing, 377 labels>
    <978 rows: gene id, 11 labels, 377 values>

Version 1.2 has only `genes  profiles` in its second line and one column of descriptions. Fields are
separated by tabs; .gz is understood. Values are read once, row by row, into a file of the scratch
folder, from which profiles are then cut: memory does not grow with them. A file that promises more
values than it has takes no space for them.
Left out: the .cls files of GenePattern.

Source: GCT and GCTX format, https://clue.io/connectopedia/gct_format

Shape suffixes: C profiles, N genes.
"""

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import numpy as np

from c2s_rl.data.profiles import ProfileFile, ProfileMatrix
from c2s_rl.data.scratch import NumpyRows, made_once
from c2s_rl.data.side_tables import TableFrame
from c2s_rl.errors import DataError
from c2s_rl.types import FloatArray

if TYPE_CHECKING:
    import pandas as pd

# Version line to the label columns of genes that its second line does not count.
UNCOUNTED_LABELS = {"#1.2": 1, "#1.3": 0}
VALUES, LABELS = "values.npy", "labels.json"


@dataclass(frozen=True)
class _Shape:
    num_genes: int
    num_profiles: int
    num_gene_labels: int
    num_profile_labels: int

    @property
    def num_fields(self) -> int:
        """Fields of every line but the first two."""
        return 1 + self.num_gene_labels + self.num_profiles


class _Reader:
    """Lines of a GCT file, each checked for its number of fields."""

    def __init__(self, file: TextIO, path: Path) -> None:
        self._file = file
        self._path = path
        self._number = 0

    def line(self, what: str) -> str:
        """Return the next line.

        Raises:
            DataError: If the file ends before it.
        """
        text = self._file.readline()
        self._number += 1
        if not text:
            raise DataError(f"a GCT file must be whole, got its end before {what} at {self.place}")
        return text.rstrip("\r\n")

    def fields(self, shape: _Shape, what: str) -> list[str]:
        """Return the fields of the next line.

        Raises:
            DataError: If the file ends before it, or the line is longer or shorter than it says.
        """
        fields = self.line(what).split("\t")
        if len(fields) != shape.num_fields:
            raise DataError(
                f"a line of a GCT file must have {shape.num_fields} fields, "
                f"got {len(fields)} for {what} at {self.place}"
            )
        return fields

    def require_end(self) -> None:
        """Refuse rows that the second line does not count.

        Raises:
            DataError: If there is another line that is not empty.
        """
        for text in self._file:
            self._number += 1
            if text.strip():
                raise DataError(
                    "a GCT file must end after the genes that its second line counts, "
                    f"got {text.strip()[:40]!r} at {self.place}"
                )

    @property
    def place(self) -> str:
        """The line just read, for messages."""
        return f"line {self._number} of {self._path}"


def read_gct(path: Path, scratch: Path) -> ProfileFile:
    """Read a GCT file; its values are kept in a folder of `scratch`.

    Raises:
        DataError: If the file is cut off or damaged, a line has too few or too many fields, or a
            value is no number (gene and profile are named).
    """
    folder = made_once(scratch, path, "values of a GCT file", partial(_spool, path))
    text = json.loads((folder / LABELS).read_text(encoding="utf-8"))
    header, genes = text["header"], text["genes"]
    first = len(header) - len(text["profile_ids"])
    return ProfileFile(
        profiles=TableFrame(_table(text["profile_labels"], text["profile_ids"])),
        genes=TableFrame(_table(_columns(genes, header[:first]), [row[0] for row in genes])),
        matrix=ProfileMatrix(np.load(folder / VALUES, mmap_mode="r"), is_gene_first=True),
    )


def _spool(path: Path, folder: Path) -> None:
    """Read the whole file once: its values into an array file, all other text into JSON."""
    with _opened(path) as file:
        reader = _Reader(file, path)
        shape = _read_shape(reader)
        header = reader.fields(shape, "the names of the columns")
        first = 1 + shape.num_gene_labels
        labels: dict[str, list[str]] = {}
        for number in range(shape.num_profile_labels):
            name, *texts = reader.fields(shape, f"label {number + 1} of the profiles")
            labels[name] = texts[shape.num_gene_labels :]
        genes: list[list[str]] = []
        with NumpyRows(folder / VALUES, np.dtype(np.float32), shape.num_profiles) as values:
            for number in range(shape.num_genes):
                fields = reader.fields(shape, f"gene {number + 1} of {shape.num_genes}")
                genes.append(fields[:first])
                row_values = _numbers(fields[first:], fields[0], header[first:], reader.place)
                values.append(row_values[np.newaxis])
        reader.require_end()
    text = {
        "header": header,
        "profile_ids": header[first:],
        "profile_labels": labels,
        "genes": genes,
    }
    (folder / LABELS).write_text(json.dumps(text), encoding="utf-8")


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    """Open plain or compressed text; damage becomes one line."""
    try:
        if path.suffix == ".gz":
            with gzip.open(path, "rt", encoding="utf-8-sig") as file:
                yield file
        else:
            with path.open(encoding="utf-8-sig") as file:
                yield file
    except (EOFError, zlib.error, gzip.BadGzipFile, UnicodeDecodeError) as error:
        raise DataError(f"a GCT file must be whole text, got {error} in {path}") from error


def _read_shape(reader: _Reader) -> _Shape:
    version = reader.line("its version").strip()
    if version not in UNCOUNTED_LABELS:
        raise DataError(
            f"a GCT file must start with {' or '.join(UNCOUNTED_LABELS)}, "
            f"got {version[:40]!r} at {reader.place}"
        )
    text = reader.line("its sizes")
    words = text.split()
    num_extra = UNCOUNTED_LABELS[version]
    wanted = 2 if num_extra else 4
    if len(words) != wanted or not all(word.isdecimal() for word in words):
        raise DataError(
            f"the second line of a GCT file must hold {wanted} whole numbers, "
            f"got {text[:60]!r} at {reader.place}"
        )
    num_genes, num_profiles, *counts = (int(word) for word in words)
    num_gene_labels, num_profile_labels = counts or (num_extra, 0)
    return _Shape(num_genes, num_profiles, num_gene_labels, num_profile_labels)


def _numbers(
    fields: Sequence[str], gene: str, profile_ids: Sequence[str], place: str
) -> FloatArray:
    try:
        return np.array(fields, dtype=np.float32)
    except ValueError:
        column = next(i for i, field in enumerate(fields) if not _is_number(field))
        raise DataError(
            f"expression must be a number, got {fields[column]!r} for gene {gene!r} and profile "
            f"{profile_ids[column]!r} at {place}"
        ) from None


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _columns(rows: Sequence[Sequence[str]], names: Sequence[str]) -> dict[str, list[str]]:
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}


def _table(columns: dict[str, list[str]], index: Sequence[str]) -> "pd.DataFrame":
    import pandas as pd

    return pd.DataFrame(columns, index=list(index), dtype=object)
