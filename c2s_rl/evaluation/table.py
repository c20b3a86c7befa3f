"""The result as a terminal table: metrics by rows, null baselines, policies and ceiling by columns.

A pure function from an `Evaluation` to a rich table; printing is the caller's business.
"""

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from c2s_rl.cells.vocabulary import shown
from c2s_rl.evaluation.bootstrap import Interval
from c2s_rl.evaluation.metrics import Better, MetricInfo
from c2s_rl.evaluation.result import (
    ABSENT,
    NO_BREAK,
    NOT_APPLICABLE,
    PRIMARY,
    Evaluation,
    MethodKind,
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
    table = framed(_title(evaluation), _caption(evaluation))
    table.padding = (0, 0, 0, 1 if is_wide else 0)
    table.add_column("")
    for method in evaluation.present:
        heading = method.name if is_wide else method.name.replace(" ", "\n")
        style = HEADING_STYLE[method.kind]
        # Only the labels may be broken: a number in two lines is not read as one.
        table.add_column(Text(heading, style=style), justify="right", no_wrap=True)
    for metric in shown_metrics(evaluation):
        _add_rows(table, evaluation, metric, is_wide=is_wide)
    return table


def shown_metrics(evaluation: Evaluation) -> list[str]:
    """Metrics that any method has a value of, in table order, the primary one first."""
    present = [
        metric
        for metric in evaluation.metric_info
        if any(
            metric in method.metrics and method.metrics[metric].mean is not None
            for method in evaluation.methods
        )
    ]
    return sorted(present, key=lambda metric: metric != PRIMARY)


def population_notes(evaluation: Evaluation) -> list[str]:
    """Which cells the metrics of populations are of, and what they leave out, in sentences."""
    setting = evaluation.population
    if setting is None:
        return []
    notes = []
    if setting.num_cells:
        fewest, most = min(setting.num_cells.values()), max(setting.num_cells.values())
        span = f"{fewest}" if fewest == most else f"{fewest} to {most}"
        notes.append(
            f"Distances between populations: {span} cells of every method in a condition, the same "
            "number for each, against one half of the real held-out cells; the column 'real cell' "
            "is the other half."
        )
    if setting.skipped:
        names = shown([f"{name} ({num})" for name, num in setting.skipped.items()])
        notes.append(
            f"{len(setting.skipped)} of {len(evaluation.conditions)} conditions have fewer than "
            f"{setting.min_cells} cells to compare and no distances: {names}."
        )
    reasons: dict[str, list[str]] = {}
    for method in evaluation.present:
        for reason in sorted(set(method.not_applicable.values())):
            reasons.setdefault(reason, []).append(method.name)
    notes += [
        f"{NOT_APPLICABLE} ({', '.join(names)}): {reason}." for reason, names in reasons.items()
    ]
    return notes


def bootstrap_notes(evaluation: Evaluation) -> list[str]:
    """What intervals draw again, where it needs saying."""
    if not evaluation.bootstrap_note:
        return []
    return [f"Intervals draw by {evaluation.bootstrap_unit}: {evaluation.bootstrap_note}."]


def absent_reasons(evaluation: Evaluation) -> list[str]:
    """Why a column is empty, one sentence each."""
    return [
        f"No {method.name}: {method.absent_reason}."
        for method in evaluation.methods
        if method.absent_reason
    ]


def framed(title: str, caption: Sequence[str]) -> Table:
    """Start a table of an evaluation: title above, one line a sentence below, no frame."""
    return Table(
        title=Text(title),
        caption=Text("\n".join(caption), justify="left"),
        title_justify="left",
        caption_justify="left",
        header_style="",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )


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
    lines += [*population_notes(evaluation), *bootstrap_notes(evaluation)]
    lines += [f"{num} prompts left out: {reason}." for reason, num in evaluation.skipped.items()]
    return [line for line in lines if line]


def _add_rows(table: Table, evaluation: Evaluation, metric: str, *, is_wide: bool) -> None:
    """Add the row of a metric; the primary one is followed by a row for every tier."""
    info = evaluation.metric_info[metric]
    is_primary = metric == PRIMARY
    tiers = list(evaluation.tiers) if is_primary and len(evaluation.tiers) > 1 else []

    def cells(tier: str | None) -> list[Text]:
        found = []
        for method in evaluation.present:
            source = method.metrics if tier is None else method.per_tier.get(tier, {})
            has_ends = is_wide or method.kind is MethodKind.POLICY
            if (interval := source.get(metric)) is None or interval.mean is None:
                word = NOT_APPLICABLE if metric in method.not_applicable else ABSENT
                found.append(Text(word, style="dim"))
                continue
            is_bold = is_primary and method.kind is MethodKind.POLICY
            found.append(_cell(info, interval, has_ends=has_ends, is_bold=is_bold))
        return found

    label = Text(info.label + ARROW[info.better], style="bold" if is_primary else "")
    table.add_row(label, *cells(None), end_section=is_primary and not tiers)
    for tier in tiers:
        table.add_row(Text(f"  {tier}"), *cells(tier), end_section=tier == tiers[-1])


def _cell(info: MetricInfo, interval: Interval, *, has_ends: bool, is_bold: bool) -> Text:
    text = Text(format_value(info, interval.mean), style="bold" if is_bold else "")
    # Two dots instead of ' to ' saves three columns a method.
    ends = format_range(info, interval).replace(" to ", "..") if has_ends else ""
    return text.append(f"\n{ends}", style="dim") if ends else text
