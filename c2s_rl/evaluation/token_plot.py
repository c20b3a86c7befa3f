"""Token shards in pictures: tokens and samples by task, and how long samples are."""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from c2s_rl.data.token_statistics import TaskTally, TokenSide, TokenStatistics
from c2s_rl.evaluation.plots import (
    POLICY_COLOURS,
    Picture,
    light_grid,
    style,
    to_svg,
)
from c2s_rl.evaluation.token_summary import percent, quantile, short, words
from c2s_rl.types import FloatArray

ROW_HEIGHT = 0.36  # inches of one bar
LENGTH_HEIGHT = 0.5  # inches of one histogram
NUM_BINS = 60
ANSWER, PROMPT = POLICY_COLOURS[1], "#A9CDE6"  # one hue: a sample is both
# What became of samples, from best to worst.
FATES = (
    ("shown whole", POLICY_COLOURS[2]),
    ("cut after a gene", POLICY_COLOURS[0]),
    ("dropped, too long", POLICY_COLOURS[5]),
    ("thinned by the mixture", "#C9C9C9"),
)
# Lengths that differ by more than this are shown on a logarithmic axis.
LINEAR_SPAN = 12


def share_picture(statistics: TokenStatistics) -> Picture:
    """Draw tokens of an epoch by task, and beside them what became of the task's samples."""
    tallies = sorted(
        statistics.of_side(TokenSide.TRAIN), key=lambda t: (-t.counts.num_tokens, t.counts.task)
    )
    with mpl.rc_context(style()):
        height = 1.3 + ROW_HEIGHT * len(tallies)
        figure = Figure(figsize=(10.5, height), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1.25, 1))
        _draw_tokens(left, tallies)
        _draw_fates(right, tallies)
        left.set_yticks(range(len(tallies)), [words(t.counts.task) for t in tallies])
        left.set_ylim(len(tallies) - 0.4, -0.6)
        return Picture(
            to_svg(figure),
            "Left: tokens that the rows of an epoch hold, by task, with the share of all. Right: "
            "what became of the task's training samples; a number says how often those that are "
            "shown are shown in an epoch, where that is not once.",
        )


def length_picture(statistics: TokenStatistics) -> Picture:
    """Draw a histogram of sample lengths for every task, and the longest that a row holds."""
    tallies = statistics.of_side(TokenSide.TRAIN)
    longest = max(max(tally.lengths) for tally in tallies)
    shortest = min(min(tally.lengths) for tally in tallies)
    end = max(longest, statistics.max_length)
    is_log = end > LINEAR_SPAN * shortest
    edges = _edges(shortest, end, border=statistics.max_length, is_log=is_log)
    with mpl.rc_context(style()):
        height = 1.0 + LENGTH_HEIGHT * len(tallies)
        figure = Figure(figsize=(10.5, height), layout="constrained")
        grid = figure.subplots(len(tallies), 1, sharex=True, squeeze=False)[:, 0]
        for axes, tally in zip(grid, tallies, strict=True):
            _draw_lengths(axes, tally, edges, max_length=statistics.max_length, is_log=is_log)
        grid[0].set_title(
            f"max_length {statistics.max_length:,}", loc="right", fontsize=8.5, color="#B03A00"
        )
        if is_log:
            grid[-1].set_xscale("log")
            grid[-1].xaxis.set_minor_formatter(NullFormatter())
        grid[-1].xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
        grid[-1].set_xlim(edges[0], edges[-1])
        grid[-1].set_xlabel("tokens of a sample, before anything is cut")
        return Picture(
            to_svg(figure),
            "Each row: how many of a task's samples have which length, the fullest at full height"
            f"{', lengths on a logarithmic axis' if is_log else ''}. Dot: median. Dashed: "
            "the longest sample that a row holds; what lies right of it, in orange, is cut, "
            "dropped or an error.",
        )


