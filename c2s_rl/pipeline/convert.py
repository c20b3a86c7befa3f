"""Expression matrices to cell shards: normalise, rank and write every cell of an .h5ad file.

    c2s-rl convert --config FILE        (section `convert`)

Reads the matrix in chunks of rows, so memory does not grow with the number of cells. Neither the
size of the chunks nor the order of the rows changes any cell. What is left out: choosing genes or
cells by quality beyond `min_genes`; do that before, in scanpy.
"""

import re
import sys
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Self

import numpy as np
from pydantic import Field, field_validator, model_validator
from rich.console import Console
from rich.progress import track

from c2s_rl.cells.rank import IndexArray, RankedRows, UIntArray, rank_rows, stable_hash
from c2s_rl.cells.rank_c2s import C2SRanker
from c2s_rl.cells.rank_model import RankForm, RankModel, RankSums, fit_rank_sums, rank_sums
from c2s_rl.cells.vocabulary import Duplicates, GeneCase, GeneColumns, build_vocabulary
from c2s_rl.checkpoint import sha256_of
from c2s_rl.config import FrozenConfig, expand_variables
from c2s_rl.data.anndata_io import H5adCells, open_h5ad, scanpy_dataset_path
from c2s_rl.data.cell_table import CellTable
from c2s_rl.data.h5ad_matrix import CsrChunk
from c2s_rl.data.shards import RESERVED_COLUMNS, CellManifest, write_cells
from c2s_rl.data.values import ExpressionChunk, ValueChecker, Values, normalise

# 512 cells x 3,000 genes: about 30 MB with all intermediates. More is slower, because fresh pages
# of memory cost about as much as the ranking that fills them.
CHUNK_CELLS = 512


class TieBreak(StrEnum):
    """Order of equally expressed genes."""

    HASH = "hash"
    C2S = "c2s"


class RankFormChoice(StrEnum):
    """Form of the rank model; `auto` takes the one with the higher R^2."""

    AUTO = "auto"
    LOG_RANK = "log_rank"
    LINEAR = "linear"


class ScanpyDataset(StrEnum):
    """Data sets that lie inside the installed scanpy package."""

    PBMC68K_REDUCED = "pbmc68k_reduced"


SCANPY_FILES = {ScanpyDataset.PBMC68K_REDUCED: "10x_pbmc68k_reduced.h5ad"}


class ConvertConfig(FrozenConfig):
    """Which cells to convert and how to read them."""

    path: str | None = Field(
        None, description="The .h5ad file; may use environment variables as ${C2S_RL_DATA}"
    )
    scanpy_dataset: ScanpyDataset | None = Field(
        None, description="Instead of path: a data set inside the installed scanpy"
    )
    matrix: str = Field("X", description="X, raw or layer:<name>")
    values: Values = Field(
        Values.COUNTS, description="counts are normalised (CP10k, log1p); log1p are kept"
    )
    symbol_column: str | None = Field(
        None, description="var column with gene symbols; null takes var_names"
    )
    obs: tuple[str, ...] = Field((), description="obs columns to keep")
    gene_case: GeneCase = Field(
        GeneCase.KEEP, description="upper: as released C2S models were trained"
    )
    duplicates: Duplicates = Field(
        Duplicates.ERROR, description="Columns of the same symbol: error, sum or first"
    )
    min_genes: int = Field(1, ge=1, description="Leave out cells with fewer expressed genes")
    max_genes: int | None = Field(None, ge=1, description="Keep the first so many genes a cell")
    tie_break: TieBreak = Field(
        TieBreak.HASH, description="c2s: as cell2sentence 1.2.0, depends on the order of cells"
    )
    rank_form: RankFormChoice = Field(RankFormChoice.AUTO, description="Form of the rank model")
    organism: str = Field("Homo sapiens", min_length=1, description="Species, for prompts")
    seed: int = Field(42, ge=0, lt=2**32, description="Seed of the order among ties")

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
                    f"obs must name columns once and none of {', '.join(RESERVED_COLUMNS)}, "
                    f"got {column!r}"
                )
        return obs

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.path is None) == (self.scanpy_dataset is None):
            got = "neither" if self.path is None else "both"
            raise ValueError(f"convert needs either path or scanpy_dataset, got {got}")
        return self

    @model_validator(mode="after")
    def _ties_of_single_columns(self) -> Self:
        if self.tie_break is TieBreak.C2S and self.duplicates is not Duplicates.ERROR:
            raise ValueError(
                "tie_break: c2s shuffles stored columns, so duplicates must be error, "
                f"got {self.duplicates.value}"
            )
        return self


