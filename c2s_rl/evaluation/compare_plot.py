"""Runs side by side as a picture: a panel a metric, both policies of each run with their ends.

After Fig. 8G of the C2S-Scale paper, as points instead of bars: any number of runs fits, and an
axis need not start at 0.
"""

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from c2s_rl.evaluation.compare import Comparison, Gain, Spread, is_gain_good
from c2s_rl.evaluation.compare_table import DIRECTION, heading, policy_names, write_percent
from c2s_rl.evaluation.metrics import MetricInfo
from c2s_rl.evaluation.plots import (
    POLICY_COLOURS,
    POLICY_MARKS,
    REAL_COLOUR,
    Picture,
    light_grid,
    style,
    to_svg,
)
from c2s_rl.evaluation.result import ABSENT

NUM_COLUMNS = 3
MAX_LABEL = 34
# Dark enough for text on white; of the report's differences.
GOOD, BAD = "#00593f", "#8a3300"
# Policies of a run stand above each other, around its line.
OFFSET = 0.17


def gain_picture(comparison: Comparison) -> Picture | None:
    """Draw the headline metrics of a comparison; None where no run has any of them."""
    metrics = [
        metric
        for metric in comparison.headline
        if any(group.gain(metric) is not None for group in comparison.groups)
    ]
    if not metrics:
        return None
    num_groups = len(comparison.groups)
    with mpl.rc_context(style()):
        num_columns = min(NUM_COLUMNS, len(metrics))
        num_rows = -(-len(metrics) // num_columns)
        size = (2.2 + 3.1 * num_columns, num_rows * (1.3 + 0.55 * num_groups))
        figure = Figure(figsize=size, layout="constrained")
        for index, metric in enumerate(metrics):
            axes = figure.add_subplot(num_rows, num_columns, index + 1)
            _draw_metric(axes, metric, comparison, has_labels=index % num_columns == 0)
        handles, labels = _legend(figure)
        figure.legend(handles, labels, loc="outside upper left", ncols=2, fontsize=9)
        return Picture(to_svg(figure), _caption(comparison))


def _draw_metric(axes: Axes, metric: str, comparison: Comparison, *, has_labels: bool) -> None:
    info = comparison.info[metric]
    scale = 100 if info.is_share else 1
    names = policy_names(comparison)
    for y, group in enumerate(comparison.groups):
        gain = group.gain(metric)
        if gain is None:
            _write_beside(axes, y, ABSENT, REAL_COLOUR)
            continue
        for policy, spread in enumerate((gain.baseline, gain.candidate)):
            _draw_spread(axes, y + OFFSET * (2 * policy - 1), spread, scale, policy, names[policy])
        _write_gain(axes, y, info, gain)
    direction = DIRECTION[info.better]
    title = heading(info.label).replace(", ", ",\n", 1)
    axes.set_title(f"{title}\n{direction}" if direction else title)
    if info.is_share:
        axes.set_xlabel("%")
    labels = [_short(group.label) for group in comparison.groups]
    axes.set_yticks(range(len(labels)), labels if has_labels else [""] * len(labels))
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.margins(x=0.1)
    light_grid(axes, "x")


def _draw_spread(
    axes: Axes, y: float, spread: Spread, scale: float, policy: int, name: str
) -> None:
    colour = POLICY_COLOURS[policy]
    if spread.low is not None and spread.high is not None:
        axes.plot([scale * spread.low, scale * spread.high], [y, y], color=colour, linewidth=2)
    if len(spread.values) > 1:
        axes.plot(
            [scale * value for value in spread.values],
            [y] * len(spread.values),
            color=colour,
            marker="|",
            markersize=9,
            linestyle="",
        )
    axes.plot(
        [scale * spread.mean],
        [y],
        color=colour,
        marker=POLICY_MARKS[policy],
        markersize=6,
        linestyle="",
        label=name,
    )


def _write_gain(axes: Axes, y: float, info: MetricInfo, gain: Gain) -> None:
    if gain.percent is None:
        _write_beside(axes, y, ABSENT, REAL_COLOUR)
        return
    low, high = gain.difference.low, gain.difference.high
    is_sure = low is not None and high is not None and not low <= 0 <= high
    is_good = is_gain_good(info, gain.difference.mean)
    colour = REAL_COLOUR if is_good is None or not is_sure else GOOD if is_good else BAD
    _write_beside(axes, y, write_percent(gain.percent), colour)


def _write_beside(axes: Axes, y: float, text: str, colour: str) -> None:
    axes.text(
        1.02,
        y,
        text,
        transform=axes.get_yaxis_transform(),
        color=colour,
        verticalalignment="center",
        fontweight="bold",
    )


def _legend(figure: Figure) -> tuple[list[mpl.artist.Artist], list[str]]:
    """One handle a policy, whichever panel has it first."""
    found: dict[str, mpl.artist.Artist] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    return list(found.values()), list(found)


def _short(label: str) -> str:
    return label if len(label) <= MAX_LABEL else f"{label[: MAX_LABEL - 1]}…"


def _caption(comparison: Comparison) -> str:
    caption = (
        "Held-out prompts. Marks with bars: mean and 95 % bootstrap interval over prompts. At the "
        "right: the gain in percent; grey where its paired interval, or its range, holds 0."
    )
    if all(len(group.runs) == 1 for group in comparison.groups):
        return caption
    return (
        f"{caption} Where runs differ by seed alone: their mean, with a bar from the lowest to the "
        "highest and a stroke a run."
    )
