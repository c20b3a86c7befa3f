"""Opening 10x MTX folders: matrix.mtx, barcodes.tsv, features.tsv (or genes.tsv), plain or .gz.

Rows of the matrix are features, columns are cells. The text is parsed once, a few megabytes at a
time, into rows of the scratch folder; entries may stand in any order. Files that share a prefix, as
GEO hands them out (GSM1_matrix.mtx.gz), are found when the path names the matrix itself.
Left out: genomes, which the files do not tell apart; symmetric, complex and pattern matrices, which
hold no counts.

Source: Matrix Market exchange format, https://math.nist.gov/MatrixMarket/formats.html
"""

import gzip
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pacsv

from c2s_rl.data.cell_file import CellFile
from c2s_rl.data.scratch import identity_of, made_once
from c2s_rl.data.spool import entry_spool, spooled_rows, spooled_texts, text_spool
from c2s_rl.data.table_read import opened_text
from c2s_rl.data.tenx_features import Features, keep_genes, with_kept
from c2s_rl.errors import DataError, MissingFileError

MATRIX, BARCODES, FEATURES, OLD_FEATURES = "matrix.mtx", "barcodes.tsv", "features.tsv", "genes.tsv"
BLOCK_BYTES = 8 * 2**20
LONGEST_LINE = 2**20  # of the header; its comments hold a line of JSON at most
TEXTS_AT_ONCE = 65_536
MIN_ENTRY_BYTES = 6  # "1 1 1\n"
# Deflate cannot shrink more than this, so a smaller file cannot hold what it claims.
MAX_DEFLATE_RATIO = 1_032
BANNER = re.compile(r"%%matrixmarket matrix coordinate (integer|real) general", re.IGNORECASE)


@dataclass(frozen=True)
class MtxFiles:
    """The files that belong together."""

    matrix: Path
    barcodes: Path
    features: Path

    @property
    def is_old(self) -> bool:
        """Whether Cell Ranger 2 wrote it: ids and names only."""
        return OLD_FEATURES in self.features.name


@dataclass(frozen=True)
class _Header:
    num_features: int
    num_cells: int
    num_entries: int
    num_lines: int
    """Lines of the header itself."""


def find_mtx_files(path: Path) -> MtxFiles:
    """Find the three files of a folder, or of the matrix file that is named.

    Raises:
        MissingFileError: If one is not there.
    """
    if path.is_dir():
        folder, prefix = path, ""
        matrix = _either(folder, (MATRIX,))
    else:
        if not path.is_file():
            raise MissingFileError(f"an MTX folder or its matrix must exist, got {path}")
        folder, matrix = path.parent, path
        prefix = path.name.removesuffix(".gz").removesuffix(MATRIX)
        if prefix == path.name.removesuffix(".gz"):
            raise MissingFileError(f"an MTX file must be named <prefix>{MATRIX}, got {path}")
    return MtxFiles(
        matrix=matrix,
        barcodes=_either(folder, (f"{prefix}{BARCODES}",)),
        features=_either(folder, (f"{prefix}{FEATURES}", f"{prefix}{OLD_FEATURES}")),
    )


@contextmanager
def open_mtx(path: Path, *, scratch: Path) -> Iterator[CellFile]:
    """Open an MTX folder for reading by cells.

    Args:
        path: The folder, or the matrix in it.
        scratch: A folder that stays for the whole conversion.

    Raises:
        MissingFileError: If one of the three files is not there.
        DataError: If a file is damaged, or the three disagree with each other or with what the
            header of the matrix claims.
    """
    files = find_mtx_files(path)
    place = str(files.matrix)
    features = _read_features(files)
    kept = keep_genes(features, genome=None)
    # The path may be that of the matrix alone.
    what = f"MTX {identity_of(files.barcodes, files.features)}"
    folder = made_once(scratch, path, what, partial(_spool, files, features))
    (barcodes,) = spooled_texts(folder)
    matrix = spooled_rows(folder, len(features.ids), place=place)
    yield CellFile(
        path=path,
        place=place,
        cell_ids=barcodes,
        var_names=kept.symbols,
        obs={},
        matrix=with_kept(matrix, kept),
        gene_ids=kept.ids,
        num_left_out=kept.num_left_out,
    )


def _either(folder: Path, names: tuple[str, ...]) -> Path:
    candidates = [folder / f"{name}{suffix}" for name in names for suffix in ("", ".gz")]
    found = [path for path in candidates if path.is_file()]
    if not found:
        raise MissingFileError(
            f"an MTX folder must hold {' or '.join(names)}, plain or .gz, got none in {folder}"
        )
    return found[0]


def _read_features(files: MtxFiles) -> Features:
    path = files.features
    with opened_text(path) as file:
        rows = [line.rstrip("\r\n").split("\t") for line in file if line.strip()]
    wanted = 2 if files.is_old else 3
    short = next((place for place, row in enumerate(rows) if len(row) < wanted), None)
    if short is not None:
        raise DataError(
            f"a line of features must have {wanted} fields separated by tabs, got "
            f"{len(rows[short])} at line {short + 1} of {path}"
        )
    return Features(
        ids=tuple(row[0] for row in rows),
        symbols=tuple(row[1] for row in rows),
        kinds=None if files.is_old else tuple(row[2] for row in rows),
        genomes=None,
        place=str(path),
    )


