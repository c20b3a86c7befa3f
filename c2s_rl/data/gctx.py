"""GCTX files: the HDF5 form of GCT, read a block of profiles at a time.

    /0/DATA/0/matrix     [C, N] values: a row a profile
    /0/META/COL/<name>   [C] labels of the profiles; `id` names them
    /0/META/ROW/<name>   [N] labels of the genes; `id` names them

Files without any label but the ids, as the large ones of GEO are, and files without the attribute
`version` are read like the others. Left out: several matrices in one file, which CMap never wrote.

Source: GCT and GCTX format, https://clue.io/connectopedia/gctx_format

Shape suffixes: C profiles, N genes.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import h5py

from c2s_rl.data.hdf5_texts import Hdf5Texts, as_texts
from c2s_rl.data.hdf5_trust import require_stored
from c2s_rl.data.profiles import ProfileFile, ProfileMatrix
from c2s_rl.data.side_tables import MISSING
from c2s_rl.data.text_column import TextColumn
from c2s_rl.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

MATRIX, PROFILES, GENES = "0/DATA/0/matrix", "0/META/COL", "0/META/ROW"
ID = "id"


def read_gctx(file: h5py.File, path: Path) -> ProfileFile:
    """Read names and places of an open GCTX file; values and labels when they are asked for.

    Raises:
        DataError: If a part is missing or not written, the matrix is not numeric, or ids and matrix
            disagree.
    """
    missing = [part for part in (MATRIX, f"{PROFILES}/{ID}", f"{GENES}/{ID}") if part not in file]
    if missing:
        raise DataError(f"a GCTX file must hold matrix and ids, got no /{missing[0]} in {path}")
    matrix = file[MATRIX]
    for part in (matrix, file[PROFILES][ID], file[GENES][ID]):
        require_stored(part, str(path))
    profiles, genes = (_GroupFrame(file[part], str(path)) for part in (PROFILES, GENES))
    sizes = (profiles.size, genes.size)
    if matrix.shape != sizes or matrix.dtype.kind not in "fiu":
        raise DataError(
            "a GCTX matrix must be numeric with a row a profile and a column a gene, got "
            f"{matrix.dtype} of {matrix.shape} for {sizes[0]} profiles and {sizes[1]} genes "
            f"in {path}"
        )
    return ProfileFile(profiles, genes, ProfileMatrix(matrix, is_gene_first=False))


class _GroupFrame:
    """A group of label arrays; each is read when it is asked for."""

    def __init__(self, group: h5py.Group, place: str) -> None:
        self._group = group
        self._place = place

    @property
    def size(self) -> int:
        return int(self._group[ID].shape[0])

    def index(self) -> list[str]:
        return as_texts(self._group[ID][:])

    def column_names(self) -> list[str]:
        return [str(name) for name in self._group]

    def column(self, name: str) -> "pd.Series":
        import pandas as pd

        column = pd.Series(as_texts(self._labels(name)[:]), dtype=object)
        return column.where(~column.isin(MISSING))

    def row_names(self) -> TextColumn:
        return Hdf5Texts(self._group[ID])

    def texts(self, name: str) -> TextColumn:
        return Hdf5Texts(self._labels(name), missing=MISSING)

    def _labels(self, name: str) -> h5py.Dataset:
        labels = self._group[name]
        if not isinstance(labels, h5py.Dataset) or labels.shape != (self.size,):
            shape = labels.shape if isinstance(labels, h5py.Dataset) else "a group"
            raise DataError(
                f"labels of a GCTX file must be one for each of {self.size} ids, got {shape} for "
                f"{labels.name} in {self._place}"
            )
        require_stored(labels, self._place)
        return labels
