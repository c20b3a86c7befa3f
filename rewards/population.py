"""Distances between all completions of a condition and its real cells, as a reward of each.

A completion alone cannot be too similar to its siblings or miss half of a population; all of them
together can. These rewards measure the population and give each completion its share of the blame
(`c2s_rl/evaluation/leave_one_out.py`).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal, TypeAlias

from pydantic import Field

from c2s_rl.config import FrozenConfig
from c2s_rl.evaluation.distances import median_bandwidths
from c2s_rl.evaluation.embedded_cells import EmbeddedCells
from c2s_rl.evaluation.leave_one_out import (
    LeaveOneOut,
    energy_without_each,
    mean_distance,
    mean_kernel,
    mmd_without_each,
    scfid_without_each,
    wasserstein_without_each,
)
from c2s_rl.models.cell_embedder import CellEmbedderConfig
from c2s_rl.types import FloatArray, ParsedCell, PromptRecord
from rewards.base import RewardBatch, RewardResult, RewardScope
from rewards.info import RewardInfo
from rewards.sibling_credit import Measured, sibling_credit


class PopulationOptions(FrozenConfig):
    """Which vectors of which cells are compared."""

    embedder: CellEmbedderConfig = Field(
        CellEmbedderConfig(), description="How cells become vectors; expression of all genes"
    )
    num_real: int = Field(
        256, ge=2, description="Real cells of a condition, drawn once by the run's seed"
    )
    num_together: int = Field(
        256,
        ge=2,
        description="Completions measured as one population; more are dealt into equal parts",
    )


Condition: TypeAlias = tuple[str, str]
"""Side of the split and name of a condition: its real cells are the same for a whole run."""


class PopulationReward(ABC):
    """What each completion does to a distance V between its condition's completions and real cells.

    reward_i = (n - 1) (V without i - V of all n), for n completions of one condition in the step:
    above 0 = the population is closer to the real cells with this completion than without it. The
    factor keeps the size of the rewards independent of n (V minus the jackknife's pseudo-value).
    Completions without genes take part as empty cells. All completions of a condition abstain where
    it has fewer than 2 of them or too few real cells on the prompt's side of the split; so do those
    of a prompt whose answer is text.

    Diagnostics: the distance itself (smaller is better), and how many generated and real cells were
    compared; nan where abstained.

    Source: credit: Efron 1982, The Jackknife, section 2; the distances: see their functions.
    """

    scope = RewardScope.CONDITION
    Options: ClassVar[type[PopulationOptions]] = PopulationOptions
    distance: ClassVar[str]
    """Name of V in the diagnostics."""

    def __init__(self, options: PopulationOptions) -> None:
        self._options = options
        self._cells: EmbeddedCells | None = None

    def score(self, batch: RewardBatch) -> RewardResult:
        """Score every completion against its siblings of the condition; see the class."""
        cells = self._embedded(batch)

        def measure(record: PromptRecord, generated: Sequence[ParsedCell]) -> Measured | None:
            real = cells.treated(record)
            if not self._can_compare(real):
                return None
            key = (record.split.value, record.condition)
            without = self._without_each(key, real, cells.generated(generated))
            return Measured(without, len(real))

        return sibling_credit(
            batch,
            measure,
            num_together=self._options.num_together,
            name=self.distance,
            is_distance=True,
        )

    def _embedded(self, batch: RewardBatch) -> EmbeddedCells:
        """Load the embedder once a run."""
        if self._cells is None or not self._cells.is_of(batch.material):
            self._forget()
            self._cells = EmbeddedCells(
                self._options.embedder,
                batch.vocabulary,
                batch.material,
                num_real=self._options.num_real,
            )
        return self._cells

    def _can_compare(self, real: FloatArray) -> bool:
        """Whether the real cells are enough for V."""
        return len(real) > 0

    def _forget(self) -> None:
        """Drop what is kept of the real cells; other ones follow."""
        return

    @abstractmethod
    def _without_each(
        self, condition: Condition, real: FloatArray, generated: FloatArray
    ) -> LeaveOneOut:
        """V of all generated cells and without each; a condition's real cells stay the same."""


class MMDReward(PopulationReward):
    """`PopulationReward` with V = squared MMD (biased form), in [0, 2].

    RBF kernels around the median distance of real cells; where all real cells are equal there is
    no such width, and the condition abstains.
    """

    info = RewardInfo(
        meaning="Brings the condition's completions nearer to its real cells (MMD)",
        low=-math.inf,
        high=math.inf,
        baseline="about 0: a completion like its siblings",
        source="Gretton et al. 2012; credit: Efron 1982",
    )
    distance = "mmd"

    def __init__(self, options: PopulationOptions) -> None:
        super().__init__(options)
        self._of_real: dict[Condition, tuple[tuple[float, ...], float]] = {}

    def _forget(self) -> None:
        self._of_real.clear()

    def _can_compare(self, real: FloatArray) -> bool:
        return len(real) >= 2 and bool((real != real[0]).any())

    def _without_each(
        self, condition: Condition, real: FloatArray, generated: FloatArray
    ) -> LeaveOneOut:
        if condition not in self._of_real:
            widths = median_bandwidths(real)
            self._of_real[condition] = (widths, mean_kernel(real, widths))
        widths, within = self._of_real[condition]
        return mmd_without_each(real, generated, bandwidths=widths, within_real=within)


class EnergyReward(PopulationReward):
    """`PopulationReward` with V = squared energy distance, in the unit of the vectors, >= 0."""

    info = RewardInfo(
        meaning="Brings the condition's completions nearer to its real cells (energy distance)",
        low=-math.inf,
        high=math.inf,
        baseline="about 0: a completion like its siblings",
        source="Szekely and Rizzo 2013; credit: Efron 1982",
    )
    distance = "energy"

    def __init__(self, options: PopulationOptions) -> None:
        super().__init__(options)
        self._of_real: dict[Condition, float] = {}

    def _forget(self) -> None:
        self._of_real.clear()

    def _without_each(
        self, condition: Condition, real: FloatArray, generated: FloatArray
    ) -> LeaveOneOut:
        if condition not in self._of_real:
            self._of_real[condition] = mean_distance(real)
        return energy_without_each(real, generated, within_real=self._of_real[condition])


class WassersteinOptions(PopulationOptions):
    """Which vectors, and which power of their distance."""

    order: Literal[1, 2] = Field(2, description="W1 moves mean distance, W2 its root mean square")


class WassersteinReward(PopulationReward):
    """`PopulationReward` with V = exact Wasserstein distance, in the unit of the vectors, >= 0.

    A transport problem a completion: about 2 s for 256 completions and 256 real cells.
    """

    info = RewardInfo(
        meaning="Brings the condition's completions nearer to its real cells (Wasserstein)",
        low=-math.inf,
        high=math.inf,
        baseline="about 0: a completion like its siblings",
        source="C2S-Scale 4.6.9; credit: Efron 1982",
    )
    Options = WassersteinOptions
    distance = "wasserstein"

    def __init__(self, options: WassersteinOptions) -> None:
        super().__init__(options)
        self._order = options.order

    def _without_each(
        self, condition: Condition, real: FloatArray, generated: FloatArray
    ) -> LeaveOneOut:
        return wasserstein_without_each(real, generated, order=self._order)


class ScfidOptions(PopulationOptions):
    """Which vectors, and how their covariance is estimated."""

    shrinkage: float = Field(
        0.0, ge=0.0, le=1.0, description="Share of the covariance replaced by a sphere"
    )


class ScfidReward(PopulationReward):
    """`PopulationReward` with V = scFID, in the squared unit of the vectors, >= 0.

    One real cell has no covariance: abstains.
    """

    info = RewardInfo(
        meaning="Brings the condition's completions nearer to its real cells (scFID)",
        low=-math.inf,
        high=math.inf,
        baseline="about 0: a completion like its siblings",
        source="C2S-Scale 4.6.9; credit: Efron 1982",
    )
    Options = ScfidOptions
    distance = "scfid"

    def __init__(self, options: ScfidOptions) -> None:
        super().__init__(options)
        self._shrinkage = options.shrinkage

    def _can_compare(self, real: FloatArray) -> bool:
        return len(real) >= 2

    def _without_each(
        self, condition: Condition, real: FloatArray, generated: FloatArray
    ) -> LeaveOneOut:
        return scfid_without_each(real, generated, shrinkage=self._shrinkage)
