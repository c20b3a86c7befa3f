"""Null-baseline calibration: the copied control scores 0, real cells of the condition score 1.

A raw score says little by itself: copying the control cell earns a Kendall's tau of 0.8 on some
data, and real cells do not reach 1. Here the same reward scores the control of every prompt and
real cells of its condition, in calls of their own: as further completions of the batch they would
change what a reward that looks at its whole group gives to the others. Each prompt is calibrated
once and remembered; the wrapper runs where the reward runs, in its process.

Left out: rewards of scope CONDITION, whose leave-one-out credit grows with the number of cells and
so has no scale to calibrate to; and held-out cells, for only the prompt's own side is looked at.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from pydantic import Field

from c2s_rl.cells.sentence import parse_cell, stable_hash, write_sentence
from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.config import FrozenConfig
from c2s_rl.errors import DataError
from c2s_rl.evaluation.material import Reference
from c2s_rl.types import Completion, Group, IntArray, PromptRecord
from rewards.base import Reward, RewardBatch, RewardResult, RewardScope
from rewards.calling import call_score
from rewards.checking import raise_failures, score_checked


class CalibrationConfig(FrozenConfig):
    """How a reward is calibrated."""

    ceiling_cells: int = Field(
        8, ge=1, description="Most real cells of the condition whose mean score is the ceiling"
    )
    min_gap: float = Field(
        1e-4,
        gt=0,
        description="Least ceiling - baseline, in the reward's unit; completions of a prompt with "
        "less abstain, for the reward cannot tell a real cell from the copied control there",
    )


@dataclass(frozen=True)
class Bounds:
    """What the raw scores 0 and 1 stand for in the answers to one prompt."""

    baseline: float
    """Score of the copied control."""
    ceiling: float
    """Mean score of real cells of the condition, without the prompt's own."""

    @property
    def gap(self) -> float:
        """Ceiling over baseline, in the reward's unit."""
        return self.ceiling - self.baseline


class CalibratedReward:
    """A reward between its null baseline and its ceiling.

    score = (raw - baseline) / (ceiling - baseline); above 1 is better than real cells are. A
    completion abstains where its prompt cannot be calibrated: too small a gap, no other real cell
    of the condition, or a reward that abstains on all of them; `uncalibrated` counts them.

    A reward that pairs its answers with the condition's real cells may pair a real cell with
    itself; with n cells and random pairs the ceiling is then too good by one part in n.
    """

    scope: ClassVar[RewardScope] = RewardScope.GROUP

    def __init__(self, reward: Reward, config: CalibrationConfig) -> None:
        """Wrap a reward of scope GROUP."""
        self._reward = reward
        self._config = config
        self._bounds: dict[str, Bounds | None] = {}

    def score(self, batch: RewardBatch) -> RewardResult:
        """Score every completion; see the class for the formula.

        Raises:
            DataError: If a prompt has no control cell, or the run no real cells.
            RewardError: If the reward fails on the control or on real cells.
        """
        raw = call_score(self._reward, batch)
        if not isinstance(raw, RewardResult) or len(raw.scores) != len(batch):
            return raw  # broken: whoever called finds out and says so
        self._calibrate(batch)
        bounds_B = [
            self._bounds[group.record.prompt_id] for group in batch.groups for _ in group.cells_G
        ]
        usable_B = [b if b and b.gap > self._config.min_gap else None for b in bounds_B]
        return RewardResult(
            tuple(_calibrated(*pair) for pair in zip(raw.scores, usable_B, strict=True)),
            {
                **raw.diagnostics,
                "uncalibrated": tuple(float(bounds is None) for bounds in usable_B),
                "baseline": tuple(b.baseline if b else math.nan for b in bounds_B),
                "gap": tuple(b.gap if b else math.nan for b in bounds_B),
            },
        )

    def _calibrate(self, batch: RewardBatch) -> None:
        """Find the bounds of the prompts that have none yet.

        Control and real cells are scored by calls of their own, so that the bounds of a prompt do
        not depend, not even in the last bit, on which prompts came together.
        """
        for group in batch.groups:
            name = group.record.prompt_id
            if name not in self._bounds:
                means = [self._mean(probe, batch) for probe in self._probes(group, batch)]
                known = [mean for mean in means if mean is not None]
                self._bounds[name] = Bounds(*known) if len(known) == 2 else None

    def _probes(self, group: Group, batch: RewardBatch) -> list[Group]:
        """Write the control as one answer to the prompt, and real cells as answers of another."""
        record = group.record
        if not len(record.context_genes_K):
            raise DataError(
                "calibration needs a control cell in the prompt, "
                f"got none in prompt {record.prompt_id!r}"
            )
        reference = batch.material.reference
        cells = self._siblings(record, reference, batch.material.seed)
        if not cells:
            return []
        control = record.context_genes_K[: reference.num_genes]
        return [_answers(group, part, batch.vocabulary) for part in ([control], cells)]

    def _siblings(self, record: PromptRecord, reference: Reference, seed: int) -> list[IntArray]:
        real = reference.real
        rows = sorted(
            real.sibling_rows(record),
            key=lambda row: stable_hash(
                f"calibrate|{record.prompt_id}|{real.cells.cell_ids[row]}", seed
            ),
        )
        chosen = rows[: self._config.ceiling_cells]
        return [real.cells.genes_of(row)[: reference.num_genes] for row in chosen]

    def _mean(self, probe: Group, batch: RewardBatch) -> float | None:
        """Mean score of a probe's answers; None where the reward abstains on all of them.

        Raises:
            RewardError: If the reward fails on one.
        """
        asked = RewardBatch((probe,), batch.vocabulary, batch.material)
        scores = raise_failures(score_checked(self._reward, asked, "in calibration")).scores
        given = [score for score in scores if score is not None]
        return math.fsum(given) / len(given) if given else None


def _answers(group: Group, cells: Sequence[IntArray], vocabulary: Vocabulary) -> Group:
    """Have cells answer a prompt, as text that is parsed like any other."""
    texts = [f" {write_sentence(genes_K, vocabulary)}" for genes_K in cells]
    return Group(
        group.record,
        group.prompt_token_ids,
        tuple(Completion(text, (), (), 0, is_truncated=False) for text in texts),
        tuple(parse_cell(text, vocabulary, is_truncated=False) for text in texts),
    )


def _calibrated(score: float | None, bounds: Bounds | None) -> float | None:
    if score is None or bounds is None:
        return None
    return (score - bounds.baseline) / bounds.gap
