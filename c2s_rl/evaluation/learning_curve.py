"""Evaluations during training as data: one point a line of held_out.jsonl, and the best of them.

Everything that the report draws and says about held-out prompts during training is read from here;
nothing is computed. Who makes the points is in `c2s_rl/pipeline/held_out.py`.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from c2s_rl.checkpoint import replace_text
from c2s_rl.errors import DataError
from c2s_rl.evaluation.bootstrap import Interval
from c2s_rl.evaluation.metrics import METRICS, Better, Metric
from c2s_rl.evaluation.probes import Probe

CURVE = "held_out.jsonl"
BEST = "best"  # folder with policy/ and best.json
BEST_FILE = "best.json"
# Beside the cell metrics a point may hold the run's rewards: their weighted total, and each alone.
REWARD = "reward"
REWARD_PREFIX = "reward/"

log = logging.getLogger(__name__)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Checkpoint(StrEnum):
    """Which policy of an alignment."""

    LAST = "last"
    """After its last step."""
    BEST = "best"
    """The best on validation prompts, by `align.evaluation.metric`."""


class ProbeValue(_Frozen):
    """A probe for reward hacking, beside what real cells have."""

    answers: float | None = Field(description="Mean over the prompts; null where none has a value.")
    real: float | None = Field(description="The same of real cells of the prompts' conditions.")


class CurvePoint(_Frozen):
    """What one evaluation during training found."""

    step: int = Field(description="Optimiser steps behind the policy; 0 is where GRPO starts.")
    metrics: dict[str, Interval] = Field(
        description="Cell metrics, 'reward', 'reward/<name>': mean over conditions, 95 % interval."
    )
    per_condition: dict[str, dict[str, Interval]] = Field(description="The same within each.")
    probes: dict[Probe, ProbeValue] = Field(description="Signs of reward hacking.")
    num_prompts: int = Field(description="Validation prompts answered.")
    num_answers: int = Field(description="Answers to all of them.")
    num_failed: int = Field(description="Answers whose reward failed; their cell metrics count.")
    seconds: float = Field(description="Sampling and scoring.")

    def value(self, metric: str) -> float | None:
        """Mean of a metric; None where it has no value."""
        interval = self.metrics.get(metric)
        return None if interval is None else interval.mean


class Best(_Frozen):
    """The best point so far: the content of best.json, beside the policy that it is about."""

    metric: str = Field(description="What it is the best by.")
    point: CurvePoint = Field(description="All that its evaluation found.")


def is_directed(metric: str) -> bool:
    """Whether a metric of the curve can choose: one way of it is better."""
    return is_reward(metric) or METRICS[Metric(metric)].better is not Better.NEITHER


def is_higher_better(metric: str) -> bool:
    """Whether larger values of a metric of the curve are better; rewards are maximised.

    Raises:
        ValueError: If no direction of it is better, or it is unknown.
    """
    if not is_directed(metric):
        raise ValueError(f"a metric that chooses must have a better direction, got {metric!r}")
    return is_reward(metric) or METRICS[Metric(metric)].better is Better.HIGHER


def is_reward(metric: str) -> bool:
    """Whether a metric of the curve is one of the run's rewards."""
    return metric == REWARD or metric.startswith(REWARD_PREFIX)


def metric_label(metric: str) -> str:
    """Short name for tables and axes."""
    if is_reward(metric):
        return metric.replace(REWARD_PREFIX, "reward ")
    return METRICS[Metric(metric)].label


def is_better(metric: str, value: float, than: float) -> bool:
    """Whether one value of a metric is strictly better than another."""
    return value > than if is_higher_better(metric) else value < than


def read_curve(path: Path) -> tuple[CurvePoint, ...]:
    """Read held_out.jsonl; a last line without its line break was cut by a kill and is dropped.

    Args:
        path: The file; a missing one has no points.

    Raises:
        DataError: If any other line is no point; names the line.
    """
    if not path.is_file():
        return ()
    *lines, rest = path.read_text(encoding="utf-8").split("\n")
    if rest:
        log.warning("dropped the unfinished last line of %s", path)
    points: list[CurvePoint] = []
    for number, line in enumerate(lines, start=1):
        try:
            points.append(CurvePoint.model_validate_json(line))
        except ValidationError as error:
            raise DataError(
                f"a line must be an evaluation during training, got {_first(error)} "
                f"in line {number} of {path}"
            ) from error
    return tuple(points)


def write_curve(path: Path, points: Sequence[CurvePoint]) -> None:
    """Replace held_out.jsonl by these points, in one move."""
    replace_text(path, "".join(p.model_dump_json() + "\n" for p in points))


def read_best(folder: Path) -> Best | None:
    """Read best.json of the folder that holds the best policy; None if there is none.

    Raises:
        DataError: If it is not of this form.
    """
    path = folder / BEST_FILE
    if not path.is_file():
        return None
    try:
        return Best.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        raise DataError(
            f"{BEST_FILE} must name the best step, got {_first(error)} in {path}"
        ) from (error)


def finite(values: Mapping[Probe, float]) -> dict[Probe, float | None]:
    """Values for JSON, which has no not-a-number."""
    return {probe: value if math.isfinite(value) else None for probe, value in values.items()}


def _first(error: ValidationError) -> str:
    detail = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in detail["loc"]) or "the whole line"
    return f"{detail['msg']!r} at {place}"
