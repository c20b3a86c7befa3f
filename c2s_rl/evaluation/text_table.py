"""The result of a text evaluation as a terminal table: metrics by rows, methods by columns."""

from rich.table import Table
from rich.text import Text

from c2s_rl.evaluation.result import ABSENT, MethodKind
from c2s_rl.evaluation.table import ARROW, HEADING_STYLE, framed
from c2s_rl.evaluation.text_metrics import TEXT_METRICS, TextMetric
from c2s_rl.evaluation.text_result import (
    PRIMARY,
    TextEvaluation,
    TextMethodResult,
    text_range,
    text_value,
)


def text_table(evaluation: TextEvaluation) -> Table:
    """Lay out the numbers; policies show their 95 % interval below the mean.

    The caption gives the verdict, the encoder and the reasons for absent columns.
    """
    num = len(evaluation.conditions)
    table = framed(
        f"{evaluation.task.value}, {evaluation.num_prompts} held-out prompts, {num} "
        f"condition{'' if num == 1 else 's'}; mean and 95 % interval",
        _caption(evaluation),
    )
    table.add_column("")
    for method in evaluation.present:
        heading = Text(method.name.replace(" ", "\n"), style=HEADING_STYLE[method.kind])
        table.add_column(heading, justify="right", no_wrap=True)
    for metric in evaluation.shown_metrics:
        info = TEXT_METRICS[metric]
        is_primary = metric is PRIMARY
        label = Text(info.label + ARROW[info.better], style="bold" if is_primary else "")
        cells = [_cell(metric, method) for method in evaluation.present]
        table.add_row(label, *cells, end_section=is_primary)
    return table


def _caption(evaluation: TextEvaluation) -> list[str]:
    verdict = evaluation.verdict
    lines = [verdict.headline, verdict.price, verdict.scale, *evaluation.absent_reasons]
    lines.append(f"BERTScore by {evaluation.encoder}.")
    lines.append(
        f"{evaluation.num_unseen_answers} of {evaluation.num_prompts} right answers are not "
        "among the training answers."
    )
    lines += [f"{num} prompts left out: {reason}." for reason, num in evaluation.skipped.items()]
    return [line for line in lines if line]


def _cell(metric: TextMetric, method: TextMethodResult) -> Text:
    interval = method.metrics[metric]
    if interval.mean is None:
        return Text(ABSENT, style="dim")
    text = Text(text_value(metric, interval.mean))
    is_policy = method.kind is MethodKind.POLICY
    ends = text_range(metric, interval).replace(" to ", "..") if is_policy else ""
    return text.append(f"\n{ends}", style="dim") if ends else text
