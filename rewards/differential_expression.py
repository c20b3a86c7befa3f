"""Do all completions of a condition together change the genes that the real cells change?

Differential expression is a property of populations; each completion gets its share of it by
leave-one-out (`c2s_rl/evaluation/leave_one_out.py`). Left out: p values; the genes that count are
those of largest effect in the real cells.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from enum import StrEnum
from typing import ClassVar

from pydantic import Field

from c2s_rl.config import FrozenConfig
from c2s_rl.evaluation.embedded_cells import EmbeddedCells
from c2s_rl.evaluation.expression_change import (
    ChangedGenes,
    EffectKind,
    as_leave_one_out,
    cell_effects,
    changed_genes,
    effects_without_each,
    mean_effect,
    recovered_change,
    separation,
    sign_match,
    top_overlap,
)
from c2s_rl.evaluation.rank import DoubleArray
from c2s_rl.models.cell_embedder import CellEmbedderConfig
from c2s_rl.types import ParsedCell, PromptRecord, Split
from rewards.base import RewardBatch, RewardResult, RewardScope
from rewards.info import RewardInfo
from rewards.sibling_credit import Measured, sibling_credit


class DeOptions(FrozenConfig):
    """Which genes count as changed, and which cells are compared."""

    top_k: int = Field(50, ge=1, description="Genes that rise most and that fall most, each")
    effect: EffectKind = Field(
        EffectKind.MEAN, description="mean: log fold change; wilcoxon: rank-sum effect"
    )
    programs: tuple[str, ...] = Field(
        (), description="Only genes of these programs (their union); empty: all genes"
    )
    num_real: int = Field(
        256, ge=1, description="Real cells of a condition and controls, drawn once by the seed"
    )
    num_together: int = Field(
        256,
        ge=2,
        description="Completions measured as one population; more are dealt into equal parts",
    )


class ExpressionChangeReward(ABC):
    """What each completion does to the agreement V of generated and real expression changes.

    reward_i = (n - 1) (V of all n - V without i), for n completions of one condition in the step:
    above 0 = the population agrees better with this completion than without it. Expression is read
    from ranks; a change is treated - control, the controls being those of the condition's prompts.
    All completions of a condition abstain where it has fewer than 2 of them, no real or no control
    cells, or real cells that change no gene; so do those of a prompt whose answer is text.

    Diagnostics: V (nan where abstained), and how many generated and real cells were compared.
    """

    scope = RewardScope.CONDITION
    Options: ClassVar[type[DeOptions]] = DeOptions
    agreement: ClassVar[str]
    """Name of V in the diagnostics."""

    def __init__(self, options: DeOptions) -> None:
        self._options = options
        self._cells: EmbeddedCells | None = None
        self._real: dict[tuple[Split, str], ChangedGenes | None] = {}

    def score(self, batch: RewardBatch) -> RewardResult:
        """Score every completion against its siblings of the condition; see the class."""
        cells = self._expression(batch)

        def measure(record: PromptRecord, generated: Sequence[ParsedCell]) -> Measured | None:
            real = self._real_change(record, cells)
            if real is None:
                return None
            controls, effect = cells.controls(record), self._options.effect
            effects = cell_effects(cells.generated(generated), controls, effect)
            agreement = self._agreement(effects_without_each(effects), real)
            return Measured(as_leave_one_out(agreement), len(cells.treated(record)))

        return sibling_credit(
            batch,
            measure,
            num_together=self._options.num_together,
            name=self.agreement,
            is_distance=False,
        )

    def _expression(self, batch: RewardBatch) -> EmbeddedCells:
        """Look up the genes once a run."""
        if self._cells is None or not self._cells.is_of(batch.material):
            config = CellEmbedderConfig(programs=self._options.programs)
            num_real = self._options.num_real
            self._real = {}
            self._cells = EmbeddedCells(config, batch.vocabulary, batch.material, num_real=num_real)
        return self._cells

    def _real_change(self, record: PromptRecord, cells: EmbeddedCells) -> ChangedGenes | None:
        """Genes that the condition's real cells change; None where nothing can be said."""
        key = (record.split, record.condition)
        if key not in self._real:
            treated, controls = cells.treated(record), cells.controls(record)
            self._real[key] = None
            if len(treated) and len(controls):
                effect_N = mean_effect(cell_effects(treated, controls, self._options.effect))
                changed = changed_genes(effect_N, self._options.top_k)
                self._real[key] = changed if len(changed.both_M) else None
        return self._real[key]

    @abstractmethod
    def _agreement(self, effects_B_N: DoubleArray, real: ChangedGenes) -> DoubleArray:
        """[B] V of each effect."""


class OverlapForm(StrEnum):
    """How changed genes are matched."""

    SEPARATION = "separation"
    """How well the generated change ranks real up genes first and real down genes last."""
    TOP_K = "top_k"
    """Share of the real top genes among as many generated ones; steps of 1 / (2 top_k)."""


class DeOverlapOptions(DeOptions):
    """Which genes, and how they are matched."""

    form: OverlapForm = Field(
        OverlapForm.SEPARATION,
        description="separation varies with every completion; top_k is the usual figure, but one "
        "completion of many rarely changes it",
    )


class DeOverlapReward(ExpressionChangeReward):
    """`ExpressionChangeReward` with V = overlap of the most changed genes.

    V is in [-1, 1] (separation, 0 = chance) or [0, 1] (top_k).
    """

    info = RewardInfo(
        meaning="Helps the condition's completions to change the right genes",
        low=-math.inf,
        high=math.inf,
        baseline="about 0: a completion like its siblings",
        source="cell-eval, overlap at k; credit: Efron 1982",
    )
    Options = DeOverlapOptions
    agreement = "de_overlap"

    def __init__(self, options: DeOverlapOptions) -> None:
        super().__init__(options)
        self._form = options.form

    def _agreement(self, effects_B_N: DoubleArray, real: ChangedGenes) -> DoubleArray:
        if self._form is OverlapForm.TOP_K:
            return top_overlap(effects_B_N, real)
        return separation(effects_B_N, real)


class DirectionForm(StrEnum):
    """How directions are compared."""

    RECOVERED = "recovered"
    """How far each gene moves the right way, as a share of the real change, cut to [-1, 1]."""
    SIGN = "sign"
    """Whether it moves the right way; unmoved counts half."""


class DeDirectionOptions(DeOptions):
    """Which genes, and how their directions are compared."""

    form: DirectionForm = Field(
        DirectionForm.RECOVERED,
        description="recovered varies with every completion; sign is the usual figure, but one "
        "completion of many rarely changes it",
    )


class DeDirectionReward(ExpressionChangeReward):
    """`ExpressionChangeReward` with V = direction of change of the real top genes.

    V is in [-1, 1] (recovered, 0 = the control unchanged) or [0, 1] (sign, 1/2 = chance).
    """

    info = RewardInfo(
        meaning="Helps the condition's completions to move the right genes the right way",
        low=-math.inf,
        high=math.inf,
        baseline="about 0: a completion like its siblings",
        source="cell-eval, direction match; credit: Efron 1982",
    )
    Options = DeDirectionOptions
    agreement = "de_direction"

    def __init__(self, options: DeDirectionOptions) -> None:
        super().__init__(options)
        self._form = options.form

    def _agreement(self, effects_B_N: DoubleArray, real: ChangedGenes) -> DoubleArray:
        if self._form is DirectionForm.SIGN:
            return sign_match(effects_B_N, real)
        return recovered_change(effects_B_N, real)
