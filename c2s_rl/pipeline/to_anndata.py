"""Sentences back to expression: stored cells or a model's answers as an .h5ad file for scanpy.

    c2s-rl to-anndata --cells FOLDER --output FILE.h5ad [--sentences PATH]

X is in the unit of the cells' folder: what was measured (stored cells with their values), or the
line of the folder's own rank model at each gene's place in its sentence. Written a few thousand
cells at a time. Left out: undoing the normalisation, since a sentence does not hold a library size.

Shapes: N genes of the vocabulary.
"""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field
from rich.console import Console
from rich.progress import track
from scipy import sparse

from c2s_rl.cells.inverse import ExpressionRows, RepeatRule
from c2s_rl.cells.rank import IndexArray
from c2s_rl.config import FrozenConfig
from c2s_rl.data.h5ad_stream import H5adStream, UnsValue, new_file
from c2s_rl.data.sentence_files import SentenceBatch, iter_sentences
from c2s_rl.data.shards import CellManifest, read_manifest
from c2s_rl.errors import ConfigError, DataError
from c2s_rl.pipeline.expression_chunks import (
    CELLS_AT_ONCE,
    ExpressionChunk,
    cell_chunks,
    sentence_chunks,
)

if TYPE_CHECKING:
    import pandas as pd

UNS = "c2s_rl"
# How units begin that scanpy knows, and what it is told of their base; e where nothing is said.
LOG_BASES: dict[str, dict[str, UnsValue]] = {"log1p(": {}, "log10(1+": {"base": 10.0}}


class ValueSource(StrEnum):
    """Where expression comes from."""

    STORED = "stored"
    RANK_MODEL = "rank_model"


class GeneNames(StrEnum):
    """How genes are spelled in var_names."""

    ORIGINAL = "original"
    SENTENCE = "sentence"


class Compression(StrEnum):
    """How the file is compressed."""

    GZIP = "gzip"
    LZF = "lzf"
    NONE = "none"


class ToAnnDataConfig(FrozenConfig):
    """What to turn into AnnData and how."""

    cells: Path = Field(description="Folder of cell shards: the cells, the genes, the rank model")
    sentences: Path | None = Field(
        None, description="A model's answers instead of the folder's cells; see --help"
    )
    column: str | None = Field(
        None, description="Column of the sentences, where it has no usual name"
    )
    values: ValueSource | None = Field(
        None, description="stored or rank_model; null takes stored values where there are any"
    )
    repeats: RepeatRule = Field(
        RepeatRule.FIRST,
        description="Place of a gene that is named twice: first, or mean as cell2sentence has it",
    )
    var_names: GeneNames = Field(
        GeneNames.ORIGINAL, description="Spelled as in the source file, or as in sentences"
    )
    compression: Compression = Field(Compression.GZIP, description="gzip, lzf or none")


@dataclass(frozen=True)
class Written:
    """What a file holds."""

    values: ValueSource
    """Where its expression comes from."""
    num_cells: int = 0
    """Rows."""
    num_words: int = 0
    """Words of all sentences; of stored cells, genes."""
    num_unknown: int = 0
    """Words that are no symbols."""
    num_repeated: int = 0
    """Words that name a gene again."""
    num_below_zero: int = 0
    """Genes left out because the line is not above 0 at their rank."""

    def more(self, num_cells: int, counts: Mapping[str, IndexArray]) -> "Written":
        """Add cells and their counts."""
        return Written(
            self.values,
            self.num_cells + num_cells,
            self.num_words + int(counts["num_words"].sum()),
            self.num_unknown + int(counts["num_unknown_words"].sum()),
            self.num_repeated + int(counts["num_repeated_words"].sum()),
            self.num_below_zero + int(counts["num_below_zero"].sum()),
        )


