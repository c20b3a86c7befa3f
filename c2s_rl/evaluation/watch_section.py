"""The report's part on what was watched beside the metrics: held-out prompts by step, and probes.

Numbers become rows of text here; `templates/watch.html` lays them out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from c2s_rl.evaluation.bootstrap import Interval
from c2s_rl.evaluation.held_out_plot import held_out_curves
from c2s_rl.evaluation.learning_curve import (
    Best,
    CurvePoint,
    ProbeValue,
    finite,
    is_reward,
    metric_label,
)
from c2s_rl.evaluation.methods import REAL_CELL, Drawing, ceilings
from c2s_rl.evaluation.metrics import Metric
from c2s_rl.evaluation.plots import Picture
from c2s_rl.evaluation.probe_drift import ProbeRow, probe_rows
from c2s_rl.evaluation.probes import Probe, ProbeRuler, mean_of, probe_answers, probe_groups
from c2s_rl.evaluation.real_cells import RealCells
from c2s_rl.evaluation.result import ABSENT, format_range, format_value
from c2s_rl.types import Group


@dataclass(frozen=True)
class StepRow:
    """One condition of the table by step."""

    condition: str
    cells: tuple[tuple[str, str], ...]
    """A step each: mean, and the ends of its interval or ''."""


@dataclass(frozen=True)
class WatchSection:
    """What the template shows."""

    picture: Picture | None
    """Curves of held-out prompts; None where the run was not evaluated during training."""
    best: str
    """Which step was the best, in a sentence; '' without curves."""
    metric: str
    """Name of the metric of the table by step."""
    steps: tuple[str, ...]
    """Its headings."""
    step_rows: tuple[StepRow, ...]
    """All conditions together, then each."""
    policies: tuple[str, ...]
    """Headings of the table of probes."""
    probes: tuple[ProbeRow, ...]
    """Its rows."""

    @property
    def warnings(self) -> list[str]:
        """What probes say against the last policy."""
        return [row.warning for row in self.probes if row.warning]


def watch_section(
    points: Sequence[CurvePoint],
    best: Best | None,
    probes: Mapping[str, Mapping[Probe, ProbeValue]],
    *,
    num_shared: int = 0,
) -> WatchSection:
    """Put the section together.

    Args:
        points: Evaluations during training, by step; empty where there were none.
        best: The best of them.
        probes: Policy to its probes, the starting policy first.
        num_shared: Prompts of the report's result that are of the part which chose the best.
    """
    shown = _shown(points, best)
    metric = best.metric if best else Metric.PROGRAM_TAU.value
    conditions = sorted({name for point in shown.values() for name in point.per_condition})
    rows = [StepRow("All conditions", _cells(metric, [p.metrics for p in shown.values()]))]
    rows += [
        StepRow(name, _cells(metric, [p.per_condition.get(name, {}) for p in shown.values()]))
        for name in conditions
    ]
    return WatchSection(
        picture=held_out_curves(points, best),
        best=_best_sentence(points, best, num_shared),
        metric=metric_label(metric),
        steps=tuple(shown),
        step_rows=tuple(rows) if shown else (),
        policies=tuple(probes),
        probes=tuple(probe_rows(list(probes.values()))),
    )


def policy_probes(
    groups_by_policy: Mapping[str, Sequence[Group]],
    real: RealCells,
    ruler: ProbeRuler,
    *,
    seed: int,
) -> dict[str, dict[Probe, ProbeValue]]:
    """Measure the probes of policies that answered the same prompts, beside real cells.

    Args:
        groups_by_policy: Policy to its groups, all in one order of prompts.
        real: Where other real cells of the prompts' conditions are.
        ruler: What to measure with.
        seed: Of the draw of real cells.
    """
    first = next(iter(groups_by_policy.values()))
    records = [group.record for group in first]
    drawing = Drawing(ruler.num_genes, len(first[0].cells_G), seed)
    by_name = {method.name: method for method in ceilings(records, real, drawing)}
    cells = probe_answers(by_name[REAL_CELL].answers_P, records, ruler)
    theirs = finite({probe: mean_of(values) for probe, values in cells.items()})
    return {
        name: {
            probe: ProbeValue(answers=value, real=theirs.get(probe))
            for probe, value in finite(
                {probe: mean_of(values) for probe, values in probe_groups(groups, ruler).items()}
            ).items()
        }
        for name, groups in groups_by_policy.items()
    }


def _shown(points: Sequence[CurvePoint], best: Best | None) -> dict[str, CurvePoint]:
    """First, best and last point by their headings; one that is two of them is shown once."""
    if not points:
        return {}
    first, last = points[0], points[-1]
    kept = best.point if best else first
    roles = {first.step: ["start"]}
    roles.setdefault(kept.step, []).append("best")
    roles.setdefault(last.step, []).append("last")
    by_step = {first.step: first, kept.step: kept, last.step: last}
    return {f"step {step} ({', '.join(roles[step])})": by_step[step] for step in sorted(by_step)}


def _cells(metric: str, sources: Sequence[Mapping[str, Interval]]) -> tuple[tuple[str, str], ...]:
    return tuple(_cell(metric, source.get(metric)) for source in sources)


def _cell(metric: str, interval: Interval | None) -> tuple[str, str]:
    if interval is None or interval.mean is None:
        return ABSENT, ""
    # a reward has no unit of its own: three digits, as tau
    known = Metric.PROGRAM_TAU if is_reward(metric) else Metric(metric)
    return format_value(known, interval.mean), format_range(known, interval)


def _best_sentence(points: Sequence[CurvePoint], best: Best | None, num_shared: int) -> str:
    if not points or best is None:
        return ""
    point, start, last = best.point, points[0], points[-1]
    label = metric_label(best.metric)
    value, _ = _cell(best.metric, point.metrics.get(best.metric))
    others = [
        f"{_cell(best.metric, other.metrics.get(best.metric))[0]} after step {other.step}"
        for other in (start, last)
        if other.step != point.step
    ]
    beside = f", against {' and '.join(others)}" if others else ""
    consequence = (
        f"{num_shared} prompts of the result above are of the part that picked, so that one may be "
        "too good as well"
        if num_shared
        else "the result above is not, for its prompts had no part in picking"
    )
    return (
        f"Best {label} on the {point.num_prompts} validation prompts: {value} after step "
        f"{point.step}{beside}. One of {len(points)} evaluations was picked, so this number is "
        f"too good; {consequence}."
    )
