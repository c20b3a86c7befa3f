"""report.html: one file with numbers, pictures and samples that opens anywhere, without network.

Everything that comes from data or config is escaped (jinja2 autoescape); the only markup passed
through is the SVG that `plots.py` made. Nothing is computed here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from c2s_rl.evaluation.bootstrap import Interval
from c2s_rl.evaluation.metrics import METRICS, Better, Metric, MetricInfo
from c2s_rl.evaluation.plots import Picture
from c2s_rl.evaluation.result import (
    ABSENT,
    NOT_APPLICABLE,
    PRIMARY,
    Evaluation,
    MethodResult,
    format_gain,
    format_range,
    format_value,
)
from c2s_rl.evaluation.reward_correlation import RewardCorrelation
from c2s_rl.evaluation.samples import Sample
from c2s_rl.evaluation.table import (
    absent_reasons,
    bootstrap_notes,
    population_notes,
    shown_metrics,
)
from c2s_rl.evaluation.watch_section import WatchSection


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
    population: Picture | None = None
    """Distances between populations."""
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
    gain: str = ""
    """The difference in percent of the baseline, or ''."""


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
    tip: str = ""
    """Best value, unit, baseline, ceiling and source, shown when pointed at."""


@dataclass(frozen=True)
class TierTable:
    """One metric by held-out tier."""

    label: str
    """The metric."""
    rows: tuple[TableRow, ...]
    """One a tier."""


def report_environment() -> Environment:
    """Templates of the reports: everything is escaped but the SVG that `plots.py` made."""
    environment = Environment(
        loader=PackageLoader("c2s_rl.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["svg"] = _trusted
    return environment


def render_report(
    evaluation: Evaluation,
    run: RunInfo,
    pictures: Pictures,
    samples: Sequence[Sample],
    watch: WatchSection | None = None,
    correlation: RewardCorrelation | None = None,
) -> str:
    """Lay out the report.

    Args:
        evaluation: All numbers.
        run: What is said about the run.
        pictures: The figures.
        samples: Sentences to show.
        watch: Held-out prompts during training, and probes; None leaves the part out.
        correlation: How the rewards go together; None where there are fewer than two.

    Returns:
        A whole HTML document that refers to nothing outside itself.
    """
    return (
        report_environment()
        .get_template("report.html")
        .render(
            run=run,
            evaluation=evaluation,
            verdict=evaluation.verdict,
            methods=evaluation.present,
            pictures=pictures,
            samples=samples,
            watch=watch,
            correlation=correlation,
            metric_rows=metric_rows(evaluation),
            condition_rows=condition_rows(evaluation),
            absent=absent_reasons(evaluation),
            flat=flat_notes(evaluation),
            notes=[*population_notes(evaluation), *bootstrap_notes(evaluation)],
            tier_tables=tier_tables(evaluation),
            metrics=[evaluation.metric_info[metric] for metric in shown_metrics(evaluation)],
            primary=METRICS[PRIMARY].label,
        )
    )


def metric_rows(evaluation: Evaluation) -> list[TableRow]:
    """Rows of the main table: a metric each, all methods and the difference."""
    return [
        TableRow(
            label=info.label,
            note=f"{info.meaning} {DIRECTION[info.better]}".strip(),
            cells=(
                *(_number(evaluation, metric, m.metrics, m) for m in evaluation.present),
                *_difference_cells(metric, evaluation),
            ),
            is_primary=metric == PRIMARY,
            tip=_tip(info),
        )
        for metric in shown_metrics(evaluation)
        for info in (evaluation.metric_info[metric],)
    ]


def tier_tables(evaluation: Evaluation) -> list[TierTable]:
    """The metrics that matter most by held-out tier; none where there is one tier only.

    These are the primary metric, the correlation over all genes, and scFID in every embedding.
    """
    if len(evaluation.tiers) < 2:
        return []
    shown = shown_metrics(evaluation)
    wanted = [PRIMARY, Metric.ALL_PEARSON, *(key for key in shown if key.startswith("scfid/"))]
    return [
        TierTable(
            evaluation.metric_info[metric].label,
            tuple(_tier_row(evaluation, metric, tier) for tier in evaluation.tiers),
        )
        for metric in wanted
        if metric in shown
    ]


def _tier_row(evaluation: Evaluation, metric: str, tier: str) -> TableRow:
    conditions = [name for name, own in evaluation.tier_of.items() if own == tier]
    difference = evaluation.difference
    return TableRow(
        label=tier,
        note=f"{_count(evaluation.tiers[tier], 'prompt')}, {_count(len(conditions), 'condition')}",
        cells=(
            *(_number(evaluation, metric, m.per_tier.get(tier, {}), m) for m in evaluation.present),
            *_changes(evaluation, metric, difference.per_tier.get(tier, {}) if difference else {}),
        ),
    )


def condition_rows(evaluation: Evaluation) -> list[TableRow]:
    """Rows of the per-condition table: the primary metric of all methods and the difference."""
    rows = []
    for condition, num_prompts in evaluation.conditions.items():
        unseen = ", not seen in training" if condition in evaluation.unseen_conditions else ""
        tier = evaluation.tier_of.get(condition, "")
        place = f", {tier}" if tier else unseen
        cells = [
            _number(evaluation, PRIMARY, m.per_condition.get(condition, {}), m)
            for m in evaluation.present
        ]
        rows.append(
            TableRow(
                label=condition,
                note=f"{_count(num_prompts, 'prompt')}{place}",
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


DIRECTION = {
    Better.HIGHER: "Higher is better.",
    Better.LOWER: "Lower is better.",
    Better.NEITHER: "",
}


def _tip(info: MetricInfo) -> str:
    best = "" if info.best is None else f"{info.best:g}"
    parts = {
        "Best": best,
        "Unit": info.unit,
        "Baseline": info.baseline,
        "Ceiling": info.ceiling,
        "Source": info.source,
    }
    return "\n".join(f"{name}: {text}" for name, text in parts.items() if text)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _number(
    evaluation: Evaluation, metric: str, source: Mapping[str, Interval], method: MethodResult
) -> NumberCell:
    interval = source.get(metric)
    if interval is None or interval.mean is None:
        word = NOT_APPLICABLE if metric in method.not_applicable else ABSENT
        return NumberCell(word, "", method.kind)
    info = evaluation.metric_info[metric]
    return NumberCell(format_value(info, interval.mean), format_range(info, interval), method.kind)


def _difference_cells(
    metric: str, evaluation: Evaluation, condition: str | None = None
) -> tuple[NumberCell, ...]:
    """The last column; there is none without two policies to compare."""
    difference = evaluation.difference
    if difference is None:
        return ()
    source = difference.metrics if condition is None else difference.per_condition[condition]
    cells = _changes(evaluation, metric, source)
    gain = difference.gains.get(metric)
    if condition is not None or gain is None:
        return cells
    return tuple(replace(cell, gain=format_gain(gain)) for cell in cells)


def _changes(
    evaluation: Evaluation, metric: str, source: Mapping[str, Interval]
) -> tuple[NumberCell, ...]:
    if evaluation.difference is None:
        return ()
    interval = source.get(metric)
    if interval is None or interval.mean is None:
        return (NumberCell(ABSENT, "", "open"),)
    info = evaluation.metric_info[metric]
    return (
        NumberCell(
            format_value(info, interval.mean, is_signed=True),
            format_range(info, interval, is_signed=True),
            _look(info, interval),
        ),
    )


def _look(info: MetricInfo, interval: Interval) -> str:
    better = info.better
    if interval.low is None or interval.high is None or better is Better.NEITHER:
        return "open"
    if interval.low > 0:
        return "good" if better is Better.HIGHER else "bad"
    if interval.high < 0:
        return "bad" if better is Better.HIGHER else "good"
    return "open"
