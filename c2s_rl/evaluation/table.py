"""The result as a terminal table: metrics by rows, null baselines, policies and ceiling by columns.

A pure function from an `Evaluation` to a rich table; printing is the caller's business.
"""

from rich import box
from rich.table import Table
from rich.text import Text

from c2s_rl.evaluation.cell_metrics import METRICS, Better, Metric
from c2s_rl.evaluation.result import (
    ABSENT,
    NO_BREAK,
    PRIMARY,
    Evaluation,
    MethodKind,
    MethodResult,
    format_range,
    format_value,
)

HEADING_STYLE = {
    MethodKind.NULL: "dim",
    MethodKind.POLICY: "bold",
    MethodKind.CEILING: "dim italic",
}
FULL_WIDTH = 117  # columns that seven methods with intervals take
ARROW = {Better.HIGHER: f"{NO_BREAK}↑", Better.LOWER: f"{NO_BREAK}↓", Better.NEITHER: ""}


def result_table(evaluation: Evaluation, *, width: int = FULL_WIDTH) -> Table:
    """Lay out the numbers of an evaluation.

    Args:
        evaluation: The numbers.
        width: Columns of the terminal; below FULL_WIDTH only policies show their intervals, and
            the rest is in the report.

    Returns:
        A table whose cells hold the mean and, below it, the 95 % interval; the first row is the
        primary metric. The caption gives the verdict and the reasons for absent columns.
    """
    is_wide = width >= FULL_WIDTH
    table = Table(
        title=Text(_title(evaluation)),
        caption=Text("\n".join(_caption(evaluation)), justify="left"),
        title_justify="left",
        caption_justify="left",
        header_style="",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 0, 0, 1 if is_wide else 0),
    )
    table.add_column("")
    for method in evaluation.present:
        heading = method.name if is_wide else method.name.replace(" ", "\n")
        style = HEADING_STYLE[method.kind]
        # Only the labels may be broken: a number in two lines is not read as one.
        table.add_column(Text(heading, style=style), justify="right", no_wrap=True)
    for metric in shown_metrics(evaluation):
        info = METRICS[metric]
        label = Text(info.label + ARROW[info.better], style="bold" if metric is PRIMARY else "")
        cells = [
            _cell(metric, method, has_ends=is_wide or method.kind is MethodKind.POLICY)
            for method in evaluation.present
        ]
        table.add_row(label, *cells, end_section=metric is PRIMARY)
    return table


def shown_metrics(evaluation: Evaluation) -> list[Metric]:
    """Metrics that any method has a value of, in table order, the primary one first."""
    present = [
        metric
        for metric in Metric
        if any(
            metric in method.metrics and method.metrics[metric].mean is not None
            for method in evaluation.methods
        )
    ]
    return sorted(present, key=lambda metric: metric is not PRIMARY)


def absent_reasons(evaluation: Evaluation) -> list[str]:
    """Why a column is empty, one sentence each."""
    return [
        f"No {method.name}: {method.absent_reason}."
        for method in evaluation.methods
        if method.absent_reason
    ]


def _title(evaluation: Evaluation) -> str:
    conditions = len(evaluation.conditions)
    return (
        f"{evaluation.program} ({len(evaluation.program_genes)} genes), "
        f"{evaluation.num_prompts} held-out prompts, {conditions} "
        f"condition{'' if conditions == 1 else 's'}; mean and 95 % interval"
    )


def _caption(evaluation: Evaluation) -> list[str]:
    verdict = evaluation.verdict
    lines = [verdict.headline, verdict.price, verdict.scale, *absent_reasons(evaluation)]
    lines += [f"{num} prompts left out: {reason}." for reason, num in evaluation.skipped.items()]
    return [line for line in lines if line]


def _cell(metric: Metric, method: MethodResult, *, has_ends: bool) -> Text:
    interval = method.metrics.get(metric)
    if interval is None or interval.mean is None:
        return Text(ABSENT, style="dim")
    style = "bold" if metric is PRIMARY and method.kind is MethodKind.POLICY else ""
    text = Text(format_value(metric, interval.mean), style=style)
    # Two dots instead of ' to ' saves three columns a method.
    ends = format_range(metric, interval).replace(" to ", "..") if has_ends else ""
    return text.append(f"\n{ends}", style="dim") if ends else text
