"""Activity of a gene program in a completion, by ssGSEA."""

from enum import StrEnum

import numpy as np
from pydantic import Field

from c2s_rl.cells.programs import load_program, program_indices
from c2s_rl.config import FrozenConfig
from c2s_rl.evaluation.program import ssgsea
from c2s_rl.evaluation.rank import DoubleArray
from c2s_rl.types import Group, IntArray
from rewards.base import RewardBatch, RewardResult, RewardScope
from rewards.info import RewardInfo


class ActivityGoal(StrEnum):
    """What is rewarded."""

    MATCH = "match"
    """An activity near the reference's."""
    REACH = "reach"
    """An activity at least as high as the reference's; more earns nothing."""
    RAISE = "raise"
    """A high activity, without a reference."""


class ActivityReference(StrEnum):
    """Whose activity is the goal."""

    TARGET = "target"
    """The prompt's own target."""
    CONDITION = "condition"
    """The mean of the condition's real cells on the prompt's side of the split."""


class SsgseaOptions(FrozenConfig):
    """Which program, and what its activity should be."""

    program: str = Field(
        description="Shipped gene program, or 'file.gmt:SET_NAME'",
        examples=["hallmark_interferon_alpha_response"],
    )
    goal: ActivityGoal = Field(
        ActivityGoal.MATCH, description="match the reference, reach it, or raise the activity"
    )
    reference: ActivityReference = Field(
        ActivityReference.TARGET,
        description="target: the prompt's; condition: the mean of its real cells",
    )
    num_genes: int = Field(
        ge=1,
        description="Cut answers and real cells to so many genes: the sentences' length",
        examples=[100],
    )


class SsgseaReward:
    """Compares the ssGSEA activity s of a program with that of a reference, s_ref.

    match: reward = -|s - s_ref|, in [-2, 0]; reach: min(0, s - s_ref), in [-2, 0];
    raise: s, in [-1, 1]. s is `evaluation.program.ssgsea` with weight 0 over all genes of the
    vocabulary, 1 = the program's genes stand first; genes that are not named share the last place.
    A prompt whose target holds no gene, or (reference `condition`) without real cells, abstains.

    Diagnostics: s and s_ref (raise: s_ref = s).

    Source: C2S-Scale 4.8 (gseapy, `sample_norm_method='rank'`, `weight=0`).
    """

    info = RewardInfo(
        meaning="The program is as active as in the target, or at least so, or very",
        low=-2.0,
        high=1.0,
        baseline="answer without a gene of the program: minus the target's activity, less about 0",
        source="C2S-Scale 4.8; Barbie et al. 2009",
    )
    scope = RewardScope.GROUP
    Options = SsgseaOptions

    def __init__(self, options: SsgseaOptions) -> None:
        self._options = options
        self._program = load_program(options.program)

    def score(self, batch: RewardBatch) -> RewardResult:
        """Score every completion; see the class for the formula."""
        program_M = program_indices(self._program, batch.vocabulary)
        generated = [cell.genes_K for group in batch.groups for cell in group.cells_G]
        references = [self._reference_cells(group, batch) for group in batch.groups]
        # One call for all cells: gseapy costs some 20 ms however few they are.
        activity = self._activities(
            generated + [cell for cells in references for cell in cells],
            program_M,
            len(batch.vocabulary),
        )
        scores: list[float | None] = []
        wanted: list[float] = []
        start = len(generated)
        for group, cells in zip(batch.groups, references, strict=True):
            goal = activity[start : start + len(cells)]
            start += len(cells)
            own_G = activity[len(scores) : len(scores) + len(group.cells_G)]
            scores += self._rewards(own_G, goal, group)
            wanted += [float(goal.mean())] * len(own_G) if len(goal) else own_G.tolist()
        return RewardResult(
            tuple(scores),
            {"activity": tuple(activity[: len(generated)].tolist()), "wanted": tuple(wanted)},
        )

    def _rewards(self, own_G: DoubleArray, goal: DoubleArray, group: Group) -> list[float | None]:
        if not len(group.record.target_genes_K):
            return [None] * len(own_G)
        if self._options.goal is ActivityGoal.RAISE:
            return [float(s) for s in own_G]
        if not len(goal):
            return [None] * len(own_G)
        missing_G = own_G - goal.mean()
        if self._options.goal is ActivityGoal.REACH:
            return [float(m) for m in np.minimum(missing_G, 0.0)]
        return [-float(m) for m in np.abs(missing_G)]

    def _reference_cells(self, group: Group, batch: RewardBatch) -> list[IntArray]:
        """Cells whose mean activity is the goal."""
        if self._options.goal is ActivityGoal.RAISE:
            return []
        if self._options.reference is ActivityReference.CONDITION:
            return batch.material.reference.treated(group.record)
        target_K = group.record.target_genes_K
        return [target_K] if len(target_K) else []

    def _activities(
        self, cells: list[IntArray], program_M: IntArray, num_vocabulary: int
    ) -> DoubleArray:
        """[C] ssGSEA of cells given as rankings."""
        values = np.zeros((len(cells), num_vocabulary))
        for row, genes_K in zip(values, cells, strict=True):
            cut_K = genes_K[: self._options.num_genes]
            # Only the order counts, so places from the end do for expression.
            row[cut_K] = np.arange(len(cut_K), 0, -1)
        return ssgsea(values, program_M)
