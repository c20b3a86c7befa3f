"""Where cells come from: the part of a config that names a file, and opening it.

Left out: what is done with the values (`values.py`) and with the genes (`pipeline/convert.py`).
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Self

from pydantic import Field, field_validator, model_validator

from c2s_rl.config import FrozenConfig, expand_variables
from c2s_rl.data.anndata_io import open_h5ad, scanpy_dataset_path
from c2s_rl.data.cell_file import CellFile
from c2s_rl.data.l1000_io import SUFFIXES, is_l1000, open_l1000
from c2s_rl.data.shards import RESERVED_COLUMNS
from c2s_rl.data.side_tables import SideTables
from c2s_rl.data.text_column import JoinedTexts
from c2s_rl.data.values import Values


class ScanpyDataset(StrEnum):
    """Data sets that lie inside the installed scanpy package."""

    PBMC68K_REDUCED = "pbmc68k_reduced"


SCANPY_FILES = {ScanpyDataset.PBMC68K_REDUCED: "10x_pbmc68k_reduced.h5ad"}


class SourceConfig(FrozenConfig):
    """A file of cells and what to read of it."""

    path: str | None = Field(
        None,
        description="The .h5ad, .gct, .gct.gz or .gctx file; may use environment variables as "
        "${C2S_RL_DATA}",
    )
    scanpy_dataset: ScanpyDataset | None = Field(
        None, description="Instead of path: a data set inside the installed scanpy"
    )
    matrix: str = Field("X", description="X, raw or layer:<name>")
    values: Values = Field(
        Values.COUNTS,
        description="counts are normalised (CP10k, log1p); log1p are kept; log2 (L1000 level 3) "
        "are kept as height above the profile's lowest value",
    )
    symbol_column: str | None = Field(
        None, description="var column with gene symbols; null takes var_names"
    )
    tables: SideTables = Field(
        default_factory=SideTables, description="Tables beside a .gct or .gctx file"
    )
    obs: tuple[str, ...] = Field((), description="obs columns to keep")
    combine: dict[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description="New obs column -> columns whose texts it joins, missing ones left out: "
        "{treatment: [drug, dose]} gives 'DMSO' and 'dasatinib 10.0 um'; [cell_id] renames",
    )

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
    def _parts_of_the_format(self) -> Self:
        if self.path is not None and is_l1000(self.path):
            if self.matrix != "X" or self.values is not Values.LOG2:
                raise ValueError(
                    f"a {' or '.join(SUFFIXES)} file needs matrix: X and values: log2, "
                    f"got {self.matrix} and {self.values}"
                )
        elif self.tables.paths:
            raise ValueError(
                f"tables are read beside {', '.join(SUFFIXES)} files only, got {self.path!r}"
            )
        return self


def source_path(config: SourceConfig) -> Path:
    """Return the file that a config names.

    Raises:
        ConfigError: If the path names an environment variable that is not set.
        MissingFileError: If scanpy does not hold the data set.
    """
    if config.scanpy_dataset is not None:
        return scanpy_dataset_path(SCANPY_FILES[config.scanpy_dataset])
    return Path(expand_variables(config.path or ""))


@contextmanager
def open_source(config: SourceConfig, scratch: Path) -> Iterator[CellFile]:
    """Open the file of a config; its obs holds the columns of `obs` and `combine`.

    Args:
        config: Which file.
        scratch: A folder that stays for the whole conversion and that all workers see. A file that
            must be turned or spooled is put there once (`scratch.made_once`); another process that
            opens the same source finds it.

    Raises:
        ConfigError: If a path names an environment variable that is not set.
        MissingFileError: If a file is not there.
        DataError: If a file is damaged or lacks what is asked for.
    """
    path = source_path(config)
    columns = tuple(dict.fromkeys((*config.obs, *(c for p in config.combine.values() for c in p))))
    if is_l1000(path.name):
        opened = open_l1000(
            path,
            symbol_column=config.symbol_column,
            obs_columns=columns,
            tables=config.tables,
            scratch=scratch,
        )
    else:
        opened = open_h5ad(
            path,
            matrix=config.matrix,
            symbol_column=config.symbol_column,
            obs_columns=columns,
            scratch=scratch,
        )
    with opened as cells:
        obs = {name: cells.obs[name] for name in config.obs}
        for name, parts in config.combine.items():
            obs[name] = JoinedTexts(tuple(cells.obs[part] for part in parts))
        yield replace(cells, obs=obs)