def run(
    config: ToAnnDataConfig,
    output: Path,
    *,
    overwrite: bool = False,
    answers: Iterable[SentenceBatch] | None = None,
) -> Written:
    """Write one .h5ad file.

    Args:
        config: What to write.
        output: The file; it appears whole or not at all.
        overwrite: Replace it where it exists.
        answers: Sentences in memory; `config.sentences` then only says where they are from.

    Raises:
        MissingFileError: If the folder or the sentences are not there.
        ConfigError: If stored values are asked of sentences.
        DataError: If a file is damaged, no word of the sentences is a gene of the folder, or the
            answers of a run were made with another vocabulary.
        StageError: If the output exists.
    """
    if output.suffix != ".h5ad":
        raise ConfigError(f"the output must be an .h5ad file, got {output}")
    manifest = read_manifest(config.cells)
    if answers is None and config.sentences is not None:
        answers = iter_sentences(config.sentences, config.column)
    place = str(config.sentences or "the answers")
    values = _value_source(config, manifest, has_answers=answers is not None)
    total: int | None = None
    if answers is None:
        chunks = cell_chunks(config.cells, manifest, with_values=values is ValueSource.STORED)
        total = -(-manifest.num_cells // CELLS_AT_ONCE)
    else:
        chunks = sentence_chunks(answers, manifest, config.repeats, place=place)
    uns = _uns(config, manifest, values, None if answers is None else place)
    compression = None if config.compression is Compression.NONE else config.compression.value
    with new_file(output, overwrite=overwrite) as partial:
        stream = H5adStream(partial, _var(manifest, config.var_names), compression=compression)
        try:
            written = _append(stream, _with_progress(chunks, total), Written(values))
            if not written.num_cells:
                raise DataError(f"sentences must be at least one, got none in {place}")
            stream.finish(uns)
        finally:
            stream.close()
    return written


def _append(stream: H5adStream, chunks: Iterable[ExpressionChunk], written: Written) -> Written:
    """Add all cells to the file; return what it holds then."""
    for chunk in chunks:
        counts = chunk.counts
        stream.append(chunk.cell_ids, _csr(chunk.rows, stream.num_genes), {**chunk.obs, **counts})
        written = written.more(len(chunk.cell_ids), counts)
    return written


def _value_source(
    config: ToAnnDataConfig, manifest: CellManifest, *, has_answers: bool
) -> ValueSource:
    if has_answers:
        if config.values is ValueSource.STORED:
            raise ConfigError(
                "values of sentences must be rank_model, got stored: a text holds no expression"
            )
        return ValueSource.RANK_MODEL
    if config.column is not None:
        raise ConfigError(f"a column is one of sentences, got {config.column} and no sentences")
    if config.values is not None:
        return config.values
    return ValueSource.STORED if manifest.has_values else ValueSource.RANK_MODEL


def _with_progress(
    chunks: Iterable[ExpressionChunk], total: int | None
) -> Iterable[ExpressionChunk]:
    """Show a bar where somebody watches."""
    if not sys.stderr.isatty():
        return chunks
    return track(chunks, description="to-anndata", total=total, console=Console(stderr=True))


def _csr(rows: ExpressionRows, num_genes: int) -> "sparse.csr_matrix":
    shape = (len(rows.indptr) - 1, num_genes)
    matrix = sparse.csr_matrix((rows.values, rows.genes, rows.indptr), shape=shape)
    return matrix.sorted_indices()  # a copy: what Parquet gives is read-only


def _var(manifest: CellManifest, names: GeneNames) -> "pd.DataFrame":
    """Return [N] the genes, in both spellings."""
    import pandas as pd

    spelled = {"original": list(manifest.original), "sentence": list(manifest.symbols)}
    index = pd.Index(spelled[names.value])
    return pd.DataFrame({f"{name}_symbol": texts for name, texts in spelled.items()}, index=index)


def _uns(
    config: ToAnnDataConfig, manifest: CellManifest, values: ValueSource, sentences: str | None
) -> dict[str, UnsValue]:
    """Say where the numbers come from; scanpy reads `log1p`."""
    model = manifest.rank_model
    about: dict[str, UnsValue] = {
        "rank_model": {
            "form": model.form.value,
            "slope": model.slope,
            "intercept": model.intercept,
            "r2": model.r2,
        },
        "unit": manifest.normalisation,
        "values": values.value,
        "mean_floor": manifest.mean_floor,
        "organism": manifest.organism,
        "cells": str(config.cells),
    }
    if sentences is not None:
        about |= {"sentences": sentences, "repeats": config.repeats.value}
    uns: dict[str, UnsValue] = {UNS: about}
    for prefix, base in LOG_BASES.items():
        if manifest.normalisation.startswith(prefix):
            uns["log1p"] = base
    return uns
