"""Distances between generated and real populations: one panel a distance and embedding."""

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from c2s_rl.evaluation.distribution import DistributionMetric
from c2s_rl.evaluation.plots import (
    REAL_COLOUR,
    Picture,
    colours_of,
    light_grid,
    marks_of,
    style,
    to_svg,
)
from c2s_rl.evaluation.result import Evaluation, MethodKind, MethodResult

MAX_EMBEDDINGS = 4  # rows of panels; more would not fit a page, the table has them all


def population_panels(evaluation: Evaluation) -> Picture | None:
    """Draw every method's distances; None where no condition had enough cells."""
    metrics = [metric.value for metric in DistributionMetric]
    embeddings = list(
        dict.fromkeys(
            key.partition("/")[2]
            for key in evaluation.metric_info
            if key.partition("/")[0] in metrics
        )
    )[:MAX_EMBEDDINGS]
    methods = [
        method
        for method in evaluation.present
        if any(_mean(method, f"{metrics[0]}/{name}") is not None for name in embeddings)
    ]
    if not methods:
        return None
    with mpl.rc_context(style()):
        figure = Figure(
            figsize=(9.5, (0.8 + 0.24 * len(methods)) * len(embeddings) + 0.4),
            layout="constrained",
        )
        panels = figure.subplots(len(embeddings), len(metrics), squeeze=False, sharey=True)
        for row, embedding in zip(panels, embeddings, strict=True):
            for axes, metric in zip(row, metrics, strict=True):
                _draw_panel(axes, evaluation, methods, f"{metric}/{embedding}")
        return Picture(to_svg(figure), _caption(evaluation))


def _draw_panel(axes: Axes, evaluation: Evaluation, methods: list[MethodResult], key: str) -> None:
    policies = [m.name for m in methods if m.kind is MethodKind.POLICY]
    colours, marks = colours_of(policies), marks_of(policies)
    for y, method in enumerate(methods):
        interval = method.metrics.get(key)
        if interval is None or interval.mean is None:
            continue
        colour = colours.get(method.name, REAL_COLOUR)
        if interval.low is not None and interval.high is not None:
            axes.plot([interval.low, interval.high], [y, y], color=colour, linewidth=2)
        axes.plot([interval.mean], [y], color=colour, marker=marks.get(method.name, "|"))
        if method.kind is MethodKind.CEILING:
            axes.axvline(interval.mean, color=REAL_COLOUR, linewidth=0.8, linestyle="--")
    axes.axvline(0, color=REAL_COLOUR, linewidth=0.8, linestyle=":")
    axes.set_title(evaluation.metric_info[key].label.replace(", ", ",\n", 1), fontsize=8.5)
    axes.set_yticks(range(len(methods)), [method.name for method in methods])
    axes.set_ylim(len(methods) - 0.5, -0.5)
    axes.tick_params(axis="x", labelsize=7.5)
    axes.locator_params(axis="x", nbins=4)
    light_grid(axes, "x")


def _mean(method: MethodResult, key: str) -> float | None:
    interval = method.metrics.get(key)
    return None if interval is None else interval.mean


def _caption(evaluation: Evaluation) -> str:
    setting = evaluation.population
    num = 0 if setting is None else len(setting.num_cells)
    return (
        f"Distance between generated and real held-out cells, mean over {num} "
        f"condition{'' if num == 1 else 's'} with 95 % intervals; smaller is better. Dashed: one "
        "half of the real cells against the other half, below which no policy is expected to stay."
    )
