"""Runs side by side as text: rows for the terminal's table and for the page's.

Pure functions from a `Comparison`; printing is the caller's business.
"""

from dataclasses import dataclass

from rich import box
from rich.table import Table
from rich.text import Text

from c2s_rl.evaluation.compare import Comparison, Gain, RunGroup, Spread, is_gain_good
from c2s_rl.evaluation.metrics import Better, MetricInfo
from c2s_rl.evaluation.result import ABSENT, NO_BREAK

DIRECTION = {
    Better.HIGHER: "higher is better",
    Better.LOWER: "lower is better",
    Better.NEITHER: "",
}


@dataclass(frozen=True)
class Written:
    """A number and, below it, its ends."""

    value: str
    """With its unit, or '-'."""
    ends: str
    """'low to high', or ''."""
    look: str = ""
    """'good' or 'bad' for a change in that direction, else ''."""


@dataclass(frozen=True)
class CompareRow:
    """One run or group of runs in the table of one metric."""

    label: str
    num_seeds: int
    """Runs behind it."""
    baseline: Written
    candidate: Written
    difference: Written
    percent: Written


@dataclass(frozen=True)
class CompareBlock:
    """The table of one metric."""

    metric: str
    """Its name in evaluation.json and on the command line."""
    title: str
    """Label and direction."""
    meaning: str
    """One line for a biologist."""
    rows: tuple[CompareRow, ...]


def compare_blocks(comparison: Comparison) -> list[CompareBlock]:
    """Write down every metric of a comparison, '-' where a run lacks it."""
    blocks: list[CompareBlock] = []
    for metric in comparison.metrics:
        info = comparison.info[metric]
        direction = DIRECTION[info.better]
        blocks.append(
            CompareBlock(
                metric=metric,
                title=f"{heading(info.label)} ({direction})" if direction else heading(info.label),
                meaning=info.meaning,
                rows=tuple(_row(group, metric, info) for group in comparison.groups),
            )
        )
    return blocks


def compare_table(comparison: Comparison) -> Table:
    """Lay out a comparison for the terminal: a section a metric, a row a run or group."""
    baseline, candidate = policy_names(comparison)
    table = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        header_style="bold",
        caption=Text("\n".join(comparison.statements), justify="left"),
        caption_justify="left",
    )
    for heading in ("", baseline, candidate, "difference", "gain"):
        table.add_column(heading, justify="left" if not heading else "right", no_wrap=bool(heading))
    for block in compare_blocks(comparison):
        table.add_row(Text(block.title, style="bold"), end_section=not block.rows)
        for index, row in enumerate(block.rows):
            cells = (row.baseline, row.candidate, row.difference, row.percent)
            table.add_row(
                Text(f"  {row.label}"),
                *(_text(cell) for cell in cells),
                end_section=index == len(block.rows) - 1,
            )
    return table


def policy_names(comparison: Comparison) -> tuple[str, str]:
    """Headings of the two policies: their names where all runs agree, else what they are."""
    pairs = {
        run.policies
        for group in comparison.groups
        for run in group.runs
        if run.policies is not None
    }
    return next(iter(pairs)) if len(pairs) == 1 else ("baseline", "candidate")


def heading(label: str) -> str:
    """Begin a metric's label with a capital, unless its first word has one: scFID stays."""
    first = label.split(maxsplit=1)[0]
    return label if first != first.lower() else label[0].upper() + label[1:]


def write_percent(percent: Spread) -> str:
    """Write a gain in percent with its sign."""
    return f"{percent.mean:+.1f}{NO_BREAK}%"


def _row(group: RunGroup, metric: str, info: MetricInfo) -> CompareRow:
    gain = group.gain(metric)
    nothing = Written(ABSENT, "")
    if gain is None:
        return CompareRow(group.label, len(group.runs), nothing, nothing, nothing, nothing)
    look = _look(info, gain)
    return CompareRow(
        label=group.label,
        num_seeds=len(group.runs),
        baseline=_write(info, gain.baseline),
        candidate=_write(info, gain.candidate),
        difference=_write(info, gain.difference, is_signed=True, look=look),
        percent=nothing if gain.percent is None else _write_percent(gain.percent, look),
    )


def _look(info: MetricInfo, gain: Gain) -> str:
    """Good or bad only where both ends lie on one side of 0."""
    low, high = gain.difference.low, gain.difference.high
    if low is None or high is None or low <= 0 <= high:
        return ""
    is_good = is_gain_good(info, gain.difference.mean)
    return "" if is_good is None else "good" if is_good else "bad"


def _write(info: MetricInfo, spread: Spread, *, is_signed: bool = False, look: str = "") -> Written:
    scale = 100 if info.is_share else 1
    sign = "+" if is_signed else ""
    unit = (" points" if is_signed else f"{NO_BREAK}%") if info.is_share else ""
    return Written(
        f"{scale * spread.mean:{sign}.{info.decimals}f}{unit}",
        _ends(spread, scale, sign, info.decimals),
        look,
    )


def _write_percent(percent: Spread, look: str) -> Written:
    return Written(write_percent(percent), _ends(percent, 1, "+", 1), look)


def _ends(spread: Spread, scale: float, sign: str, decimals: int) -> str:
    if spread.low is None or spread.high is None:
        return ""
    low, high = (f"{scale * end:{sign}.{decimals}f}" for end in (spread.low, spread.high))
    return f"{low} to {high}"


def _text(written: Written) -> Text:
    style = {"good": "green", "bad": "red"}.get(written.look, "")
    text = Text(written.value, style=style)
    return text.append(f"\n{written.ends}", style="dim") if written.ends else text
