"""Writing an .h5ad file a few cells at a time, so that memory does not grow with their number.

X is written by anndata itself (its sparse matrices on disk can be appended to); obs is laid out
here as anndata's on-disk specification says (anndata 0.12: dataframe 0.2.0, categorical 0.2.0,
array 0.2.0, string-array 0.2.0), because anndata writes a table only whole. Texts become
categories, which are the one thing that is kept in memory. Left out: layers, embeddings, graphs.

Shapes: C cells of a chunk, N genes.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np
import numpy.typing as npt
from scipy import sparse

from c2s_rl.errors import StageError

if TYPE_CHECKING:
    import pandas as pd

Column = npt.NDArray[np.generic]
UnsValue = str | int | float | Mapping[str, "UnsValue"]

ENTRIES_PER_CHUNK = 65_536  # of a compressed dataset: half a megabyte at most
MAX_32_BITS = 2**31 - 2  # entries, about 3 million cells; anndata refuses one more
MISSING = -1  # code of a missing category
INDEX = "_index"  # what anndata calls an index without a name


@contextmanager
def new_file(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give a path beside `path` to write to, and rename it only when the block ends well.

    Raises:
        StageError: If there is something at `path` and it may not be replaced.
    """
    if path.is_dir() or (path.exists() and not overwrite):
        raise StageError(f"an output file must be new, got {path} that exists; see --overwrite")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


class H5adStream:
    """One .h5ad file that grows."""

    def __init__(self, path: Path, var: "pd.DataFrame", *, compression: str | None) -> None:
        """Create the file.

        Args:
            path: Replaced where it exists.
            var: [N] one row a gene.
            compression: 'gzip', 'lzf' or None, of everything long.
        """
        from anndata.io import write_elem

        self._file = h5py.File(path, "w")
        self._compression = compression
        self.num_genes = len(var)
        self._encode(self._file, "anndata", "0.1.0")
        write_elem(self._file, "var", var)
        for name in ("layers", "obsm", "varm", "obsp", "varp"):
            write_elem(self._file, name, {})
        self._obs = self._file.create_group("obs")
        self._encode(self._obs, "dataframe", "0.2.0")
        self._obs.attrs["_index"] = INDEX
        self._texts: dict[str, dict[str, int]] = {}  # column to its categories
        self._columns: list[str] = []
        self._add(INDEX, h5py.string_dtype(), "string-array")
        no_entries = np.empty(0, dtype=np.float32), np.empty(0, dtype=np.int32)
        bounds = np.zeros(1, dtype=np.int32)
        empty = sparse.csr_matrix((*no_entries, bounds), shape=(0, len(var)))
        options = {"compression": compression, "chunks": (ENTRIES_PER_CHUNK,)}
        write_elem(self._file, "X", empty, dataset_kwargs=options)

    def append(
        self, cell_ids: Sequence[str], rows: sparse.csr_matrix, columns: Mapping[str, Column]
    ) -> None:
        """Add cells.

        Args:
            cell_ids: [C]
            rows: [C, N] expression.
            columns: Name to [C] obs; texts (objects, '' where missing), numbers or flags. Every
                chunk has the same columns.
        """
        from anndata.io import sparse_dataset

        if not self._columns:
            for name, column in columns.items():
                self._add_column(name, column)
        if list(columns) != self._columns:
            raise ValueError(f"all chunks must have obs {self._columns}, got {list(columns)}")
        self._make_room(rows.nnz)
        sparse_dataset(self._file["X"]).append(rows)
        _extend(self._obs[INDEX], np.array(cell_ids, dtype=np.object_))
        for name, column in columns.items():
            if name in self._texts:
                codes = self._texts[name]
                numbers = [codes.setdefault(t, len(codes)) if t else MISSING for t in column]
                _extend(self._obs[name]["codes"], np.array(numbers, dtype=np.int32))
            else:
                self._widen(name, column.dtype)
                _extend(self._obs[name], column)

    def finish(self, uns: Mapping[str, UnsValue]) -> None:
        """Write what is known at the end, and close the file."""
        from anndata.io import write_elem

        for name, codes in self._texts.items():
            self._sort_categories(name, list(codes))
        self._obs.attrs["column-order"] = np.array(self._columns, dtype=h5py.string_dtype())
        write_elem(self._file, "uns", dict(uns))
        self._file.close()

    def close(self) -> None:
        """Close the file, finished or not."""
        self._file.close()

    def _add_column(self, name: str, column: Column) -> None:
        self._columns.append(name)
        if column.dtype == np.object_:
            self._texts[name] = {}
            self._encode(self._obs.create_group(name), "categorical", "0.2.0")
            self._obs[name].attrs["ordered"] = False
            self._add(f"{name}/codes", np.dtype(np.int32), "array")
        else:
            self._add(name, column.dtype, "array")

    def _add(self, name: str, dtype: npt.DTypeLike, encoding: str) -> None:
        dataset = self._obs.create_dataset(
            name,
            shape=(0,),
            maxshape=(None,),
            dtype=dtype,
            chunks=(ENTRIES_PER_CHUNK // 8,),
            compression=self._compression,
        )
        self._encode(dataset, encoding, "0.2.0")

    def _make_room(self, num_entries: int) -> None:
        """Give the bounds of X 64 bits when 32 do not hold them any more.

        Not from the start: scikit-learn's PCA takes 32 bits only.
        """
        matrix = self._file["X"]
        if len(matrix["data"]) + num_entries > MAX_32_BITS and matrix["indptr"].dtype == np.int32:
            self._replace(matrix, "indptr", np.dtype(np.int64))

    def _widen(self, name: str, dtype: np.dtype[np.generic]) -> None:
        """Give a column a type that also holds what comes: whole numbers may be missing later."""
        narrow = self._obs[name].dtype
        if not np.can_cast(dtype, narrow, "safe"):
            self._replace(self._obs, name, np.result_type(dtype, narrow))

    def _replace(self, group: h5py.Group, name: str, dtype: np.dtype[np.generic]) -> None:
        """Write a dataset anew with another type."""
        old = group[name]
        del group[name]  # it stays readable through `old`
        new = group.create_dataset(
            name,
            shape=(0,),
            maxshape=(None,),
            dtype=dtype,
            chunks=old.chunks,
            compression=self._compression,
        )
        for key, value in old.attrs.items():
            new.attrs[key] = value
        for start in range(0, len(old), ENTRIES_PER_CHUNK):
            _extend(new, old[start : start + ENTRIES_PER_CHUNK])

    def _sort_categories(self, name: str, texts: list[str]) -> None:
        """Write the categories in order, as pandas does, and number them anew."""
        from anndata.io import write_elem

        order = sorted(range(len(texts)), key=texts.__getitem__)
        new_code = np.full(len(texts) + 1, MISSING, dtype=np.int32)  # the last stands for missing
        new_code[order] = np.arange(len(texts), dtype=np.int32)
        codes = self._obs[name]["codes"]
        for start in range(0, len(codes), ENTRIES_PER_CHUNK):
            codes[start : start + ENTRIES_PER_CHUNK] = new_code[
                codes[start : start + ENTRIES_PER_CHUNK]
            ]
        write_elem(self._obs[name], "categories", np.array([texts[i] for i in order], dtype=object))

    @staticmethod
    def _encode(place: "h5py.Group | h5py.Dataset", encoding: str, version: str) -> None:
        place.attrs["encoding-type"] = encoding
        place.attrs["encoding-version"] = version


def _extend(dataset: h5py.Dataset, values: Column) -> None:
    num = len(dataset)
    dataset.resize((num + len(values),))
    dataset[num:] = values
