"""Opening .h5ad files: names of cells and genes, obs columns, and one matrix read by rows.

Only what is asked for is read: the chosen obs columns, and the matrix a chunk at a time. Files
from before anndata 0.7 (scanpy ships one) are understood. Layers, embeddings and `uns` beyond the
chosen matrix are left where they are.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import h5py

from c2s_rl.cells.vocabulary import unknown_name
from c2s_rl.data.cell_file import CellFile
from c2s_rl.data.h5ad_frame import open_frame, open_texts, read_ids, read_symbols
from c2s_rl.data.h5ad_matrix import hdf5_errors, open_matrix
from c2s_rl.errors import DataError, MissingFileError

LAYER_PREFIX = "layer:"


@contextmanager
def open_h5ad(
    path: Path,
    *,
    matrix: str,
    symbol_column: str | None,
    id_column: str | None = None,
    obs_columns: Sequence[str],
    scratch: Path,
) -> Iterator[CellFile]:
    """Open an .h5ad file for reading by rows; the file stays open inside the `with` block.

    Args:
        path: The file.
        matrix: 'X', 'raw' or 'layer:<name>'.
        symbol_column: The var column with gene symbols; None takes var_names.
        id_column: The var column with gene ids; None: none.
        obs_columns: The obs columns to read as text.
        scratch: Folder for the turned copy of a matrix that lies by gene; see `made_once`.

    Raises:
        MissingFileError: If there is no such file.
        DataError: If the file is damaged, lacks what is asked for (the nearest name is given), or
            its parts disagree in size.
    """
    if not path.is_file():
        raise MissingFileError(f"an .h5ad file must exist, got {path}")
    with hdf5_errors(path):
        file = h5py.File(path, "r")
    with file:
        with hdf5_errors(path):
            names = _matrices(file)
            if matrix not in names:
                raise DataError(unknown_name("the matrix", matrix, list(names), str(path)))
            place = f"{matrix} of {path}"
            obs = open_frame(file, path, "obs")
            var = open_frame(file, path, "raw.var" if matrix == "raw" else "var")
            cells = CellFile(
                path=path,
                place=place,
                cell_ids=obs.row_names(),
                var_names=tuple(read_symbols(var, symbol_column, str(path))),
                obs={name: open_texts(obs, name, place=str(path)) for name in obs_columns},
                matrix=open_matrix(file[names[matrix]], path=path, place=place, scratch=scratch),
                alternatives=tuple(name for name in names if name != matrix),
                gene_ids=() if id_column is None else read_ids(var, id_column, str(path)),
            )
        yield cells


def packaged_file(package: str, file_name: str) -> Path:
    """Return the path of a data file that lies inside an installed package.

    Args:
        package: Its import name.
        file_name: Path within the package's folder.

    Raises:
        MissingFileError: If the package is not installed or does not ship the file.
    """
    spec = find_spec(package) if package.isidentifier() else None  # does not import it
    if spec is None or spec.origin is None:
        raise MissingFileError(
            f"a package must be installed for its file {file_name}, got no {package!r}"
        )
    path = Path(spec.origin).parent / file_name
    if not path.is_file():
        raise MissingFileError(f"the installed {package} must ship {file_name}, got no {path}")
    return path


def _matrices(file: h5py.File) -> dict[str, str]:
    """Map the names that a config may use to the places of the matrices in the file."""
    names = {"X": "X", "raw": "raw.X" if "raw.X" in file else "raw/X"}
    for layer in file.get("layers", ()):
        names[f"{LAYER_PREFIX}{layer}"] = f"layers/{layer}"
    return {name: place for name, place in names.items() if place in file}
