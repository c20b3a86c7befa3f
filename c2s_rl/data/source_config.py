"""The part of a config that names a file of cells, and what of it each format understands.

What can be told from the name of the file is checked when the config is loaded; what takes a look
inside (a folder, an .h5 file) is checked when the file is opened, by the same rules.
"""

import re
from enum import StrEnum
from typing import Self

from pydantic import Field, field_validator, model_validator

from c2s_rl.config import FrozenConfig
from c2s_rl.data.formats import SUFFIXES, Format, Orientation, format_by_name
from c2s_rl.data.shards import RESERVED_COLUMNS
from c2s_rl.data.side_tables import SideTables
from c2s_rl.data.symbols import SymbolsConfig
from c2s_rl.data.values import Values
from c2s_rl.errors import ConfigError


class ScanpyDataset(StrEnum):
    """Data sets that lie inside the installed scanpy package."""

    PBMC68K_REDUCED = "pbmc68k_reduced"


class FormatChoice(StrEnum):
    """How a file is read; `auto` goes by its name and content."""

    AUTO = "auto"
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


class SourceConfig(FrozenConfig):
    """A file of cells and what to read of it."""

    path: str | None = Field(
        None,
        description=f"The file ({', '.join(SUFFIXES)}, .h5 of 10x) or folder (zarr, MTX, "
        "cell2sentence); may use environment variables as ${C2S_RL_DATA}; 'package:NAME/FILE' lies "
        "inside an installed package",
    )
    scanpy_dataset: ScanpyDataset | None = Field(
        None, description="Instead of path: a data set inside the installed scanpy"
    )
    format: FormatChoice = Field(FormatChoice.AUTO, description="What the file is")
    matrix: str = Field("X", description="h5ad, zarr: X, raw or layer:<name>")
    values: Values = Field(
        Values.COUNTS,
        description="counts, and linear values (TPM), are normalised (CP10k, log1p); log1p are "
        "kept; log2 (L1000 level 3) as height above the profile's lowest value; ranks: sentences "
        "of cell2sentence",
    )
    symbol_column: str | None = Field(
        None,
        description="Column of genes with their symbols (var of h5ad and zarr, a label of L1000, a "
        "column of a genes_by_cells table); null takes their names",
    )
    symbols: SymbolsConfig | None = Field(
        None, description="Look the genes up in a table of approved symbols"
    )
    orientation: Orientation = Field(
        Orientation.CELLS_BY_GENES, description="csv, tsv, parquet: what a row is"
    )
    id_column: str | None = Field(
        None, description="csv, tsv, parquet: column of row names; null: pandas' index or the first"
    )
    ignore: tuple[str, ...] = Field(
        (), description="csv, tsv, parquet: columns that are neither genes nor labels to keep"
    )
    genome: str | None = Field(None, description="10x_h5: which genome, where there are several")
    tables: SideTables = Field(default_factory=SideTables, description="Tables beside the file")
    obs: tuple[str, ...] = Field((), description="obs columns to keep")
    combine: dict[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description="New obs column -> columns whose texts it joins, missing ones left out: "
        "{treatment: [drug, dose]} gives 'DMSO' and 'dasatinib 10.0 um'; [cell_id] renames",
    )

    @property
    def columns(self) -> tuple[str, ...]:
        """The obs columns that must be found, those of `obs` and `combine`."""
        parts = (part for parts in self.combine.values() for part in parts)
        return tuple(dict.fromkeys((*self.obs, *parts)))

    @property
    def table_paths(self) -> tuple[str, ...]:
        """The tables beside the file, as they are named."""
        return (*self.tables.paths, *([self.symbols.table] if self.symbols else []))

    @property
    def known_format(self) -> Format | None:
        """The format, where the config alone tells it."""
        if self.format is not FormatChoice.AUTO:
            return Format(self.format.value)
        if self.path is None:
            return Format.H5AD if self.scanpy_dataset is not None else None
        return format_by_name(self.path)

    @field_validator("matrix")
    @classmethod
    def _known_matrix(cls, matrix: str) -> str:
        if not re.fullmatch(r"X|raw|layer:.+", matrix):
            raise ValueError(f"matrix must be X, raw or layer:<name>, got {matrix!r}")
        return matrix

    @field_validator("obs")
    @classmethod
    def _free_columns(cls, obs: tuple[str, ...]) -> tuple[str, ...]:
        for column in obs:
            if column in RESERVED_COLUMNS or obs.count(column) > 1:
                raise ValueError(
                    f"obs must name columns once and none of {', '.join(RESERVED_COLUMNS)} "
                    f"(combine gives a column another name), got {column!r}"
                )
        return obs

    @model_validator(mode="after")
    def _free_combinations(self) -> Self:
        for column, parts in self.combine.items():
            if column in RESERVED_COLUMNS or column in self.obs or not parts:
                raise ValueError(
                    "combine must give new columns the names of others, got "
                    f"{column!r}: {list(parts)}"
                )
        return self

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.path is None) == (self.scanpy_dataset is None):
            got = "neither" if self.path is None else "both"
            raise ValueError(f"convert needs either path or scanpy_dataset, got {got}")
        return self

    @model_validator(mode="after")
    def _one_way_to_name_genes(self) -> Self:
        if self.tables.genes is not None and self.symbols is not None:
            raise ValueError(
                f"genes are named by tables.genes or by symbols, got both {self.tables.genes!r} "
                f"and {self.symbols.table!r}"
            )
        return self

    @model_validator(mode="after")
    def _parts_of_the_format(self) -> Self:
        kind = self.known_format
        if kind is not None:
            require_parts_of(self, kind)
        return self


