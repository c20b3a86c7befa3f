"""Heat maps of the correlations between the rewards of a run."""

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from c2s_rl.evaluation.plots import Picture, style, to_svg
from c2s_rl.evaluation.rank import DoubleArray
from c2s_rl.evaluation.reward_correlation import RewardCorrelation

COLOURS = "PuOr_r"  # diverging, told apart with all common forms of colour blindness
DARK = 0.6  # beyond it black letters cannot be read

CAPTION = (
    "Correlation between the rewards, and with the weighted total, over the {num} completions of "
    "the alignment. Left: over all of them, by ranks. Right: among the answers to one prompt, "
    "which is what GRPO learns from. Near 1: one reward would do. Below 0: they pull in opposite "
    "directions. Empty: one of the two never varies."
)


def correlation_picture(correlation: RewardCorrelation) -> Picture:
    """Draw Spearman's coefficient over all completions, and Pearson's within prompts."""
    pairs = correlation.pairs
    sides = {
        "All completions (Spearman)": [pair.spearman for pair in pairs],
        "Within prompts (Pearson)": [pair.within for pair in pairs],
    }
    num = len(correlation.names)
    with mpl.rc_context(style()):
        size = 1.6 + 0.55 * num
        figure = Figure(figsize=(2 * size + 0.6, size), layout="constrained")
        for index, (title, values) in enumerate(sides.items(), start=1):
            axes = figure.add_subplot(1, 2, index)
            _draw(axes, correlation, values)
            axes.set_title(title)
        most = max((pair.num_completions for pair in pairs), default=0)
        return Picture(to_svg(figure), CAPTION.format(num=most))


def _draw(axes: Axes, correlation: RewardCorrelation, values: list[float | None]) -> None:
    names = correlation.names
    matrix = _matrix(correlation, values)
    axes.pcolormesh(matrix, cmap=COLOURS, vmin=-1, vmax=1, edgecolors="white", linewidth=1.5)
    for row, column in np.ndindex(matrix.shape):
        value = matrix[row, column]
        if np.isfinite(value):
            colour = "white" if abs(value) > DARK else "black"
            place = (column + 0.5, row + 0.5)
            axes.text(*place, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=8)
    ticks = np.arange(len(names)) + 0.5
    axes.set_xticks(ticks, names, rotation=35, ha="right")
    axes.set_yticks(ticks, names)
    axes.tick_params(length=0)
    axes.invert_yaxis()
    axes.set_aspect("equal")
    axes.spines[:].set_visible(False)


def _matrix(correlation: RewardCorrelation, values: list[float | None]) -> DoubleArray:
    """[K, K] symmetric, 1 on the diagonal, nan where there is no coefficient."""
    place = {name: index for index, name in enumerate(correlation.names)}
    matrix = np.eye(len(place), dtype=np.float64)
    for pair, value in zip(correlation.pairs, values, strict=True):
        row, column = place[pair.first], place[pair.second]
        matrix[row, column] = matrix[column, row] = np.nan if value is None else value
    return matrix
