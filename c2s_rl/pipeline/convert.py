"""Expression matrices to cell shards: normalise, rank and write every cell of a file.

    c2s-rl convert --config FILE        (section `convert`)

Reads .h5ad, and L1000's .gct and .gctx, in chunks of rows, so memory does not grow with the number
of cells. Neither the size of the chunks nor the order of the rows changes any cell. What is left
out: choosing genes or cells by quality beyond `min_genes`; do that before, in scanpy.
"""

import math
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Self

import numpy as np
from pydantic import Field, model_validator
from rich.console import Console
from rich.progress import track

from c2s_rl.cells.programs import load_program, program_indices
from c2s_rl.cells.rank import IndexArray, RankedRows, UIntArray, rank_rows, stable_hash
from c2s_rl.cells.rank_c2s import C2SRanker
from c2s_rl.cells.rank_model import RankForm, RankModel, RankSums, fit_rank_sums, rank_sums
from c2s_rl.cells.vocabulary import Duplicates, GeneCase, GeneColumns, build_vocabulary, shown
from c2s_rl.checkpoint import sha256_of
from c2s_rl.config import expand_variables
from c2s_rl.data.cell_file import CellFile
from c2s_rl.data.cell_table import CellTable
from c2s_rl.data.h5ad_matrix import CsrChunk
from c2s_rl.data.shards import CellManifest, write_cells
from c2s_rl.data.source import SourceConfig, open_source, source_path
from c2s_rl.data.values import ExpressionChunk, Scale, ValueChecker, Values, normalise
from c2s_rl.errors import DataError

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


class ConvertConfig(SourceConfig):
    """Which cells to convert and how to rank them."""

    genes: tuple[str, ...] = Field(
        (),
        description="Rank and write these genes only: programs ('hallmark_apoptosis', "
        "'file.gmt:SET') or lists ('genes.txt'), together; empty takes all of the file",
    )
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

    @model_validator(mode="after")
    def _ties_of_single_columns(self) -> Self:
        if self.tie_break is TieBreak.C2S and self.duplicates is not Duplicates.ERROR:
            raise ValueError(
                "tie_break: c2s shuffles stored columns, so duplicates must be error, "
                f"got {self.duplicates.value}"
            )
        if self.tie_break is TieBreak.C2S and self.genes:
            raise ValueError(
                "tie_break: c2s shuffles all stored columns, so genes must be empty, "
                f"got {list(self.genes)}"
            )
        return self

    @model_validator(mode="after")
    def _logarithms_are_not_added(self) -> Self:
        if self.values is Values.LOG2 and self.duplicates is Duplicates.SUM:
            raise ValueError(
                "values: log2 are logarithms of intensities, which cannot be added, so duplicates "
                "must be error or first, got sum"
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
    path = source_path(config)
    with tempfile.TemporaryDirectory() as scratch, open_source(config, Path(scratch)) as cells:
        conversion = _Conversion(config, cells)
        step = cells.rows_at_once(chunk_cells)
        chunks = _with_progress(cells.chunks(step), -(-len(cells.cell_ids) // step))
        return write_cells(
            output,
            (conversion.table(chunk) for chunk in chunks),
            lambda: conversion.manifest(sha256_of(path)),
            source_file=path.name,
        )


def _with_progress(chunks: Iterable[CsrChunk], num_chunks: int) -> Iterable[CsrChunk]:
    """Show a bar where somebody watches."""
    if not sys.stderr.isatty():
        return chunks
    return track(chunks, description="convert", total=num_chunks, console=Console(stderr=True))


class _Conversion:
    """Chunks to ranked cells, counting what is left out on the way."""

    def __init__(self, config: ConvertConfig, cells: CellFile) -> None:
        self._config = config
        self._cells = cells
        ids = cells.cell_ids.read(0, len(cells.cell_ids)).tolist()
        if len(set(ids)) != len(ids):
            repeated = [cell for cell, num in Counter(ids).items() if num > 1]
            raise DataError(
                f"cell ids must be unique, got {shown(repeated)} more than once in {cells.place}"
            )
        self._genes = _choose_genes(config, cells)
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
        self._num_missing = dict.fromkeys(cells.obs, 0)
        self._floors: list[float] = []
        self._num_empty = 0
        self._num_small = 0
        self._num_cut_genes = 0
        self._num_zeros = 0

    def table(self, chunk: CsrChunk) -> CellTable:
        """Check, normalise and rank one chunk; cells with too few genes are left out."""
        self._checker.check(chunk)
        expression = normalise(chunk, self._config.values, self._genes)
        stop = chunk.start + len(chunk.indptr) - 1
        cell_ids = tuple(self._cells.cell_ids.read(chunk.start, stop).tolist())
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
                n: labels.read(chunk.start, stop)[is_kept] for n, labels in self._cells.obs.items()
            },
            source_rows=np.arange(chunk.start, stop)[is_kept],
        )
        self._count(table, expression, num_genes, int((num_genes - lengths)[is_kept].sum()))
        return table

    def manifest(self, source_sha256: str) -> CellManifest:
        """Describe the conversion; call after the last chunk."""
        self._checker.finish()
        config, vocabulary = self._config, self._genes.vocabulary
        models = {form: fit_rank_sums(self._sums, form=form) for form in RankForm}
        return CellManifest(
            symbols=vocabulary.symbols,
            original=vocabulary.original,
            organism=config.organism,
            normalisation=Scale().unit(config.values),
            rank_model=_choose(models, config.rank_form),
            rank_form_r2={form: model.r2 for form, model in models.items()},
            # Exact, so that it does not depend on the order of the cells.
            mean_floor=math.fsum(self._floors) / max(len(self._floors), 1),
            num_cells=self._num_cells,
            num_dropped_empty=self._num_empty,
            num_dropped_min_genes=self._num_small,
            num_dropped_genes=self._num_cut_genes,
            num_explicit_zeros=self._num_zeros,
            num_duplicate_columns=self._genes.num_duplicate_columns,
            num_unnamed_genes=self._cells.num_unnamed_genes,
            genes=config.genes,
            obs_columns=tuple(self._cells.obs),
            num_missing_obs=self._num_missing,
            source=config.path or f"scanpy:{config.scanpy_dataset}",
            source_sha256=source_sha256,
            tables_sha256={
                table: sha256_of(Path(expand_variables(table))) for table in config.tables.paths
            },
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
        self._floors += expression.floors_C.tolist()


def _hashes(names: Iterable[str], seed: int) -> UIntArray:
    return np.array([stable_hash(name, seed) for name in names], dtype=np.uint64)


def _positives_per_row(expression: ExpressionChunk) -> IndexArray:
    positives = np.concatenate([[0], np.cumsum(expression.values > 0)])
    counts: IndexArray = np.diff(positives[expression.indptr])
    return counts


def _choose_genes(config: ConvertConfig, cells: CellFile) -> GeneColumns:
    """Make the vocabulary of the file, or of the programs that are asked for."""
    columns = build_vocabulary(
        cells.var_names,
        gene_case=config.gene_case,
        duplicates=config.duplicates,
        source=cells.place,
    )
    if not config.genes:
        return columns
    wanted = [program_indices(load_program(name), columns.vocabulary) for name in config.genes]
    return columns.restricted(np.unique(np.concatenate(wanted)))


def _choose(models: Mapping[RankForm, RankModel], choice: RankFormChoice) -> RankModel:
    if choice is not RankFormChoice.AUTO:
        return models[RankForm(choice.value)]
    return max(models.values(), key=lambda model: model.r2)