def require_parts_of(config: SourceConfig, kind: Format) -> None:
    """Refuse keys that a format has no use for: they would be without effect.

    Raises:
        ConfigError: Naming the key, its value and the formats that know it.
    """
    if kind.is_l1000 and (config.matrix != "X" or config.values is not Values.LOG2):
        raise ConfigError(
            f"a {kind} file needs matrix: X and values: log2, got {config.matrix} and "
            f"{config.values}"
        )
    is_sentences = kind is Format.CELL2SENTENCE
    if is_sentences != (config.values is Values.RANKS):
        raise ConfigError(
            f"values: ranks is for cell2sentence data sets, which hold nothing else, got "
            f"{config.values} for {kind} at {config.path}"
        )
    genes_have_labels = (
        kind.has_matrices
        or kind.is_l1000
        or (kind.is_table and config.orientation is Orientation.GENES_BY_CELLS)
    )
    id_column = config.symbols.id_column if config.symbols else None
    unused = [
        ("matrix", config.matrix, config.matrix == "X" or kind.has_matrices),
        (
            "orientation",
            config.orientation,
            config.orientation == "cells_by_genes" or kind.is_table,
        ),
        ("id_column", config.id_column, config.id_column is None or kind.is_table),
        ("ignore", list(config.ignore), not config.ignore or kind.is_table),
        ("genome", config.genome, config.genome is None or kind is Format.TENX_H5),
        ("symbol_column", config.symbol_column, config.symbol_column is None or genes_have_labels),
        ("symbols.id_column", id_column, id_column is None or genes_have_labels),
        ("tables.profiles", config.tables.profiles, not config.tables.profiles or kind.is_l1000),
        ("tables.genes", config.tables.genes, not config.tables.genes or kind.is_l1000),
    ]
    for key, value, is_fine in unused:
        if not is_fine:
            raise ConfigError(
                f"{key} must be one that {_article(kind)} file has, got {value!r} for "
                f"{config.path}{_instead(key)}"
            )


def _article(kind: Format) -> str:
    return f"an {kind}" if kind is Format.H5AD else f"a {kind}"


def _instead(key: str) -> str:
    match key:
        case "tables.profiles":
            return "; tables.obs is for every format"
        case "tables.genes":
            return "; symbols.table is for every format"
        case _:
            return ""
