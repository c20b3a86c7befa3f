"""Does a completion change the genes of its condition in the right order of strength?"""

import numpy as np
from pydantic import Field

from c2s_rl.config import FrozenConfig
from c2s_rl.evaluation.embedded_cells import EmbeddedCells
from c2s_rl.evaluation.expression_change import (
    ChangedGenes,
    EffectKind,
    cell_effects,
    changed_genes,
    mean_effect,
)
from c2s_rl.evaluation.rank import DoubleArray, pearson_rows
from c2s_rl.models.cell_embedder import CellEmbedderConfig
from c2s_rl.types import PromptRecord, Split
from rewards.base import RewardBatch, RewardResult, RewardScope
from rewards.info import RewardInfo

NO_EFFECT = np.zeros(0)


class DeSpearmanOptions(FrozenConfig):
    """Which genes count as changed."""

    top_k: int = Field(50, ge=2, description="Genes that rise most and that fall most, each")
    programs: tuple[str, ...] = Field(
        (), description="Only genes of these programs (their union); empty: all genes"
    )
    num_real: int = Field(
        256, ge=1, description="Real cells of a condition and controls, drawn once by the seed"
    )


class DeSpearmanReward:
    """Rank correlation of a completion's changes with the real ones, over the changed genes.

    reward = Spearman's rho of x - control and real - control over the genes that the condition's
    real cells change most (`top_k` up, `top_k` down), in [-1, 1]; x, real and control are
    log1p(CP10k) by rank, real and control means over the cells of the prompt's side of the split.
    Copying a control cell scores near 0. A completion whose changes are all equal scores 0. A
    prompt whose condition has no real or no control cells, or fewer than 2 changed genes, abstains;
    so does one whose answer is text.

    Source: `de_spearman_lfc_sig` of cell-eval, with one cell in place of a population.
    """

    info = RewardInfo(
        meaning="Changes the condition's genes in the right order of strength",
        low=-1.0,
        high=1.0,
        baseline="copied control near 0",
        source="cell-eval, de_spearman_lfc_sig",
    )
    scope = RewardScope.GROUP
    Options = DeSpearmanOptions

    def __init__(self, options: DeSpearmanOptions) -> None:
        self._options = options
        self._cells: EmbeddedCells | None = None
        self._real: dict[tuple[Split, str], tuple[DoubleArray, ChangedGenes]] = {}

    def score(self, batch: RewardBatch) -> RewardResult:
        """Score every completion; see the class for the formula."""
        from scipy.stats import rankdata

        cells = self._expression(batch)
        scores: list[float | None] = []
        for group in batch.groups:
            control_N, real = self._real_change(group.record, cells)
            genes_M = real.both_M
            if len(genes_M) < 2 or not len(group.record.target_genes_K):
                scores += [None] * len(group.cells_G)
                continue
            changes_G_N = cells.generated(group.cells_G) - control_N
            rho_G = pearson_rows(
                rankdata(changes_G_N[:, genes_M], axis=1), rankdata(real.effect_N[genes_M])
            )
            scores += np.nan_to_num(rho_G, nan=0.0).tolist()
        return RewardResult(tuple(scores))

    def _expression(self, batch: RewardBatch) -> EmbeddedCells:
        """Look up the genes once a run."""
        if self._cells is None or not self._cells.is_of(batch.material):
            self._real = {}
            self._cells = EmbeddedCells(
                CellEmbedderConfig(programs=self._options.programs),
                batch.vocabulary,
                batch.material,
                num_real=self._options.num_real,
            )
        return self._cells

    def _real_change(
        self, record: PromptRecord, cells: EmbeddedCells
    ) -> tuple[DoubleArray, ChangedGenes]:
        """Mean expression of the controls, and what the real cells change; empty without either."""
        key = (record.split, record.condition)
        if key not in self._real:
            treated, controls = cells.treated(record), cells.controls(record)
            if len(treated) and len(controls):
                effect_N = mean_effect(cell_effects(treated, controls, EffectKind.MEAN))
                control_N = controls.mean(axis=0, dtype=np.float64)
            else:
                effect_N = control_N = NO_EFFECT
            self._real[key] = (control_N, changed_genes(effect_N, self._options.top_k))
        return self._real[key]
