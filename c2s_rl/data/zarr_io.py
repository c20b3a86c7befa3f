"""Opening AnnData zarr stores (format 2 and 3, a folder): as .h5ad files, but chunks are files.

Reading is by rows and lazy, as for .h5ad. zarr reads a chunk that is not there as its fill value,
so a store that lost files looks like one of zeros: values of a sparse matrix must all be there, and
of a dense one at least some (zarr leaves chunks of nothing but zeros out). Left out: zipped stores
and stores behind a URL; unpack or copy them.

Source: https://anndata.readthedocs.io, "On disk format"
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from c2s_rl.cells.vocabulary import unknown_name
from c2s_rl.data.anndata_io import LAYER_PREFIX
from c2s_rl.data.cell_file import CellFile
from c2s_rl.data.h5ad_frame import StoredFrame, open_texts, read_ids
from c2s_rl.data.h5ad_matrix import ARRAY_KINDS, DenseMatrix, RowMatrix, open_sparse
from c2s_rl.errors import C2SError, DataError, MissingFileError

if TYPE_CHECKING:
    import zarr
    from zarr.types import AnyArray

# Bytes that a stored byte may stand for before the store is taken to claim what it does not hold.
# Real counts reach about 40; small arrays may be all alike.
MAX_EXPANSION = 1_000
SMALL_ARRAY = 64 * 2**20


@contextmanager
def open_zarr(
    path: Path,
    *,
    matrix: str,
    symbol_column: str | None,
    id_column: str | None,
    obs_columns: Sequence[str],
    scratch: Path,
) -> Iterator[CellFile]:
    """Open an AnnData zarr store for reading by rows.

    Args:
        path: The folder of the store.
        matrix: 'X', 'raw' or 'layer:<name>'.
        symbol_column: The var column with gene symbols; None takes var_names.
        id_column: The var column with gene ids; None: none.
        obs_columns: The obs columns to read as text.
        scratch: Folder for the turned copy of a matrix that lies by gene; see `made_once`.

    Raises:
        MissingFileError: If there is no such folder.
        DataError: If the store is damaged, lacks what is asked for (the nearest name is given), has
            lost chunks, or its parts disagree in size.
    """
    import zarr

    if not path.is_dir():
        raise MissingFileError(f"a zarr store must be a folder that exists, got {path}")
    with zarr_errors(path):
        root = ZarrGroup(zarr.open_group(str(path), mode="r"), path)
        names = _matrices(root)
        if matrix not in names:
            raise DataError(unknown_name("the matrix", matrix, list(names), str(path)))
        place = f"{matrix} of {path}"
        obs = _frame(root, "obs", path)
        var = _frame(root, "raw/var" if matrix == "raw" else "var", path)
        cells = CellFile(
            path=path,
            place=place,
            cell_ids=obs.row_names(),
            var_names=_symbols(var, symbol_column, str(path)),
            obs={name: open_texts(obs, name, place=str(path)) for name in obs_columns},
            matrix=_matrix(root[names[matrix]], path=path, place=place, scratch=scratch),
            alternatives=tuple(name for name in names if name != matrix),
            gene_ids=() if id_column is None else read_ids(var, id_column, str(path)),
        )
    yield cells


@contextmanager
def zarr_errors(path: Path) -> Iterator[None]:
    """Turn what zarr and its codecs say of a damaged store into one line.

    Raises:
        DataError: If metadata or a chunk cannot be read.
    """
    try:
        yield
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        if isinstance(error, C2SError) or (isinstance(error, OSError) and error.errno is not None):
            raise
        reason = " ".join(str(error).split())
        raise DataError(f"a zarr store must be whole, got {reason} in {path}") from error


class ZarrArray:
    """An array of a store whose damage is named."""

    def __init__(self, array: "AnyArray", path: Path) -> None:
        """Take an array and the store's folder, for messages."""
        self.array = array
        self._path = path
        self.attrs: Mapping[str, object] = dict(array.attrs)
        self.shape: tuple[int, ...] = array.shape
        self.ndim = len(array.shape)
        self.dtype: np.dtype[np.generic] = np.dtype(array.dtype)
        self.name = str(array.name)

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, key: slice) -> npt.NDArray[np.generic]:
        with zarr_errors(self._path):
            return np.asarray(self.array[key])


