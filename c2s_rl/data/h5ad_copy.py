"""Adding results to a copy of a user's .h5ad: whose rows are whose, and new obs columns.

The file is copied as it is and added to in place, so that everything else stays untouched, whatever
else it holds. Left out: files from before anndata 0.7, which hold obs as one table.

Shape suffixes: C cells with results, N cells of the file.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from c2s_rl.cells.rank import IndexArray
from c2s_rl.cells.vocabulary import shown
from c2s_rl.data.h5ad_matrix import hdf5_errors
from c2s_rl.errors import ConfigError, DataError, MissingFileError

if TYPE_CHECKING:
    import pandas as pd


def require_other_name(source: Path, own_name: str) -> None:
    """Check that the copy of a user's file will not take the place of a file of ours.

    Raises:
        ConfigError: If it would.
    """
    if source.name == own_name:
        raise ConfigError(
            f"into must be a file of another name than {own_name}, which lies where the copy goes, "
            f"got {source}"
        )


def obs_names(path: Path) -> list[str]:
    """Read the names of the cells.

    Raises:
        MissingFileError: If there is no such file.
        DataError: If it is no .h5ad of anndata 0.7 or later.
    """
    import h5py
    from anndata.io import read_elem

    if not path.is_file():
        raise MissingFileError(f"into must be an .h5ad file that exists, got {path}")
    with hdf5_errors(path), h5py.File(path, "r") as file:
        obs = file.get("obs")
        if not isinstance(obs, h5py.Group) or "_index" not in obs.attrs:
            raise DataError(
                f"into must be an .h5ad of anndata 0.7 or later, got no such obs in {path}"
            )
        return [str(name) for name in read_elem(obs[str(obs.attrs["_index"])])]


def obsm_keys(path: Path) -> list[str]:
    """Names of the arrays in obsm."""
    import h5py

    with hdf5_errors(path), h5py.File(path, "r") as file:
        return [str(key) for key in file.get("obsm", {})]


def rows_of(ids: Sequence[str], names: Sequence[str], path: Path) -> IndexArray:
    """Find the row of every cell with results.

    Args:
        ids: [C] cells with results.
        names: [N] cells of the file.
        path: The file, for the message.

    Returns:
        [C] rows; -1 for a cell that the file does not hold.

    Raises:
        DataError: If a cell of the file has no results.
    """
    place = {name: row for row, name in enumerate(names)}
    rows_C = np.array([place.get(name, -1) for name in ids], dtype=np.int64)
    has_result = np.zeros(len(names), dtype=np.bool_)
    has_result[rows_C[rows_C >= 0]] = True
    missing = [names[row] for row in np.flatnonzero(~has_result)]
    if missing:
        raise DataError(
            f"every cell of {path} must have a result, got {len(missing)} of {len(names)} without: "
            f"{shown(missing)}"
        )
    return rows_C


def require_free_obs(source: Path, columns: Sequence[str]) -> list[str]:
    """Check that obs has none of the columns that results will get; returns the cells' names.

    Raises:
        MissingFileError: If there is no such file.
        DataError: If it is no .h5ad, or obs has one of the columns.
    """
    import h5py

    names = obs_names(source)
    with hdf5_errors(source), h5py.File(source, "r") as file:
        taken = [column for column in columns if column in file["obs"]]
    if taken:
        raise DataError(f"obs must have no {taken[0]!r} yet, got one in {source}")
    return names


def copy_with_obs(source: Path, path: Path, results: "pd.DataFrame") -> int:
    """Copy an .h5ad and add columns to its obs.

    Args:
        source: The user's file.
        path: The copy; replaced as a whole.
        results: A row a cell, its index the cells' names; columns that obs does not have yet.

    Returns:
        Cells of the file without results: their labels and numbers are missing, their texts empty.

    Raises:
        MissingFileError: If there is no such file.
        DataError: If it is no .h5ad, or obs has one of the columns.
    """
    import h5py
    from anndata.io import write_elem

    names = require_free_obs(source, results.columns.tolist())
    num_missing = len(set(names).difference(results.index))
    ordered = _with_missing(results, names) if num_missing else results.loc[names]
    partial = path.with_name(f".{path.name}.partial")
    shutil.copyfile(source, partial)
    try:
        with h5py.File(partial, "r+") as file:
            obs = file["obs"]
            known = [str(name) for name in obs.attrs["column-order"]]
            for column in ordered.columns:
                write_elem(obs, column, ordered[column].values)
            order = np.array([*known, *ordered.columns], dtype=object)
            obs.attrs.create("column-order", order, dtype=h5py.string_dtype())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return num_missing


def _with_missing(results: "pd.DataFrame", names: Sequence[str]) -> "pd.DataFrame":
    """Rows for all names; whole numbers stay whole, beside missing ones."""
    from pandas.api.types import is_integer_dtype, is_object_dtype

    whole = {name: "Int64" for name, kind in results.dtypes.items() if is_integer_dtype(kind)}
    texts = {name: "" for name, kind in results.dtypes.items() if is_object_dtype(kind)}
    return results.astype(whole).reindex(names).fillna(texts)
