"""Which format a file or folder of cells has, by its name and, where names are shared, its content.

Left out: formats that scanpy converts in one line and this library does not read (.loom, .rds,
.h5seurat, .xlsx); they are named in the error.
"""

from enum import StrEnum
from pathlib import Path

from c2s_rl.errors import DataError, MissingFileError


class Format(StrEnum):
    """A format that `open_source` reads."""

    H5AD = "h5ad"
    ZARR = "zarr"
    TENX_H5 = "10x_h5"
    TENX_MTX = "10x_mtx"
    CSV = "csv"
    TSV = "tsv"
    PARQUET = "parquet"
    GCT = "gct"
    GCTX = "gctx"
    CELL2SENTENCE = "cell2sentence"

    @property
    def is_l1000(self) -> bool:
        """Whether values are L1000 profiles with labels around them."""
        return self in (Format.GCT, Format.GCTX)

    @property
    def is_table(self) -> bool:
        """Whether it is one table of cells and genes."""
        return self in (Format.CSV, Format.TSV, Format.PARQUET)

    @property
    def has_matrices(self) -> bool:
        """Whether a file may hold several matrices (X, raw, layers)."""
        return self in (Format.H5AD, Format.ZARR)


SUFFIXES = {
    ".h5ad": Format.H5AD,
    ".zarr": Format.ZARR,
    ".gctx": Format.GCTX,
    ".gct": Format.GCT,
    ".gct.gz": Format.GCT,
    ".csv": Format.CSV,
    ".csv.gz": Format.CSV,
    ".tsv": Format.TSV,
    ".tsv.gz": Format.TSV,
    ".txt": Format.TSV,
    ".txt.gz": Format.TSV,
    ".parquet": Format.PARQUET,
    ".mtx": Format.TENX_MTX,
    ".mtx.gz": Format.TENX_MTX,
}
ZARR_FILES = ("zarr.json", ".zgroup", ".zattrs")
MTX_FILES = ("matrix.mtx", "matrix.mtx.gz")
DATASET_FILES = ("state.json", "dataset_dict.json")


def format_by_name(name: str) -> Format | None:
    """Return the format that the end of a name says; None where it takes a look inside."""
    name = name.lower().rstrip("/")
    return next((kind for suffix, kind in SUFFIXES.items() if name.endswith(suffix)), None)


def detect_format(path: Path) -> Format:
    """Return the format of a file or folder.

    Raises:
        MissingFileError: If its name does not say it and there is nothing to look into.
        DataError: If it is none of the formats; says what was seen.
    """
    by_name = format_by_name(path.name)
    if by_name is not None:
        return by_name
    if not path.exists():
        raise MissingFileError(f"a file or folder of cells must exist, got {path}")
    if path.is_dir():
        return _folder_format(path)
    if path.suffix.lower() == ".h5":
        return _h5_format(path)
    raise DataError(
        f"a file of cells must be one of {', '.join(SUFFIXES)} or .h5, got {path.name!r} at "
        f"{path}; name its format as format, or convert it with scanpy"
    )


def _folder_format(path: Path) -> Format:
    for kind, names in (
        (Format.ZARR, ZARR_FILES),
        (Format.TENX_MTX, MTX_FILES),
        (Format.CELL2SENTENCE, DATASET_FILES),
    ):
        if any((path / name).is_file() for name in names):
            return kind
    seen = sorted(entry.name for entry in path.iterdir())
    raise DataError(
        "a folder of cells must hold a zarr store, matrix.mtx or a dataset of cell2sentence, got "
        f"{', '.join(seen[:5]) or 'nothing'}{' and more' if len(seen) > 5 else ''} in {path}"
    )


def _h5_format(path: Path) -> Format:
    import h5py

    from c2s_rl.data.h5ad_matrix import hdf5_errors

    with hdf5_errors(path), h5py.File(path, "r") as file:
        names = list(file)
        if "X" in file or "raw" in file:
            return Format.H5AD
        if any(isinstance(file[name], h5py.Group) and "barcodes" in file[name] for name in names):
            return Format.TENX_H5
    raise DataError(
        f"an .h5 file must be of 10x or anndata, got groups {', '.join(names[:5]) or 'none'} in "
        f"{path}"
    )
