"""Evaluation during training: held-out prompts at step 0, N, 2N, ..., and the best policy so far.

The run's own rollout workers answer, with the same seeds every time, so that two evaluations differ
by the weights alone; the run's rewards score the answers beside the cell metrics. A synchronous
run ends in the same policy, bit by bit, as it would without: the prompts are answered between two
steps, when nothing else is being sampled, and share no cached prefix with training. In an
asynchronous run they are sampled beside what runs ahead, all by the weights of the coming step,
which are loaded first; no other weights come before they are finished, so the learner waits.

Points go to `held_out.jsonl` and TensorBoard, the best policy by a named metric to `best/policy`
with `best.json`. A killed run repeats the evaluations after its last checkpoint and no others; a
policy that was kept as the best in between stays. Left out: population metrics and baselines, which
belong to the stage `evaluate`.

Shape suffix: P prompts.
"""

import logging
import time
from collections.abc import Mapping, Sequence

import numpy as np

from c2s_rl.checkpoint import atomic_folder
from c2s_rl.errors import ConfigError
from c2s_rl.evaluation.bootstrap import Interval
from c2s_rl.evaluation.learning_curve import (
    BEST,
    BEST_FILE,
    CURVE,
    REWARD,
    REWARD_PREFIX,
    Best,
    CurvePoint,
    ProbeValue,
    finite,
    is_better,
    metric_label,
    read_best,
    read_curve,
    write_curve,
)
from c2s_rl.evaluation.methods import policy_method
from c2s_rl.evaluation.probes import mean_of, probe_answers, probe_groups
from c2s_rl.evaluation.rank import DoubleArray
from c2s_rl.evaluation.summary import Resampling, score_methods, summarise
from c2s_rl.grpo.roles import Learner
from c2s_rl.pipeline.align_loop import AlignLoop
from c2s_rl.pipeline.group_stream import Outcome
from c2s_rl.pipeline.held_out import HeldOut
from c2s_rl.runlog import RunLog

logger = logging.getLogger(__name__)


class HeldOutWatch:
    """Evaluates a run between its steps, and keeps the best policy."""

    def __init__(
        self, held_out: HeldOut, learner: Learner, log: RunLog, *, loop: AlignLoop, num_steps: int
    ) -> None:
        """Go on from what an earlier, killed session of the run left.

        Args:
            held_out: What is asked.
            learner: Whose policy it is.
            log: Where TensorBoard's scalars go.
            loop: At the step that the run goes on from; later points are made again.
            num_steps: Of the run; the policy after the last one is evaluated too.
        """
        self._held_out = held_out
        self._learner = learner
        self._log = log
        self._loop = loop
        self._num_steps = num_steps
        self._path = loop.output / CURVE
        self._best_folder = loop.output / BEST
        self._points = [p for p in read_curve(self._path) if p.step <= loop.step]
        write_curve(self._path, self._points)
        for point in self._points:
            if point.step == loop.step:  # TensorBoard drops what is not older than the checkpoint
                self._log.mirror(point.step, board_figures(point, held_out.config.metric))

    def visit(self) -> CurvePoint | None:
        """Evaluate the policy as it is now, if it is time to and it was not done yet.

        For use between two steps, and after the last one.

        Raises:
            ConfigError: If the metric that chooses has no value on these prompts.
        """
        step, config = self._loop.step, self._held_out.config
        is_done = any(point.step == step for point in self._points)
        if is_done or not (step == self._num_steps or step % config.every == 0):
            return None
        start = time.perf_counter()
        with self._loop.aside():
            outcomes = self._loop.answer(self._held_out.requests())
            point = score(self._held_out, outcomes, step, seconds=time.perf_counter() - start)
            if point.value(config.metric) is None:
                raise ConfigError(
                    f"align.evaluation.metric must have a value on the {point.num_prompts} "
                    f"validation prompts, got none for {config.metric!r} at step {step}"
                )
            is_best = self._keep_if_best(point)
        self._points.append(point)
        write_curve(self._path, self._points)
        self._log.mirror(step, board_figures(point, config.metric))
        interval = point.metrics[config.metric]
        ends = "" if interval.low is None else f" ({interval.low:.3f} to {interval.high:.3f})"
        logger.info(
            "step %d: held-out %s %.3f%s%s, %.1f s",
            step,
            metric_label(config.metric),
            interval.mean,
            ends,
            ", the best so far" if is_best else "",
            point.seconds,
        )
        return point

    def _keep_if_best(self, point: CurvePoint) -> bool:
        """Save the policy where it is better than the one kept; on equality the earlier stays."""
        metric = self._held_out.config.metric
        value, former = point.value(metric), read_best(self._best_folder)
        assert value is not None, "checked by the caller"
        if former is not None and former.metric == metric:
            kept = former.point.value(metric)
            if kept is not None and not is_better(metric, value, kept):
                return False
        with atomic_folder(self._best_folder) as folder:
            self._learner.save_policy(folder)
            text = Best(metric=metric, point=point).model_dump_json(indent=1)
            (folder / BEST_FILE).write_text(text + "\n", encoding="utf-8")
        return True


