"""Held-out prompts during training: metrics with intervals and probes beside real cells, by step.

One small plot a series: the metric that chose the best checkpoint first, its best step marked.
"""

from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from c2s_rl.evaluation.learning_curve import REWARD, Best, CurvePoint, is_reward, metric_label
from c2s_rl.evaluation.metrics import METRICS, Metric
from c2s_rl.evaluation.plots import (
    POLICY_COLOURS,
    REAL_COLOUR,
    Picture,
    light_grid,
    style,
    to_svg,
)
from c2s_rl.evaluation.probes import PROBES, Probe

NUM_COLUMNS = 3
# The chosen metric, what was optimised, and what a reward on few genes tends to spoil.
METRICS_SHOWN = (REWARD, Metric.ALL_PEARSON.value, Metric.GENE_OVERLAP.value)
PROBES_SHOWN = (
    Probe.PAIR_OVERLAP,
    Probe.HOUSEKEEPING,
    Probe.CONTROL_OVERLAP,
    Probe.CONTROL_TAU,
    Probe.WORDS,
)
BEST_MARK = "*"


def held_out_curves(points: Sequence[CurvePoint], best: Best | None) -> Picture | None:
    """Draw the curves of a run.

    Args:
        points: Its evaluations, by step.
        best: The best of them, and by which metric; None where none was kept.

    Returns:
        The picture; None without any point.
    """
    if not points:
        return None
    first = best.metric if best else Metric.PROGRAM_TAU.value
    names = [n for n in dict.fromkeys((first, *METRICS_SHOWN)) if _has_metric(points, n)]
    probes = [probe for probe in PROBES_SHOWN if _has_probe(points, probe)]
    with mpl.rc_context(style()):
        num_panels = len(names) + len(probes)
        num_columns = min(NUM_COLUMNS, num_panels)
        num_rows = -(-num_panels // num_columns)
        figure = Figure(figsize=(3.5 * num_columns, 2.5 * num_rows), layout="constrained")
        for index, name in enumerate(names, start=1):
            axes = figure.add_subplot(num_rows, num_columns, index)
            _draw_metric(axes, name, points)
            if best is not None and name == best.metric:
                _mark_best(axes, best)
        for index, probe in enumerate(probes, start=len(names) + 1):
            _draw_probe(figure.add_subplot(num_rows, num_columns, index), probe, points)
        return Picture(to_svg(figure), _caption(points, best))


def _has_metric(points: Sequence[CurvePoint], name: str) -> bool:
    return any(point.value(name) is not None for point in points)


def _has_probe(points: Sequence[CurvePoint], probe: Probe) -> bool:
    return any(probe in p.probes and p.probes[probe].answers is not None for p in points)


def _draw_metric(axes: Axes, name: str, points: Sequence[CurvePoint]) -> None:
    colour, scale = POLICY_COLOURS[1], 100 if _is_share(name) else 1
    steps, means, lows, highs = [], [], [], []
    for point in points:
        interval = point.metrics.get(name)
        if interval is None or interval.mean is None:
            continue
        steps.append(point.step)
        means.append(scale * interval.mean)
        lows.append(scale * (interval.mean if interval.low is None else interval.low))
        highs.append(scale * (interval.mean if interval.high is None else interval.high))
    axes.fill_between(steps, lows, highs, color=colour, alpha=0.15, linewidth=0)
    axes.plot(steps, means, color=colour, linewidth=1.8, marker="D", markersize=4)
    label = metric_label(name)
    axes.set_title(label[0].upper() + label[1:])
    axes.set_ylabel("%" if _is_share(name) else "mean and 95 % interval")
    _finish(axes)


def _mark_best(axes: Axes, best: Best) -> None:
    value = best.point.value(best.metric)
    if value is None:
        return
    scale = 100 if _is_share(best.metric) else 1
    axes.plot(
        [best.point.step],
        [scale * value],
        color=POLICY_COLOURS[0],
        marker=BEST_MARK,
        markersize=13,
        linestyle="",
        label=f"best: step {best.point.step}",
    )
    axes.legend(fontsize=8)


def _draw_probe(axes: Axes, probe: Probe, points: Sequence[CurvePoint]) -> None:
    info = PROBES[probe]
    scale = 100 if info.is_share else 1
    known = [(p.step, p.probes[probe].answers) for p in points if probe in p.probes]
    pairs = [(step, scale * value) for step, value in known if value is not None]
    real = [p.probes[probe].real for p in points if probe in p.probes]
    axes.plot(
        [step for step, _ in pairs],
        [value for _, value in pairs],
        color=POLICY_COLOURS[5],
        linewidth=1.8,
        marker="o",
        markersize=4,
        label="policy",
    )
    if real and real[-1] is not None:
        axes.axhline(scale * real[-1], color=REAL_COLOUR, linestyle=":", label="real cells")
        axes.legend(fontsize=8)
    axes.set_title(f"Probe: {info.label}")
    axes.set_ylabel("%" if info.is_share else "mean")
    _finish(axes)


def _finish(axes: Axes) -> None:
    axes.set_xlabel("optimiser step")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(y=0.15)
    light_grid(axes)


def _is_share(name: str) -> bool:
    return not is_reward(name) and METRICS[Metric(name)].is_share


def _caption(points: Sequence[CurvePoint], best: Best | None) -> str:
    start = (
        f"{points[-1].num_prompts} validation prompts answered during training, the same at every "
        "evaluation and with the same random numbers. Shading: 95 % bootstrap interval. Dotted: "
        "real cells of the same conditions. Step 0 is the policy that GRPO started from."
    )
    if best is None:
        return start
    return f"{start} Star: best {metric_label(best.metric)}, after step {best.point.step}."