class ZarrGroup:
    """A group of such arrays."""

    def __init__(self, group: "zarr.Group", path: Path) -> None:
        """Take a group and the store's folder, for messages."""
        self._group = group
        self._path = path
        self.attrs: Mapping[str, object] = dict(group.attrs)
        self.name = str(group.name)

    def __contains__(self, name: str) -> bool:
        return name in self._group

    def __iter__(self) -> Iterator[str]:
        return iter(self._group)

    def __getitem__(self, name: str) -> "ZarrArray | ZarrGroup":
        import zarr

        node = self._group[name]
        if isinstance(node, zarr.Array):
            return ZarrArray(node, self._path)
        return ZarrGroup(node, self._path)


def _frame(root: ZarrGroup, name: str, path: Path) -> StoredFrame:
    if name not in root:
        raise DataError(f"a zarr store must hold obs and var, got no {name} in {path}")
    node = root[name]
    if not isinstance(node, ZarrGroup) or node.attrs.get("encoding-type") != "dataframe":
        raise DataError(
            f"{name} of a zarr store must be a dataframe of anndata, got none in {path}"
        )
    return StoredFrame(node, str(path))


def _symbols(var: StoredFrame, symbol_column: str | None, place: str) -> tuple[str, ...]:
    if symbol_column is None:
        return tuple(var.index())
    symbols = read_ids(var, symbol_column, place)
    num_missing = symbols.count("")
    if num_missing:
        raise DataError(
            f"every gene must have a symbol, got {num_missing} missing in var column "
            f"{symbol_column!r} in {place}; fill them, for example with the Ensembl id"
        )
    return symbols


def _matrices(root: ZarrGroup) -> dict[str, str]:
    """Map the names that a config may use to the places of the matrices in the store."""
    names = {"X": "X", "raw": "raw/X"}
    if "layers" in root and isinstance(layers := root["layers"], ZarrGroup):
        names |= {f"{LAYER_PREFIX}{layer}": f"layers/{layer}" for layer in layers}
    return {name: place for name, place in names.items() if place in root}


def _matrix(node: ZarrArray | ZarrGroup, *, path: Path, place: str, scratch: Path) -> RowMatrix:
    if isinstance(node, ZarrGroup):
        for name in ARRAY_KINDS:
            if name not in node:
                continue  # which `open_sparse` says
            array = node[name]
            if isinstance(array, ZarrGroup):
                raise DataError(
                    f"{name} of a sparse matrix must be an array, got a group in {place}"
                )
            # Lost indices and bounds read as zeros, which contradict each other.
            _require_plausible(array, place)
            if name == "data":
                _require_chunks(array, array.array.nchunks, place)
        return open_sparse(node, path=path, place=place, scratch=scratch)
    if node.ndim != 2 or node.dtype.kind not in "fiub":
        raise DataError(
            f"a matrix must be two-dimensional and numeric, got {node.ndim} dimensions of "
            f"{node.dtype} in {place}"
        )
    _require_plausible(node, place)
    _require_chunks(node, 1, place)
    return DenseMatrix(node)


def _require_chunks(node: ZarrArray, num_needed: int, place: str) -> None:
    array = node.array
    if array.size and array.nchunks_initialized < num_needed:
        raise DataError(
            f"values that a zarr store claims must be there, got {array.nchunks_initialized} of "
            f"{array.nchunks} chunks of {node.name} in {place}"
        )


def _require_plausible(node: ZarrArray, place: str) -> None:
    """Refuse an array that claims more than its files can hold."""
    claimed = node.array.nbytes
    if claimed <= SMALL_ARRAY:
        return
    stored = node.array.nbytes_stored()
    if claimed > MAX_EXPANSION * stored:
        raise DataError(
            f"a zarr store must hold what it claims, got {claimed} bytes of {node.name} in "
            f"{stored} stored ones in {place}"
        )
