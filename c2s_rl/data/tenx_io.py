"""Opening 10x .h5 files: Cell Ranger 3 and later ('matrix'), and 2 (a group a genome).

The matrix lies by cell already (compressed columns of features x cells), so it is read as it is.
Left out: molecule_info files, which hold molecules, not cells.

Source: 10x Genomics, "HDF5 Feature-Barcode Matrix Format"
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import h5py

from c2s_rl.cells.vocabulary import shown
from c2s_rl.data.cell_file import CellFile
from c2s_rl.data.h5ad_matrix import CsrMatrix, as_shape, check_sizes, hdf5_errors
from c2s_rl.data.hdf5_texts import Hdf5Texts, as_texts
from c2s_rl.data.hdf5_trust import require_stored
from c2s_rl.data.tenx_features import Features, keep_genes, with_kept
from c2s_rl.errors import DataError, MissingFileError

MATRIX = "matrix"


@contextmanager
def open_tenx_h5(path: Path, *, genome: str | None) -> Iterator[CellFile]:
    """Open a 10x .h5 file for reading by cells; it stays open inside the `with` block.

    Args:
        path: The file.
        genome: Which genome, where the file holds several.

    Raises:
        MissingFileError: If there is no such file.
        DataError: If the file is damaged, its parts disagree, or it holds several genomes and
            `genome` names none of them.
    """
    if not path.is_file():
        raise MissingFileError(f"a 10x .h5 file must exist, got {path}")
    with ExitStack() as stack:
        with hdf5_errors(path):
            file = stack.enter_context(h5py.File(path, "r"))
            cells = _as_cells(file, path, genome)
        yield cells


def _as_cells(file: h5py.File, path: Path, genome: str | None) -> CellFile:
    is_new = MATRIX in file
    name = MATRIX if is_new else _old_genome(file, genome, path)
    group, place = file[name], f"/{name} of {path}"
    wanted = ["shape", "data", "indices", "indptr", "barcodes"]
    wanted += ["features/id", "features/name"] if is_new else ["genes", "gene_names"]
    missing = [part for part in wanted if part not in group]
    if missing:
        raise DataError(
            f"a 10x matrix must hold {', '.join(wanted)}, got no {missing[0]} in {place}"
        )
    shape = num_features, num_cells = as_shape(group["shape"][()], place)
    check_sizes(group, num_cells, place)
    require_stored(group["barcodes"], place)
    features = _features(group, place, is_new=is_new)
    kept = keep_genes(features, genome=genome if is_new else None)
    barcodes = Hdf5Texts(group["barcodes"])
    if (len(features.ids), len(barcodes)) != (num_features, num_cells):
        raise DataError(
            f"a matrix must have a row a feature and a column a barcode, got {shape} for "
            f"{len(features.ids)} features and {len(barcodes)} barcodes in {place}"
        )
    matrix = CsrMatrix(
        (num_cells, num_features), group["indptr"], group["indices"], group["data"], place=place
    )
    return CellFile(
        path=path,
        place=place,
        cell_ids=barcodes,
        var_names=kept.symbols,
        obs={},
        matrix=with_kept(matrix, kept),
        gene_ids=kept.ids,
        num_left_out=kept.num_left_out,
    )


def _old_genome(file: h5py.File, genome: str | None, path: Path) -> str:
    known = [name for name in file if isinstance(file[name], h5py.Group)]
    if genome is None and len(known) == 1:
        return str(known[0])
    if genome is None:
        raise DataError(
            f"a file of several genomes needs genome to name one, got {shown(known) or 'none'} "
            f"in {path}"
        )
    if genome not in known:
        raise DataError(f"genome must be one of {shown(known)}, got {genome!r} for {path}")
    return genome


def _features(group: h5py.Group, place: str, *, is_new: bool) -> Features:
    if not is_new:
        genes, names = _column(group, "genes", place), _column(group, "gene_names", place)
        return Features(genes, names, None, None, place)
    features = group["features"]
    ids, names = _column(features, "id", place), _column(features, "name", place)
    kinds = _column(features, "feature_type", place) if "feature_type" in features else None
    genomes = _column(features, "genome", place) if "genome" in features else None
    return Features(ids, names, kinds, genomes, place)


def _column(group: h5py.Group, name: str, place: str) -> tuple[str, ...]:
    require_stored(group[name], place)
    return tuple(as_texts(group[name][:]))
