"""text_report.html: one file with the numbers of text answers, curves and samples.

Everything that comes from data or config is escaped (jinja2 autoescape); the only markup passed
through is the SVG that `plots.py` made. Nothing is computed here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from c2s_rl.evaluation.bootstrap import Interval
from c2s_rl.evaluation.cell_metrics import Better
from c2s_rl.evaluation.plots import Picture
from c2s_rl.evaluation.report import NumberCell, RunInfo, TableRow, report_environment
from c2s_rl.evaluation.result import ABSENT
from c2s_rl.evaluation.samples import shorten
from c2s_rl.evaluation.text_metrics import TEXT_METRICS, TextMetric, keyword_recall
from c2s_rl.evaluation.text_result import (
    PRIMARY,
    TextEvaluation,
    TextMethodResult,
    text_range,
    text_value,
)
from c2s_rl.types import Group

# Written out in full, a runaway answer would bury the others.
MAX_CHARACTERS = 600


@dataclass(frozen=True)
class TextSample:
    """A held-out prompt with the right answer and one answer a policy."""

    condition: str
    """Group that results are shown by."""
    prompt: str
    """Shortened in its middle."""
    keywords: tuple[str, ...]
    """What a right answer names."""
    answers: tuple[tuple[str, str, str], ...]
    """(whose, text, keyword recall or '') of the right answer, then of each policy."""


def text_samples(
    groups_by_policy: Mapping[str, Sequence[Group]], num_samples: int
) -> list[TextSample]:
    """Take the first prompt of each of the first conditions, and the first answer to it.

    Nothing is picked for its looks: the order is that of the evaluation.
    """
    first = next(iter(groups_by_policy.values()))
    picked: dict[str, int] = {}
    for index, group in enumerate(first):
        picked.setdefault(group.record.condition, index)
    samples = []
    for index in islice(picked.values(), num_samples):
        record = first[index].record
        texts = {"right answer": record.target.strip()} | {
            name: groups[index].completions_G[0].text.strip()
            for name, groups in groups_by_policy.items()
        }
        samples.append(
            TextSample(
                record.condition,
                shorten(record.prompt),
                record.keywords,
                tuple(
                    (name, _cut(text), _recall(text, record.keywords))
                    for name, text in texts.items()
                ),
            )
        )
    return samples


def render_text_report(
    evaluation: TextEvaluation,
    run: RunInfo,
    training: Picture | None,
    samples: Sequence[TextSample],
) -> str:
    """Lay out the report.

    Returns:
        A whole HTML document that refers to nothing outside itself.
    """
    return (
        report_environment()
        .get_template("text_report.html")
        .render(
            run=run,
            evaluation=evaluation,
            verdict=evaluation.verdict,
            methods=evaluation.present,
            training=training,
            samples=samples,
            metric_rows=_metric_rows(evaluation),
            condition_rows=_condition_rows(evaluation),
            primary=TEXT_METRICS[PRIMARY].label,
        )
    )


def _cut(text: str) -> str:
    return text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]} …"


def _recall(text: str, keywords: Sequence[str]) -> str:
    share = keyword_recall(text, keywords)
    return "" if share is None else f"{round(share * len(set(keywords)))} of {len(set(keywords))}"


def _metric_rows(evaluation: TextEvaluation) -> list[TableRow]:
    difference = evaluation.difference
    return [
        TableRow(
            label=TEXT_METRICS[metric].label,
            note=TEXT_METRICS[metric].meaning,
            cells=(
                *(_number(metric, m.metrics[metric], m) for m in evaluation.present),
                *([_change(metric, difference.metrics[metric])] if difference else []),
            ),
            is_primary=metric is PRIMARY,
        )
        for metric in evaluation.shown_metrics
    ]


def _condition_rows(evaluation: TextEvaluation) -> list[TableRow]:
    difference = evaluation.difference
    rows = []
    for condition, num in evaluation.conditions.items():
        unseen = ", not seen in training" if condition in evaluation.unseen_conditions else ""
        cells = [
            _number(PRIMARY, m.per_condition[condition][PRIMARY], m) for m in evaluation.present
        ]
        if difference:
            cells.append(_change(PRIMARY, difference.per_condition[condition][PRIMARY]))
        note = f"{num} prompt{'' if num == 1 else 's'}{unseen}"
        rows.append(TableRow(label=condition, note=note, cells=tuple(cells)))
    return rows


def _number(metric: TextMetric, interval: Interval, method: TextMethodResult) -> NumberCell:
    if interval.mean is None:
        return NumberCell(ABSENT, "", method.kind)
    return NumberCell(text_value(metric, interval.mean), text_range(metric, interval), method.kind)


def _change(metric: TextMetric, interval: Interval) -> NumberCell:
    if interval.mean is None:
        return NumberCell(ABSENT, "", "open")
    return NumberCell(
        text_value(metric, interval.mean, is_signed=True),
        text_range(metric, interval, is_signed=True),
        _look(metric, interval),
    )


def _look(metric: TextMetric, interval: Interval) -> str:
    better = TEXT_METRICS[metric].better
    if interval.low is None or interval.high is None or better is Better.NEITHER:
        return "open"
    if interval.low <= 0 <= interval.high:
        return "open"
    return "good" if (interval.low > 0) is (better is Better.HIGHER) else "bad"
