"""report.html: one file with numbers, pictures and samples that opens anywhere, without network.

Everything that comes from data or config is escaped (jinja2 autoescape); the only markup passed
through is the SVG that `plots.py` made. Nothing is computed here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from c2s_rl.evaluation.bootstrap import Interval
from c2s_rl.evaluation.cell_metrics import METRICS, Better, Metric
from c2s_rl.evaluation.plots import Picture
from c2s_rl.evaluation.result import (
    ABSENT,
    PRIMARY,
    Evaluation,
    MethodResult,
    format_range,
    format_value,
)
from c2s_rl.evaluation.reward_correlation import RewardCorrelation
from c2s_rl.evaluation.samples import Sample
from c2s_rl.evaluation.table import absent_reasons, shown_metrics


@dataclass(frozen=True)
class RunInfo:
    """What the report says about the run itself."""

    name: str
    """The run's name."""
    trained_on: str
    """One sentence: which model was trained on which cells, how and for how long."""
    seed: int
    """The run's seed."""
    date: str
    """Day of the evaluation, ISO 8601."""
    versions: Mapping[str, str]
    """Package to version."""
    config_text: str
    """The resolved configuration, as YAML."""


@dataclass(frozen=True)
class Pictures:
    """The figures; None where there was nothing to draw."""

    training: Picture | None
    """Curves of the GRPO run."""
    forest: Picture
    """Primary metric per condition."""
    cell_map: Picture | None
    """UMAP of real and generated cells."""
    rank_fit: Picture
    """Expression by rank."""
    rewards: Picture | None = None
    """Correlations between the rewards."""


@dataclass(frozen=True)
class NumberCell:
    """One number of an HTML table."""

    value: str
    """The mean with its unit, or '-'."""
    ends: str
    """The 95 % interval, or ''."""
    look: str
    """CSS class: the kind of the column, or 'good', 'bad', 'open' for a difference."""


@dataclass(frozen=True)
class TableRow:
    """One row of an HTML table."""

    label: str
    """Metric or condition."""
    note: str
    """What it means, in small print."""
    cells: tuple[NumberCell, ...]
    """One a column."""
    is_primary: bool = False
    """Set apart from the others."""


def render_report(
    evaluation: Evaluation,
    run: RunInfo,
    pictures: Pictures,
    samples: Sequence[Sample],
    correlation: RewardCorrelation | None = None,
) -> str:
    """Lay out the report.

    Returns:
        A whole HTML document that refers to nothing outside itself.
    """
    environment = Environment(
        loader=PackageLoader("c2s_rl.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["svg"] = _trusted
    return environment.get_template("report.html").render(
        run=run,
        evaluation=evaluation,
        verdict=evaluation.verdict,
        methods=evaluation.present,
        pictures=pictures,
        samples=samples,
        correlation=correlation,
        metric_rows=metric_rows(evaluation),
        condition_rows=condition_rows(evaluation),
        absent=absent_reasons(evaluation),
        flat=flat_notes(evaluation),
        primary=METRICS[PRIMARY].label,
    )


def metric_rows(evaluation: Evaluation) -> list[TableRow]:
    """Rows of the main table: a metric each, all methods and the difference."""
    return [
        TableRow(
            label=METRICS[metric].label,
            note=f"{METRICS[metric].meaning} {_direction(metric)}".strip(),
            cells=(
                *(_number(metric, m.metrics.get(metric), m) for m in evaluation.present),
                *_difference_cells(metric, evaluation),
            ),
            is_primary=metric is PRIMARY,
        )
        for metric in shown_metrics(evaluation)
    ]


def condition_rows(evaluation: Evaluation) -> list[TableRow]:
    """Rows of the per-condition table: the primary metric of all methods and the difference."""
    rows = []
    for condition, num_prompts in evaluation.conditions.items():
        unseen = ", not seen in training" if condition in evaluation.unseen_conditions else ""
        plural = "" if num_prompts == 1 else "s"
        cells = [
            _number(PRIMARY, m.per_condition.get(condition, {}).get(PRIMARY), m)
            for m in evaluation.present
        ]
        rows.append(
            TableRow(
                label=condition,
                note=f"{num_prompts} prompt{plural}{unseen}",
                cells=(*cells, *_difference_cells(PRIMARY, evaluation, condition)),
            )
        )
    return rows


def flat_notes(evaluation: Evaluation) -> list[str]:
    """Which methods had answers without any order, that count as 0."""
    return [
        f"{method.name}: {num} of {method.num_answers} answers hold nothing to order for "
        f"{METRICS[metric].label}; they count as 0."
        for method in evaluation.methods
        for metric, num in method.num_flat.items()
    ]


def _trusted(picture: Picture) -> Markup:
    return Markup(picture.svg)


def _direction(metric: Metric) -> str:
    words = {
        Better.HIGHER: "Higher is better.",
        Better.LOWER: "Lower is better.",
        Better.NEITHER: "",
    }
    return words[METRICS[metric].better]


def _number(metric: Metric, interval: Interval | None, method: MethodResult) -> NumberCell:
    if interval is None or interval.mean is None:
        return NumberCell(ABSENT, "", method.kind)
    return NumberCell(
        format_value(metric, interval.mean), format_range(metric, interval), method.kind
    )


def _difference_cells(
    metric: Metric, evaluation: Evaluation, condition: str | None = None
) -> tuple[NumberCell, ...]:
    """The last column; there is none without two policies to compare."""
    difference = evaluation.difference
    if difference is None:
        return ()
    source = difference.metrics if condition is None else difference.per_condition[condition]
    interval = source[metric]
    if interval.mean is None:
        return (NumberCell(ABSENT, "", "open"),)
    return (
        NumberCell(
            format_value(metric, interval.mean, is_signed=True),
            format_range(metric, interval, is_signed=True),
            _look(metric, interval),
        ),
    )


def _look(metric: Metric, interval: Interval) -> str:
    better = METRICS[metric].better
    if interval.low is None or interval.high is None or better is Better.NEITHER:
        return "open"
    if interval.low > 0:
        return "good" if better is Better.HIGHER else "bad"
    if interval.high < 0:
        return "bad" if better is Better.HIGHER else "good"
    return "open"