def run(config: ConvertConfig, output: Path, *, chunk_cells: int = CHUNK_CELLS) -> CellManifest:
    """Convert one file to a folder of cell shards.

    Args:
        config: What to read and how.
        output: Folder for the shards; an earlier output there is replaced as a whole.
        chunk_cells: Rows read at a time; changes memory, never the result.

    Raises:
        ConfigError: If the path names an environment variable that is not set.
        MissingFileError: If the file is not there.
        DataError: If the file is damaged or holds something other than expression.
        StageError: If `output` holds files that are not an earlier output.
    """
    path = _source_path(config)
    with open_h5ad(
        path,
        matrix=config.matrix,
        symbol_column=config.symbol_column,
        obs_columns=config.obs,
    ) as cells:
        conversion = _Conversion(config, cells)
        chunks = _with_progress(cells.chunks(chunk_cells), -(-len(cells.cell_ids) // chunk_cells))
        return write_cells(
            output,
            (conversion.table(chunk) for chunk in chunks),
            lambda: conversion.manifest(sha256_of(path)),
            source_file=path.name,
        )


def _source_path(config: ConvertConfig) -> Path:
    if config.scanpy_dataset is not None:
        return scanpy_dataset_path(SCANPY_FILES[config.scanpy_dataset])
    return Path(expand_variables(config.path or ""))


def _with_progress(chunks: Iterable[CsrChunk], num_chunks: int) -> Iterable[CsrChunk]:
    """Show a bar where somebody watches."""
    if not sys.stderr.isatty():
        return chunks
    return track(chunks, description="convert", total=num_chunks, console=Console(stderr=True))


class _Conversion:
    """Chunks to ranked cells, counting what is left out on the way."""

    def __init__(self, config: ConvertConfig, cells: H5adCells) -> None:
        self._config = config
        self._cells = cells
        self._genes: GeneColumns = build_vocabulary(
            cells.var_names,
            gene_case=config.gene_case,
            duplicates=config.duplicates,
            source=cells.place,
        )
        self._checker = ValueChecker(
            config.values,
            place=cells.place,
            alternatives=cells.alternatives,
            cell_ids=cells.cell_ids,
            var_names=cells.var_names,
        )
        self._gene_hashes = _hashes(self._genes.vocabulary.symbols, config.seed)
        self._c2s = C2SRanker(config.seed)
        empty = np.zeros(0, dtype=np.int64)
        self._sums = RankSums(empty, empty, empty)
        self._num_cells = 0
        self._num_missing = dict.fromkeys(config.obs, 0)
        self._num_empty = 0
        self._num_small = 0
        self._num_cut_genes = 0
        self._num_zeros = 0

    def table(self, chunk: CsrChunk) -> CellTable:
        """Check, normalise and rank one chunk; cells with too few genes are left out."""
        self._checker.check(chunk)
        expression = normalise(chunk, self._config.values, self._genes)
        stop = chunk.start + len(chunk.indptr) - 1
        cell_ids = self._cells.cell_ids[chunk.start : stop]
        ranked = self._rank(expression, cell_ids)
        num_genes = _positives_per_row(expression)
        is_kept = num_genes >= self._config.min_genes
        lengths = np.diff(ranked.indptr)
        entry_is_kept = np.repeat(is_kept, lengths)
        table = CellTable(
            cell_ids=tuple(np.array(cell_ids, dtype=object)[is_kept]),
            indptr=np.cumsum([0, *lengths[is_kept]], dtype=np.int64),
            genes=ranked.genes[entry_is_kept],
            values=ranked.values[entry_is_kept],
            obs={
                n: labels.rows(chunk.start, stop)[is_kept] for n, labels in self._cells.obs.items()
            },
            source_rows=np.arange(chunk.start, stop)[is_kept],
        )
        self._count(table, expression, num_genes, int((num_genes - lengths)[is_kept].sum()))
        return table

    def manifest(self, source_sha256: str) -> CellManifest:
        """Describe the conversion; call after the last chunk."""
        self._checker.finish()
        config, vocabulary = self._config, self._genes.vocabulary
        return CellManifest(
            symbols=vocabulary.symbols,
            original=vocabulary.original,
            organism=config.organism,
            normalisation="log1p(CP10k)",
            rank_model=_fit(self._sums, config.rank_form),
            num_cells=self._num_cells,
            num_dropped_empty=self._num_empty,
            num_dropped_min_genes=self._num_small,
            num_dropped_genes=self._num_cut_genes,
            num_explicit_zeros=self._num_zeros,
            num_duplicate_columns=self._genes.num_duplicate_columns,
            obs_columns=config.obs,
            num_missing_obs=self._num_missing,
            source=config.path or f"scanpy:{config.scanpy_dataset}",
            source_sha256=source_sha256,
            matrix=config.matrix,
            values=config.values,
            gene_case=config.gene_case,
            duplicates=config.duplicates,
            min_genes=config.min_genes,
            max_genes=config.max_genes,
            tie_break=config.tie_break,
            seed=config.seed,
        )

    def _rank(self, expression: ExpressionChunk, cell_ids: tuple[str, ...]) -> RankedRows:
        arrays = expression.indptr, expression.genes, expression.values
        if self._config.tie_break is TieBreak.C2S:
            return self._c2s.rank(*arrays, top_k=self._config.max_genes)
        return rank_rows(
            *arrays,
            cell_hashes=_hashes(cell_ids, self._config.seed),
            gene_hashes=self._gene_hashes,
            top_k=self._config.max_genes,
        )

    def _count(
        self,
        table: CellTable,
        expression: ExpressionChunk,
        num_genes: IndexArray,
        num_cut_genes: int,
    ) -> None:
        num_empty = int(np.count_nonzero(num_genes == 0))
        self._num_cells += len(table)
        self._num_empty += num_empty
        self._num_small += len(num_genes) - num_empty - len(table)
        self._num_cut_genes += num_cut_genes
        self._num_zeros += int(np.count_nonzero(expression.values == 0))
        for name, labels in table.obs.items():
            self._num_missing[name] += int(np.count_nonzero(labels == ""))
        self._sums += rank_sums(table.indptr, table.values)


def _hashes(names: Iterable[str], seed: int) -> UIntArray:
    return np.array([stable_hash(name, seed) for name in names], dtype=np.uint64)


def _positives_per_row(expression: ExpressionChunk) -> IndexArray:
    positives = np.concatenate([[0], np.cumsum(expression.values > 0)])
    counts: IndexArray = np.diff(positives[expression.indptr])
    return counts


def _fit(sums: RankSums, choice: RankFormChoice) -> RankModel:
    forms = list(RankForm) if choice is RankFormChoice.AUTO else [RankForm(choice.value)]
    return max((fit_rank_sums(sums, form=form) for form in forms), key=lambda model: model.r2)
