"""The primary metric per tier and condition: policies between null baselines and ceiling."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from c2s_rl.evaluation.bootstrap import Interval
from c2s_rl.evaluation.metrics import METRICS
from c2s_rl.evaluation.plots import (
    REAL_COLOUR,
    Picture,
    colours_of,
    light_grid,
    marks_of,
    style,
    to_svg,
)
from c2s_rl.evaluation.result import PRIMARY, Evaluation, MethodKind, MethodResult

MAX_ROWS = 40  # more would not fit a page; the per-condition table has them all
ALL = "All conditions"
# None is among the policies' marks.
REFERENCE_MARKS = ("|", "x", "+", "<", ">", "1", "2")


class RowKind(StrEnum):
    """What a row of the picture is the mean of."""

    ALL = "all"
    TIER = "tier"
    CONDITION = "condition"


@dataclass(frozen=True)
class Row:
    """One row."""

    kind: RowKind
    name: str


def forest(evaluation: Evaluation) -> Picture:
    """Draw one row for all conditions, one a tier and one a condition, policies with intervals."""
    tiers = [Row(RowKind.TIER, name) for name in evaluation.tiers]
    first = [Row(RowKind.ALL, ALL), *(tiers if len(tiers) > 1 else [])]
    rows = [*first, *(Row(RowKind.CONDITION, name) for name in _conditions(evaluation))]
    with mpl.rc_context(style()):
        figure = Figure(figsize=(9.5, 1.3 + 0.42 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        for method in evaluation.present:
            _draw_method(axes, method, rows, evaluation)
        axes.set_yticks(range(len(rows)), [_row_label(row, evaluation) for row in rows])
        for label in axes.get_yticklabels()[: len(first)]:
            label.set_fontweight("bold")
        axes.set_ylim(len(rows) - 0.5, -0.5)
        if len(rows) > len(first):
            axes.axhline(len(first) - 0.5, color=REAL_COLOUR, linewidth=0.8)
        axes.axvline(0, color=REAL_COLOUR, linewidth=0.8, linestyle=":")
        axes.set_xlabel(f"{METRICS[PRIMARY].label} (-1 reversed, 0 unrelated, 1 same order)")
        light_grid(axes, "x")
        figure.legend(loc="outside upper left", ncols=4, fontsize=8.5)
        return Picture(to_svg(figure), _caption(evaluation, len(rows) - len(first)))


def _conditions(evaluation: Evaluation) -> list[str]:
    """Conditions by the policies' difference, largest gain first; by name without one."""
    names = sorted(evaluation.conditions)
    if evaluation.difference is not None:
        gains = evaluation.difference.per_condition
        names.sort(key=lambda name: -(gains[name][PRIMARY].mean or 0.0))
    return names[:MAX_ROWS]


def _row_label(row: Row, evaluation: Evaluation) -> str:
    numbers = {
        RowKind.ALL: {ALL: evaluation.num_prompts},
        RowKind.TIER: evaluation.tiers,
        RowKind.CONDITION: evaluation.conditions,
    }[row.kind]
    short = row.name if len(row.name) <= 44 else f"{row.name[:43]}…"
    return f"{short} ({numbers[row.name]})"


def _draw_method(axes: Axes, method: MethodResult, rows: list[Row], evaluation: Evaluation) -> None:
    policies = [m.name for m in evaluation.methods if m.kind is MethodKind.POLICY]
    intervals = [_interval(method, row) for row in rows]
    if method.kind is MethodKind.POLICY:
        place = policies.index(method.name)
        # Policies of a row stand below each other, around its middle.
        offset = 0.26 * (place - (len(policies) - 1) / 2)
        _draw_policy(
            axes,
            intervals,
            offset,
            {"color": colours_of(policies)[method.name], "marker": marks_of(policies)[method.name]},
            method.name,
        )
        return
    others = [m.name for m in evaluation.methods if m.kind is not MethodKind.POLICY]
    mark = REFERENCE_MARKS[others.index(method.name) % len(REFERENCE_MARKS)]
    points = [(i.mean, y) for y, i in enumerate(intervals) if i is not None and i.mean is not None]
    axes.scatter(
        [x for x, _ in points],
        [y for _, y in points],
        marker=mark,
        color=REAL_COLOUR,
        s=46,
        linewidths=1.4,
        label=method.name,
    )


def _draw_policy(
    axes: Axes,
    intervals: list[Interval | None],
    offset: float,
    look: Mapping[str, str],
    name: str,
) -> None:
    label = name
    for y, interval in enumerate(intervals):
        if interval is None or interval.mean is None:
            continue
        low = interval.mean if interval.low is None else interval.low
        high = interval.mean if interval.high is None else interval.high
        axes.plot([low, high], [y + offset] * 2, color=look["color"], linewidth=2)
        axes.plot(
            [interval.mean],
            [y + offset],
            color=look["color"],
            marker=look["marker"],
            markersize=6,
            linestyle="",
            label=label,
        )
        label = "_nolegend_"


def _interval(method: MethodResult, row: Row) -> Interval | None:
    source = {
        RowKind.ALL: {ALL: method.metrics},
        RowKind.TIER: method.per_tier,
        RowKind.CONDITION: method.per_condition,
    }[row.kind]
    return source.get(row.name, {}).get(PRIMARY)


def _caption(evaluation: Evaluation, num_rows: int) -> str:
    more = len(evaluation.conditions) - num_rows
    cut = f" {more} further conditions are in the table below." if more else ""
    return (
        f"{METRICS[PRIMARY].label.capitalize()} on held-out prompts, in brackets their number. "
        "Coloured marks with bars: policies with 95 % bootstrap intervals. Grey marks: null "
        "baselines, and what real cells reach." + cut
    )
