"""Cells as vectors, for distances between populations: one protocol, chosen by configuration.

Generated and real cells take the same way: ranked genes, cut to the sentence's length, in.
`expression` reads each rank as an expression and needs no model; `scgpt` is a trained encoder.

Shape suffixes: C cells, K genes of one cell, D embedding.
"""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Protocol

import numpy as np
from pydantic import Field, model_validator

from c2s_rl.cells.programs import load_program, program_indices
from c2s_rl.cells.rank_model import RankModel
from c2s_rl.cells.sentence import sentence_to_expression
from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.config import FrozenConfig
from c2s_rl.types import FloatArray, IntArray


class CellEmbedder(Protocol):
    """Turns ranked cells into vectors."""

    @property
    def name(self) -> str:
        """Kind, weights and gene subset in one line, for tables and cache keys."""

    def embed(self, cells: Sequence[IntArray]) -> FloatArray:
        """Embed cells.

        Args:
            cells: C rankings, each [K] vocabulary indices, highest first; K may differ and be 0.

        Returns:
            [C, D] in the order of `cells`.
        """


class EmbedderKind(StrEnum):
    """How a cell becomes a vector."""

    EXPRESSION = "expression"
    """Expression by rank, one number a gene."""
    SCGPT = "scgpt"
    """The cell embedding of a scGPT model."""


class CellEmbedderConfig(FrozenConfig):
    """Which embedding, and of which genes."""

    kind: EmbedderKind = Field(EmbedderKind.EXPRESSION, description="expression, or scgpt")
    folder: Path | None = Field(
        None, description="scGPT folder: args.json, vocab.json, best_model.pt; for kind scgpt"
    )
    programs: tuple[str, ...] = Field(
        (),
        description="Only genes of these programs (their union) are seen; empty: all genes",
    )

    @model_validator(mode="after")
    def _folder_goes_with_scgpt(self) -> "CellEmbedderConfig":
        if (self.folder is not None) is not (self.kind is EmbedderKind.SCGPT):
            raise ValueError(
                f"folder must be given with kind scgpt and only then, got kind {self.kind.value} "
                f"and folder {self.folder}"
            )
        return self


class ExpressionEmbedder:
    """Expression by rank over all genes or those of gene programs."""

    def __init__(
        self, config: CellEmbedderConfig, vocabulary: Vocabulary, rank_model: RankModel
    ) -> None:
        """Look up the genes.

        Raises:
            ConfigError: If a program is unknown.
            DataError: If a program shares no gene with the vocabulary.
        """
        self._rank_model = rank_model
        self._num_vocabulary = len(vocabulary)
        self._genes_D = embedded_genes(config, vocabulary)
        self.name = f"expression of {len(self._genes_D)} genes"

    def embed(self, cells: Sequence[IntArray]) -> FloatArray:
        """[C, D] log1p(CP10k) by rank; a cell without genes is a row of zeros."""
        embedded_C_D = np.zeros((len(cells), len(self._genes_D)), dtype=np.float32)
        for row_D, genes_K in zip(embedded_C_D, cells, strict=True):
            expression = sentence_to_expression(genes_K, self._rank_model, self._num_vocabulary)
            row_D[:] = expression[self._genes_D]
        return embedded_C_D


def embedded_genes(config: CellEmbedderConfig, vocabulary: Vocabulary) -> IntArray:
    """Sorted vocabulary indices of the genes that an embedder sees.

    Raises:
        ConfigError: If a program is unknown.
        DataError: If a program shares no gene with the vocabulary.
    """
    if not config.programs:
        return np.arange(len(vocabulary), dtype=np.int32)
    parts = [program_indices(load_program(name), vocabulary) for name in config.programs]
    return np.unique(np.concatenate(parts)).astype(np.int32)


def load_cell_embedder(
    config: CellEmbedderConfig, vocabulary: Vocabulary, rank_model: RankModel
) -> CellEmbedder:
    """Build the embedder that a config names.

    Raises:
        ConfigError: If a program is unknown.
        DataError: If the genes or the files do not fit.
    """
    return ExpressionEmbedder(config, vocabulary, rank_model)
