"""Training curves of a GRPO run: reward, drift from the start, length, and bad words by step.

Draws the series that metrics.jsonl has; a panel without any of its series is left out, and the
caption names it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from c2s_rl.evaluation.plots import POLICY_COLOURS, Picture, light_grid, style, to_svg
from c2s_rl.evaluation.probes import PROBES, Probe
from c2s_rl.evaluation.rank import DoubleArray

NUM_COLUMNS = 3
# Below this a running mean hides as much as it shows.
MIN_STEPS_TO_SMOOTH = 20


@dataclass(frozen=True)
class Panel:
    """One small plot."""

    title: str
    unit: str
    """Label of the y axis."""
    series: Mapping[str, str]
    """Key in metrics.jsonl to name in the legend."""
    scale: float = 1.0
    """Multiplies the values: 100 for percent."""
    spread: str = ""
    """Key of a standard deviation to shade around the first series."""


PANELS = (
    Panel("Reward", "mean reward", {"reward_mean": "reward"}, spread="reward_std"),
    Panel("Drift from the starting model", "KL, nats per token", {"kl": "KL"}),
    Panel(
        "Length of answers",
        "per answer",
        {"length_mean": "tokens", "genes_mean": "different genes"},
    ),
    Panel(
        "Words that earn nothing",
        "% of words (cut off: % of answers)",
        {
            "duplicate_rate": "repeated gene",
            "unknown_rate": "unknown word",
            "truncated_rate": "cut off",
        },
        scale=100,
    ),
    Panel("Speed of sampling", "tokens per second", {"tokens_per_s": "tokens per second"}),
)
# Probes that a run may have: a panel whose series are all missing is not worth a word.
PROBE_PANELS = (
    Panel(
        "Probes: which genes",
        "% of an answer's genes",
        {
            f"probe/{Probe.HOUSEKEEPING}": PROBES[Probe.HOUSEKEEPING].label,
            f"probe/{Probe.CONTROL_OVERLAP}": PROBES[Probe.CONTROL_OVERLAP].label,
        },
        scale=100,
    ),
    Panel(
        "Probes: answers to one prompt",
        "%",
        {
            f"probe/{Probe.PAIR_OVERLAP}": PROBES[Probe.PAIR_OVERLAP].label,
            f"probe/{Probe.DISTINCT}": PROBES[Probe.DISTINCT].label,
        },
        scale=100,
    ),
    Panel(
        "Probe: copying the control",
        "Kendall's tau",
        {f"probe/{Probe.CONTROL_TAU}": PROBES[Probe.CONTROL_TAU].label},
    ),
)


def training_curves(metrics: Sequence[Mapping[str, float]]) -> Picture | None:
    """Draw the curves of a run.

    Args:
        metrics: One mapping a step, as `c2s_rl.runlog.read_metrics` returns them.

    Returns:
        The picture; None when there is no step or no known series.
    """
    known = (*PANELS, _components(metrics), *PROBE_PANELS)
    panels = [panel for panel in known if _present(panel, metrics)]
    if not panels:
        return None
    with mpl.rc_context(style()):
        num_columns = min(NUM_COLUMNS, len(panels))
        num_rows = -(-len(panels) // num_columns)
        figure = Figure(figsize=(3.5 * num_columns, 2.5 * num_rows), layout="constrained")
        for index, panel in enumerate(panels, start=1):
            _draw(figure.add_subplot(num_rows, num_columns, index), panel, metrics)
        return Picture(to_svg(figure), _caption(panels, len(metrics)))


def _components(metrics: Sequence[Mapping[str, float]]) -> Panel:
    """Build the panel of the single rewards; empty when there is only one to show."""
    keys = sorted({key for line in metrics for key in line if key.startswith("reward/")})
    names = {key: key.removeprefix("reward/") for key in keys} if len(keys) > 1 else {}
    return Panel("Single rewards", "mean, unweighted", names)


def _present(panel: Panel, metrics: Sequence[Mapping[str, float]]) -> bool:
    return any(_has(key, metrics) for key in panel.series)


def _has(key: str, metrics: Sequence[Mapping[str, float]]) -> bool:
    return any(np.isfinite(line.get(key, np.nan)) for line in metrics)


def _draw(axes: Axes, panel: Panel, metrics: Sequence[Mapping[str, float]]) -> None:
    steps = _column("step", metrics)
    present = {key: name for key, name in panel.series.items() if _has(key, metrics)}
    # Blue first: the aligned model's colour everywhere in the report.
    colours = (POLICY_COLOURS[1], POLICY_COLOURS[5], POLICY_COLOURS[2], *POLICY_COLOURS[3:])
    for index, (key, name) in enumerate(present.items()):
        colour = colours[index % len(colours)]
        values = panel.scale * _column(key, metrics)
        if index == 0 and panel.spread:
            spread = panel.scale * _column(panel.spread, metrics)
            axes.fill_between(
                steps, values - spread, values + spread, color=colour, alpha=0.12, linewidth=0
            )
        smooth = _running_mean(values)
        if len(values) >= MIN_STEPS_TO_SMOOTH:
            axes.plot(steps, values, color=colour, alpha=0.3, linewidth=0.8)
        line = ("-", "--", ":", "-.")[index % 4]
        axes.plot(steps, smooth, color=colour, linewidth=1.8, linestyle=line, label=name)
    axes.set_title(panel.title)
    axes.set_xlabel("optimiser step")
    axes.set_ylabel(panel.unit)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    light_grid(axes)
    if len(present) > 1:
        axes.legend(fontsize=8)


def _column(key: str, metrics: Sequence[Mapping[str, float]]) -> DoubleArray:
    return np.array([line.get(key, np.nan) for line in metrics], dtype=np.float64)


def _running_mean(values: DoubleArray) -> DoubleArray:
    """Centred mean over a tenth of the run; windows shrink at both ends, missing values too."""
    if len(values) < MIN_STEPS_TO_SMOOTH:
        return values
    half = max(1, len(values) // 20)
    windows = [values[max(0, i - half) : i + half + 1] for i in range(len(values))]
    return np.array([np.nan if np.isnan(w).all() else np.nanmean(w) for w in windows])


def _caption(panels: Sequence[Panel], num_steps: int) -> str:
    known = [panel.title.lower() for panel in PANELS]
    absent = [title for title in known if title not in {p.title.lower() for p in panels}]
    parts = [f"GRPO training over {num_steps} steps, on training prompts."]
    if num_steps >= MIN_STEPS_TO_SMOOTH:
        parts.append("Thin lines: single steps; thick lines: running mean.")
    if any(panel.spread for panel in panels):
        parts.append(
            "Shading around the reward: mean spread among the answers to one prompt; "
            "the model learns from that spread."
        )
    if absent:
        parts.append(f"Not recorded by this run: {', '.join(absent)}.")
    return " ".join(parts)
