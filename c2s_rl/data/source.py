"""Opening the file of cells that a config names, whatever its format, labels and symbols included.

Left out: what is done with the values (`values.py`) and with the genes (`pipeline/convert.py`).
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from c2s_rl.cells.vocabulary import shown
from c2s_rl.checkpoint import sha256_of
from c2s_rl.config import expand_variables
from c2s_rl.data.anndata_io import open_h5ad, packaged_file
from c2s_rl.data.c2s_io import open_sentences
from c2s_rl.data.cell_file import CellFile
from c2s_rl.data.formats import Format, Orientation, detect_format
from c2s_rl.data.l1000_io import GeneNaming, open_l1000
from c2s_rl.data.mtx_io import find_mtx_files, open_mtx
from c2s_rl.data.side_tables import open_obs_table
from c2s_rl.data.source_config import (
    FormatChoice,
    ScanpyDataset,
    SourceConfig,
    require_parts_of,
)
from c2s_rl.data.symbols import resolve_symbols
from c2s_rl.data.table_io import TableOptions, open_table
from c2s_rl.data.tenx_io import open_tenx_h5
from c2s_rl.data.text_column import JoinedTexts, TextColumn
from c2s_rl.data.zarr_io import open_zarr
from c2s_rl.errors import UnknownColumnError

__all__ = ["ScanpyDataset", "SourceConfig", "hash_source", "open_source", "source_path"]

SCANPY_FILES = {ScanpyDataset.PBMC68K_REDUCED: "datasets/10x_pbmc68k_reduced.h5ad"}
PACKAGE_PREFIX = "package:"


def source_path(config: SourceConfig) -> Path:
    """Return the file or folder that a config names.

    Raises:
        ConfigError: If the path names an environment variable that is not set.
        MissingFileError: If a package is not installed or does not hold the file.
    """
    if config.scanpy_dataset is not None:
        return packaged_file("scanpy", SCANPY_FILES[config.scanpy_dataset])
    path = config.path or ""
    if path.startswith(PACKAGE_PREFIX):
        package, _, file_name = path.removeprefix(PACKAGE_PREFIX).partition("/")
        return packaged_file(package, file_name)
    return Path(expand_variables(path))


def source_format(config: SourceConfig) -> Format:
    """Return the format of the file that a config names.

    Raises:
        ConfigError: If the config has keys that the format has no use for.
        MissingFileError: If the file is not there.
        DataError: If its format is not known.
    """
    kind = config.known_format if config.format is not FormatChoice.AUTO else None
    kind = kind or detect_format(source_path(config))
    require_parts_of(config, kind)
    return kind


def source_paths(config: SourceConfig) -> list[Path]:
    """Return what is read of a source: a file, a folder with all that is in it, or several files.

    Raises:
        ConfigError: If the path names an environment variable that is not set.
        MissingFileError: If a file is not there.
    """
    path = source_path(config)
    if source_format(config) is Format.TENX_MTX:
        mtx = find_mtx_files(path)
        return [mtx.barcodes, mtx.features, mtx.matrix]
    return [path]


def hash_source(config: SourceConfig) -> str:
    """Return the SHA-256 of a file of cells; of several, that of their names and hashes.

    Raises:
        MissingFileError: If the file is not there.
    """
    files = source_paths(config)
    folder = files[0].parent
    if files[0].is_dir():
        (folder,) = files
        files = sorted(file for file in folder.rglob("*") if file.is_file())
    elif len(files) == 1:
        return sha256_of(files[0])
    lines = (f"{file.relative_to(folder).as_posix()} {sha256_of(file)}\n" for file in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@contextmanager
def open_source(config: SourceConfig, scratch: Path) -> Iterator[CellFile]:
    """Open the file of a config; its obs holds the columns of `obs` and `combine`.

    Args:
        config: Which file.
        scratch: A folder that stays for the whole conversion and that all workers see. A file that
            must be turned or spooled is put there once (`scratch.made_once`); another process that
            opens the same source finds it.

    Raises:
        ConfigError: If a path names an environment variable that is not set, or the config has keys
            that the format has no use for.
        MissingFileError: If a file is not there.
        DataError: If a file is damaged or lacks what is asked for.
    """
    kind = source_format(config)
    table = open_obs_table(config.tables)
    in_table = [name for name in config.columns if table is not None and table.has(name)]
    in_file = [name for name in config.columns if name not in in_table]
    with _opened(config, kind, in_file, scratch) as cells:
        obs: dict[str, TextColumn] = dict(cells.obs)
        if table is not None:
            obs |= table.labels(in_table, cells.cell_ids, cells.place)
        chosen = {name: obs[name] for name in config.obs}
        for name, parts in config.combine.items():
            chosen[name] = JoinedTexts(tuple(obs[part] for part in parts))
        yield _with_symbols(config, replace(cells, obs=chosen))


def _opened(
    config: SourceConfig, kind: Format, obs_columns: Sequence[str], scratch: Path
) -> AbstractContextManager[CellFile]:
    path = source_path(config)
    id_column = config.symbols.id_column if config.symbols else None
    match kind:
        case Format.H5AD | Format.ZARR:
            open_annotated = open_h5ad if kind is Format.H5AD else open_zarr
            return open_annotated(
                path,
                matrix=config.matrix,
                symbol_column=config.symbol_column,
                id_column=id_column,
                obs_columns=obs_columns,
                scratch=scratch,
            )
        case Format.GCT | Format.GCTX:
            naming = GeneNaming(config.symbol_column, id_column, config.symbols is not None)
            return open_l1000(
                path,
                is_binary=kind is Format.GCTX,
                naming=naming,
                obs_columns=obs_columns,
                tables=config.tables,
                scratch=scratch,
            )
        case Format.CELL2SENTENCE:
            return open_sentences(path, obs_columns=obs_columns, scratch=scratch)
        case Format.TENX_H5:
            _require_no_labels(obs_columns, kind, path)
            return open_tenx_h5(path, genome=config.genome)
        case Format.TENX_MTX:
            _require_no_labels(obs_columns, kind, path)
            return open_mtx(path, scratch=scratch)
        case _:
            return _open_table(config, kind, obs_columns, scratch)


@contextmanager
def _open_table(
    config: SourceConfig, kind: Format, obs_columns: Sequence[str], scratch: Path
) -> Iterator[CellFile]:
    """Open a table; where its rows are genes, their label columns name them."""
    path = source_path(config)
    id_column = config.symbols.id_column if config.symbols else None
    labels = tuple(obs_columns)
    if config.orientation is Orientation.GENES_BY_CELLS:
        _require_no_labels(obs_columns, kind, path)
        wanted = (config.symbol_column, id_column)
        labels = tuple(dict.fromkeys(name for name in wanted if name is not None))
    options = TableOptions(kind, config.orientation, config.id_column, labels, config.ignore)
    opened = open_table(path, options, scratch)
    cells = opened.cells
    if config.symbol_column is not None:
        cells = replace(cells, var_names=opened.gene_labels[config.symbol_column])
    if id_column is not None:
        cells = replace(cells, gene_ids=opened.gene_labels[id_column])
    yield cells


def _require_no_labels(obs_columns: Sequence[str], kind: Format, path: Path) -> None:
    if obs_columns:
        raise UnknownColumnError(
            f"labels of cells must be in a table beside a {kind} file, got {shown(obs_columns)} "
            f"asked for and not found for {path}; name a table that has them as tables.obs",
            obs_columns[0],
        )


def _with_symbols(config: SourceConfig, cells: CellFile) -> CellFile:
    """Name the genes by approved symbols, where the config asks for it."""
    if config.symbols is None:
        return cells
    report = resolve_symbols(config.symbols, cells.var_names, cells.gene_ids, place=cells.place)
    is_left_out_N = np.array([not gene.symbol for gene in report.genes], dtype=np.bool_)
    return replace(
        cells,
        # A column that is left out keeps its name, for messages about its values.
        var_names=tuple(gene.symbol or gene.name for gene in report.genes),
        is_left_out_N=is_left_out_N if is_left_out_N.any() else None,
        num_unnamed_genes=cells.num_unnamed_genes + report.num_dropped,
        symbol_report=report,
    )
