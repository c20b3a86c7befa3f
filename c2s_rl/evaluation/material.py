"""What rewards compare completions with: real cells of the run, read when first asked for.

A reward that never asks costs nothing. Rewards see the cells of a prompt's own side of the split:
a training prompt is never compared with held-out cells.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from c2s_rl.cells.rank import stable_hash
from c2s_rl.cells.rank_model import RankModel
from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.data.prompt_set import read_prompts
from c2s_rl.data.pseudobulk import rank_pseudobulks
from c2s_rl.data.shards import read_cells, read_manifest
from c2s_rl.errors import DataError
from c2s_rl.evaluation.real_cells import RealCells, gather_real_cells
from c2s_rl.types import IntArray, PromptRecord


@dataclass(frozen=True, eq=False)
class Reference:
    """Real cells and how their sentences become expression."""

    real: RealCells
    """All cells that occur in prompts."""
    rank_model: RankModel
    """Rank to log1p(CP10k) of the data set."""
    num_genes: int
    """Length of a sentence in genes: generated and real cells are cut to it alike."""
    seed: int = 0
    """Seed of the tie-break of the cells, for means of them."""

    def treated(self, record: PromptRecord) -> list[IntArray]:
        """Real cells of the prompt's condition and side, its own target included.

        Returns:
            Ranked genes of each cell, highest first, cut to `num_genes`; in the order of cell ids;
            empty where the condition has none.
        """
        return self._cut(self.real.target_rows[record.split].get(record.condition, ()))

    def controls(self, record: PromptRecord) -> list[IntArray]:
        """Control cells of the condition's prompts on the same side; form and order as above."""
        return self._cut(self.real.control_rows[record.split].get(record.condition, ()))

    def pseudobulk(self, record: PromptRecord, vocabulary: Vocabulary) -> IntArray:
        """Rank the mean of the real cells of the prompt's condition and side, uncut.

        Ties break as in the corpus, so that a corpus without limits has the same target.

        Args:
            record: Names condition and side.
            vocabulary: Symbols of the cells, for the tie-break.

        Raises:
            DataError: If the condition has no real cells on this side.
        """
        rows = self.real.target_rows[record.split].get(record.condition, ())
        if not rows:
            raise DataError(
                "a pseudobulk needs real cells of the condition, "
                f"got none of {record.condition!r} on the {record.split} side"
            )
        name = f"{record.condition} | {record.split}"
        hashes = [stable_hash(symbol, self.seed) for symbol in vocabulary.symbols]
        return rank_pseudobulks(
            self.real.cells,
            {name: rows},
            gene_hashes=np.array(hashes, dtype=np.uint64),
            seed=self.seed,
        )[name]

    def _cut(self, rows: Sequence[int]) -> list[IntArray]:
        return [self.real.cells.genes_of(row)[: self.num_genes] for row in rows]


@dataclass(frozen=True, eq=False)
class RewardMaterial:
    """Where a reward finds the run's data; cheap to send to another process."""

    cells: Path | None = None
    """Folder of cell shards."""
    corpus: Path | None = None
    """Folder of prompt shards made from them."""
    cache: Path | None = None
    """Folder for encodings that all reward workers of a run share; None keeps them in memory."""
    seed: int = 0
    """The run's seed, for rewards that draw."""
    embedder: Path | None = None
    """Folder of the scGPT that the run trained; None where it trained none."""

    @property
    def source(self) -> tuple[Path | int | None, ...]:
        """Where everything comes from: equal for copies of one run's material."""
        return (self.cells, self.corpus, self.cache, self.seed, self.embedder)

    @cached_property
    def reference(self) -> Reference:
        """The run's real cells.

        Raises:
            DataError: If the run has no cells.
        """
        if self.cells is None or self.corpus is None:
            raise DataError(
                "a reward that compares with real cells needs cell and prompt shards, "
                f"got cells={self.cells} and corpus={self.corpus}"
            )
        manifest = read_manifest(self.cells)
        prompts = read_prompts(self.corpus)
        real = gather_real_cells(prompts.records, read_cells(self.cells), len(manifest.symbols))
        return Reference(real, manifest.rank_model, prompts.num_genes, manifest.seed)