def score(
    held_out: HeldOut, outcomes: Sequence[Outcome], step: int, *, seconds: float
) -> CurvePoint:
    """Turn the answers of one evaluation into a point of the curve.

    Args:
        held_out: Prompts and what they are measured with.
        outcomes: [P] answers with their rewards, in the order of the prompts.
        step: Optimiser steps behind the policy.
        seconds: What it took.
    """
    groups = [outcome.group for outcome in outcomes]
    records_P = held_out.records_P
    conditions_P = [record.condition for record in records_P]
    resampling = Resampling(held_out.config.bootstrap_draws, held_out.seed)
    metrics: dict[str, Interval] = {}
    per_condition: dict[str, dict[str, Interval]] = {name: {} for name in sorted(set(conditions_P))}
    if held_out.yardstick is not None:
        method = policy_method("policy", groups)
        (scored,) = score_methods([method], records_P, held_out.yardstick).values()
        result = summarise(scored, records_P, resampling)
        metrics |= _with_values(result.metrics)
        for condition, intervals in result.per_condition.items():
            per_condition[condition] |= _with_values(intervals)
    for name, values_P in reward_values(outcomes).items():
        everyone = np.arange(len(records_P))
        metrics |= _with_values({name: resampling.interval(values_P, conditions_P, everyone)})
        for condition in per_condition:
            rows = np.flatnonzero(np.array(conditions_P) == condition)
            part = resampling.interval(values_P, conditions_P, rows)
            per_condition[condition] |= _with_values({name: part})
    return CurvePoint(
        step=step,
        metrics=metrics,
        per_condition=per_condition,
        probes=_probes(held_out, outcomes),
        num_prompts=len(records_P),
        num_answers=sum(len(group.cells_G) for group in groups),
        num_failed=sum(outcome.scored is None for outcome in outcomes),
        seconds=seconds,
    )


def reward_values(outcomes: Sequence[Outcome]) -> dict[str, DoubleArray]:
    """Mean reward of each prompt's answers: the weighted total, and each reward where it is unlike.

    Returns:
        'reward' and 'reward/<name>' to [P]; nan where the reward failed or abstained.
    """
    names = dict.fromkeys(
        name for o in outcomes if o.scored is not None for name in o.scored.components
    )
    values = {REWARD: np.full(len(outcomes), np.nan)}
    values |= {f"{REWARD_PREFIX}{name}": np.full(len(outcomes), np.nan) for name in names}
    for p, outcome in enumerate(outcomes):
        if outcome.scored is None:
            continue
        values[REWARD][p] = _mean(outcome.scored.rewards_G)
        for name, scores_G in outcome.scored.components.items():
            values[f"{REWARD_PREFIX}{name}"][p] = _mean(scores_G)
    return values


def board_figures(point: CurvePoint, metric: str) -> dict[str, float]:
    """TensorBoard's scalars of a point: metrics, the chosen one's ends and conditions, probes."""
    figures = {
        f"held_out/{name}": interval.mean
        for name, interval in point.metrics.items()
        if interval.mean is not None
    }
    chosen = point.metrics[metric]
    for end, value in (("low", chosen.low), ("high", chosen.high)):
        if value is not None:
            figures[f"held_out/{metric}_{end}"] = value
    for condition, intervals in point.per_condition.items():
        mean = intervals[metric].mean if metric in intervals else None
        if mean is not None:
            figures[f"held_out_by_condition/{condition}"] = mean
    for probe, values in point.probes.items():
        if values.answers is not None:
            figures[f"held_out_probe/{probe}"] = values.answers
        if values.real is not None:
            figures[f"held_out_probe/{probe}_real_cells"] = values.real
    return figures


def _with_values(intervals: Mapping[str, Interval]) -> dict[str, Interval]:
    return {
        str(name): interval for name, interval in intervals.items() if interval.mean is not None
    }


def _probes(held_out: HeldOut, outcomes: Sequence[Outcome]) -> dict[str, ProbeValue]:
    answers = probe_groups([outcome.group for outcome in outcomes], held_out.ruler)
    real = probe_answers(held_out.real_P, held_out.records_P, held_out.ruler)
    ours = finite({probe: mean_of(values_P) for probe, values_P in answers.items()})
    theirs = finite({probe: mean_of(values_P) for probe, values_P in real.items()})
    return {p: ProbeValue(answers=value, real=theirs.get(p)) for p, value in ours.items()}


def _mean(scores: Sequence[float | None]) -> float:
    given = [score for score in scores if score is not None]
    return float(np.mean(given)) if given else float("nan")