def _draw_tokens(axes: Axes, tallies: Sequence[TaskTally]) -> None:
    rows = range(len(tallies))
    prompts = [tally.counts.num_prompt_tokens for tally in tallies]
    answers = [tally.counts.num_target_tokens for tally in tallies]
    axes.barh(rows, prompts, height=0.66, color=PROMPT, label="prompts")
    axes.barh(rows, answers, height=0.66, left=prompts, color=ANSWER, label="answers")
    in_all = sum(prompts) + sum(answers)
    for row, tally in enumerate(tallies):
        num = tally.counts.num_tokens
        axes.annotate(
            f"{short(num)}  ({percent(num, in_all)})",
            (num, row),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axes.set_xlim(0, 1.3 * max(tally.counts.num_tokens for tally in tallies))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: short(x)))
    axes.set_xlabel("tokens an epoch")
    axes.legend(loc="lower right", fontsize=8)
    light_grid(axes, "x")


def _draw_fates(axes: Axes, tallies: Sequence[TaskTally]) -> None:
    starts = np.zeros(len(tallies))
    shares = np.array([_fates(tally) for tally in tallies])
    for column, (label, colour) in enumerate(FATES):
        if not shares[:, column].any():
            continue
        rows = range(len(tallies))
        axes.barh(rows, shares[:, column], left=starts, height=0.66, color=colour, label=label)
        starts += shares[:, column]
    for row, counts in enumerate(tally.counts for tally in tallies):
        if counts.num_repeats:
            times = counts.num_shown / counts.num_in
            axes.annotate(f"{times:.2f} times", (101, row), va="center", fontsize=8)
    axes.set_xlim(0, 122)
    axes.set_xticks(range(0, 101, 25))
    axes.set_xlabel("% of the task's training samples")
    axes.tick_params(axis="y", left=False)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, fontsize=8)


def _fates(tally: TaskTally) -> list[float]:
    """Percent of a task's samples in the order of FATES."""
    counts = tally.counts
    dropped = counts.num_too_long + counts.num_prompt_too_long
    numbers = (counts.num_in - counts.num_cut, counts.num_cut, dropped, counts.num_thinned)
    return [100 * number / counts.num_samples for number in numbers]


def _draw_lengths(
    axes: Axes, tally: TaskTally, edges: Sequence[float], *, max_length: int, is_log: bool
) -> None:
    fitting = {length: num for length, num in tally.lengths.items() if length <= max_length}
    below, all_of_them = (
        _heights(lengths, edges, is_log=is_log) for lengths in (fitting, tally.lengths)
    )
    top = all_of_them.max()
    axes.stairs(below / top, edges, fill=True, color=ANSWER)
    axes.stairs(all_of_them / top, edges, baseline=below / top, fill=True, color=POLICY_COLOURS[0])
    axes.plot(
        [quantile(tally.lengths, 0.5)], [0.0], "o", color="black", markersize=4, clip_on=False
    )
    axes.axvline(max_length, color="#B03A00", linestyle="--", linewidth=1.2)
    axes.set_ylim(0, 1.08)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    num_over = sum(num for length, num in tally.lengths.items() if length > max_length)
    over = f"\n{percent(num_over, sum(tally.lengths.values()))} too long" if num_over else ""
    name = f"{words(tally.counts.task)}{over}"
    axes.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8.5)


def _edges(shortest: int, longest: int, *, border: int, is_log: bool) -> list[float]:
    """Borders of bins, between whole lengths; one of them stands behind `border`."""
    low, high = shortest - 0.5, longest * 1.02 + 0.5
    if is_log:
        edges = np.geomspace(low, high, NUM_BINS + 1)
    else:
        edges = np.linspace(low, high, min(NUM_BINS, longest - shortest + 1) + 1)
    # Two borders between the same two lengths would leave an empty bin: a gap that is none.
    return sorted({round(edge - 0.5) + 0.5 for edge in edges.tolist()} | {border + 0.5})


def _heights(lengths: Mapping[int, int], edges: Sequence[float], *, is_log: bool) -> FloatArray:
    """Samples by the width that a bin is drawn with."""
    counted = np.histogram(list(lengths), edges, weights=list(lengths.values()))[0]
    widths = np.diff(np.log(edges) if is_log else edges)
    return np.asarray(counted / widths, dtype=np.float32)
