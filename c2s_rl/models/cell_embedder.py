"""Cells as vectors, for distances between populations: one protocol, chosen by configuration.

Generated and real cells take the same way: ranked genes, cut to the sentence's length, in.
`expression` reads each rank as an expression and needs no model; `scgpt` is a trained encoder
(`scgpt_embedder.py`), from a folder or trained by the run itself (stage `train-embedder`).

Shape suffixes: C cells, K genes of one cell, D embedding.
"""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Protocol

import numpy as np
from pydantic import Field, model_validator

from c2s_rl.cells.programs import find_program, load_program
from c2s_rl.cells.rank_model import RankModel
from c2s_rl.cells.sentence import sentence_to_expression
from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.config import FrozenConfig, expand_variables
from c2s_rl.errors import ConfigError
from c2s_rl.models.encoder_dtype import EncoderDtype
from c2s_rl.models.encoding_cache import EncodingCache, content_key
from c2s_rl.models.scgpt_tokens import BinScope
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

    def num_seen(self, genes_K: IntArray) -> int:
        """Count the genes of a cell that its embedding depends on; [K] vocabulary indices."""


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
        None,
        description="scGPT folder: args.json, vocab.json, best_model.pt; ${VARIABLES} allowed; "
        "for kind scgpt, and null there is the run's own (section embedder)",
    )
    programs: tuple[str, ...] = Field(
        (),
        description="Only genes of these programs (their union) are seen; empty: all genes",
    )
    bins: BinScope = Field(
        BinScope.SENTENCE,
        description="Genes that share out scGPT's bins: sentence (all), or subset (the programs')",
    )
    normalise: bool = Field(
        default=True,
        description="Scale scGPT's embeddings to unit length, as the scgpt package does",
    )
    dtype: EncoderDtype = Field(
        EncoderDtype.FLOAT32,
        description="Of scGPT's passes; bfloat16 is faster for large models where the CPU or GPU "
        "has it, and turns an embedding by a cosine distance of under 1e-3",
    )

    @model_validator(mode="after")
    def _options_go_with_scgpt(self) -> "CellEmbedderConfig":
        given = self.model_fields_set & {"folder", "bins", "normalise", "dtype"}
        if self.kind is not EmbedderKind.SCGPT and given:
            raise ValueError(
                f"{', '.join(sorted(given))} must be given with kind scgpt only, "
                f"got kind {self.kind.value}"
            )
        return self

    @property
    def uses_own(self) -> bool:
        """Whether it is the scGPT that the run trains."""
        return self.kind is EmbedderKind.SCGPT and self.folder is None


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
        key = content_key(self._genes_D.tobytes(), repr(rank_model).encode())
        self.name = f"expression {key[:12]} of {len(self._genes_D)} genes"

    def embed(self, cells: Sequence[IntArray]) -> FloatArray:
        """[C, D] log1p(CP10k) by rank; a cell without genes is a row of zeros."""
        embedded_C_D = np.zeros((len(cells), len(self._genes_D)), dtype=np.float32)
        for row_D, genes_K in zip(embedded_C_D, cells, strict=True):
            expression = sentence_to_expression(genes_K, self._rank_model, self._num_vocabulary)
            row_D[:] = expression[self._genes_D]
        return embedded_C_D

    def num_seen(self, genes_K: IntArray) -> int:
        """Count the genes of a cell that are among the embedded ones."""
        return int(np.isin(genes_K, self._genes_D).sum())


def embedded_genes(config: CellEmbedderConfig, vocabulary: Vocabulary) -> IntArray:
    """Sorted vocabulary indices of the genes that an embedder sees.

    Raises:
        ConfigError: If a program is unknown.
        DataError: If a program shares no gene with the vocabulary.
    """
    if not config.programs:
        return np.arange(len(vocabulary), dtype=np.int32)
    parts = [find_program(load_program(name), vocabulary).indices for name in config.programs]
    return np.unique(np.concatenate(parts)).astype(np.int32)


def load_cell_embedder(
    config: CellEmbedderConfig,
    vocabulary: Vocabulary,
    rank_model: RankModel,
    *,
    own_folder: Path | None = None,
) -> CellEmbedder:
    """Build the embedder that a config names.

    Args:
        config: Which one, and of which genes.
        vocabulary: Genes of the cells.
        rank_model: Rank to log1p(CP10k) of the data set.
        own_folder: The scGPT folder that the run trained, used where `config` names none.

    Raises:
        ConfigError: If a program is unknown, or scGPT is asked for and no folder is known.
        MissingFileError: If a file or the package scgpt is not there.
        DataError: If the genes or the files do not fit.
    """
    if config.kind is EmbedderKind.EXPRESSION:
        return ExpressionEmbedder(config, vocabulary, rank_model)
    from c2s_rl.models.scgpt_embedder import ScGPTEmbedder, ScGPTView
    from c2s_rl.models.scgpt_files import read_folder

    folder = Path(expand_variables(str(config.folder))) if config.folder else own_folder
    if folder is None:
        raise ConfigError(
            "an embedder of kind scgpt must name its folder, or the run must train one "
            "(section embedder), got neither"
        )
    genes = embedded_genes(config, vocabulary)
    view = ScGPTView(genes, config.bins, config.normalise, config.dtype)
    return ScGPTEmbedder(read_folder(folder), vocabulary, view, str(folder))


def embed_once(
    embedder: CellEmbedder, cells: Sequence[IntArray], cache: EncodingCache
) -> FloatArray:
    """Embed real cells once for all who share a cache.

    The cells of a call are kept as one array: ask for the same cells in the same order.

    Args:
        embedder: Its name is part of the key.
        cells: C rankings; an empty list is no call at all.
        cache: In memory, or with a folder that all workers of a run share.

    Returns:
        [C, D] in the order of `cells`.
    """
    key = content_key(embedder.name.encode(), *(genes_K.tobytes() for genes_K in cells))
    return cache.shared(key, lambda: embedder.embed(cells))