def _spool(files: MtxFiles, features: Features, folder: Path) -> None:
    """Parse barcodes and matrix into a folder."""
    num_cells = _spool_barcodes(files.barcodes, folder)
    with _opened(files.matrix) as file:
        header = _read_header(file, files.matrix)
        _check_header(header, files, num_features=len(features.ids), num_cells=num_cells)
        num_entries = 0
        with entry_spool(folder, num_cells) as add_entries:
            for entries in _blocks(file, header, files.matrix):
                feature_Z, cell_Z, value_Z = entries
                num_entries += len(value_Z)
                if num_entries > header.num_entries:
                    break
                add_entries(cell_Z - 1, feature_Z - 1, value_Z)
    if num_entries != header.num_entries:
        more = "more" if num_entries > header.num_entries else str(num_entries)
        raise DataError(
            f"a matrix must have the {header.num_entries} entries that its header claims, got "
            f"{more} in {files.matrix}"
        )


def _spool_barcodes(path: Path, folder: Path) -> int:
    num_cells = 0
    with opened_text(path) as file, text_spool(folder, 1) as add_texts:
        lines = (line.rstrip("\r\n").split("\t")[0] for line in file if line.strip())
        names: list[str] = []
        for name in lines:
            names.append(name)
            if len(names) == TEXTS_AT_ONCE:
                add_texts([names])
                num_cells += len(names)
                names = []
        add_texts([names])
    return num_cells + len(names)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        if path.suffix == ".gz":
            with gzip.open(path, "rb") as file:
                yield file  # type: ignore[misc]  # GzipFile reads as a binary file does
        else:
            with path.open("rb") as file:
                yield file
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"a matrix must be whole, got {error} in {path}") from error


def _read_header(file: BinaryIO, path: Path) -> _Header:
    banner = file.readline(LONGEST_LINE).decode("utf-8", "replace").strip()
    if not BANNER.fullmatch(" ".join(banner.split())):
        raise DataError(
            "an MTX file must start with '%%MatrixMarket matrix coordinate integer general' or "
            f"real, got {banner[:70]!r} in {path}"
        )
    num_lines, line = 2, file.readline(LONGEST_LINE)
    while line.startswith(b"%") or (line and not line.strip()):
        line, num_lines = file.readline(LONGEST_LINE), num_lines + 1
    words = line.decode("utf-8", "replace").split()
    if len(words) != 3 or not all(word.isdecimal() for word in words):
        raise DataError(
            f"an MTX file must give features, cells and entries, got {' '.join(words)[:60]!r} at "
            f"line {num_lines} of {path}"
        )
    features, cells, entries = (int(word) for word in words)
    return _Header(features, cells, entries, num_lines)


def _check_header(header: _Header, files: MtxFiles, *, num_features: int, num_cells: int) -> None:
    claimed = (header.num_features, header.num_cells)
    if claimed != (num_features, num_cells):
        hint = "; it is turned" if claimed == (num_cells, num_features) else ""
        raise DataError(
            f"a matrix must have a row a feature and a column a barcode, got {claimed} for "
            f"{num_features} features and {num_cells} barcodes in {files.matrix}{hint}"
        )
    size = files.matrix.stat().st_size
    ratio = MAX_DEFLATE_RATIO if files.matrix.suffix == ".gz" else 1
    if header.num_entries * MIN_ENTRY_BYTES > size * ratio:
        raise DataError(
            f"a matrix must hold the entries that its header claims, got {header.num_entries} in "
            f"{size} bytes in {files.matrix}"
        )


def _blocks(
    file: BinaryIO, header: _Header, path: Path
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]]:
    """Parse the entries: features and cells from 1, values."""
    rest, line = b"", header.num_lines
    while block := file.read(BLOCK_BYTES):
        block = rest + block
        end = block.rfind(b"\n") + 1
        block, rest = block[:end], block[end:]
        if block.strip():
            yield _parse(block, header, line, path)
        line += block.count(b"\n")
    if rest.strip():
        yield _parse(rest, header, line, path)


def _parse(
    block: bytes, header: _Header, num_lines_before: int, path: Path
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    if b"\t" in block or b"  " in block or b" \n" in block or b"\n " in block:
        block = re.sub(rb"(?m)^ | $", b"", re.sub(rb"[ \t]+", b" ", block))
    types = {"f": pa.int64(), "c": pa.int64(), "v": pa.float64()}
    try:
        table = pacsv.read_csv(
            pa.BufferReader(block),
            read_options=pacsv.ReadOptions(use_threads=False, column_names=list(types)),
            parse_options=pacsv.ParseOptions(delimiter=" ", quote_char=False),
            convert_options=pacsv.ConvertOptions(column_types=types, null_values=[]),
        )
    except pa.ArrowInvalid as error:
        raise DataError(_explained(str(error), num_lines_before, path)) from error
    feature_Z, cell_Z, value_Z = (table.column(name).to_numpy() for name in types)
    for what, place_Z, size in (
        ("feature", feature_Z, header.num_features),
        ("cell", cell_Z, header.num_cells),
    ):
        is_outside = (place_Z < 1) | (place_Z > size)
        if is_outside.any():
            entry = int(np.argmax(is_outside))
            raise DataError(
                f"the {what} of an entry must be in 1..{size}, got {place_Z[entry]} at line "
                f"{num_lines_before + entry + 1} of {path}"
            )
    return feature_Z, cell_Z, value_Z


def _explained(message: str, num_lines_before: int, path: Path) -> str:
    message = " ".join(message.split())
    row = re.search(r"Row #(\d+)", message)
    line = f"line {num_lines_before + int(row[1])} of " if row else ""
    if match := re.search(r"invalid value '(.*)'", message):
        return f"an entry must be of numbers, got {match[1]!r} at {line}{path}"
    if match := re.search(r"Expected (\d+) columns, got (\d+)", message):
        return f"an entry must have feature, cell and value, got {match[2]} fields at {line}{path}"
    return f"a matrix must be whole text, got {message} in {path}"
