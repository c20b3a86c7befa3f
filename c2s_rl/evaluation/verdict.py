"""The result in words: is the aligned policy better, at which price, and on which scale.

The sentences follow from the intervals alone. A gain is called one only when the paired 95 %
interval excludes 0; what became worse beside it is named in the same breath.
"""

from collections.abc import Mapping, Sequence

from c2s_rl.evaluation.bootstrap import Interval
from c2s_rl.evaluation.metrics import METRICS, Better, Metric, MetricInfo
from c2s_rl.evaluation.result import (
    PRIMARY,
    Difference,
    MethodKind,
    MethodResult,
    Outcome,
    Verdict,
    format_range,
    format_value,
)

# A reward on one program is easily won by spoiling these, so they are watched beside it; so is
# every metric of populations. The program's own other metrics are not: they move with the first.
GUARDS: tuple[str, ...] = (
    Metric.DUPLICATE_RATE,
    Metric.UNKNOWN_RATE,
    Metric.TRUNCATED_RATE,
    Metric.GENE_OVERLAP,
    Metric.ALL_TAU,
    Metric.ALL_PEARSON,
)


def give_verdict(
    methods: Sequence[MethodResult],
    difference: Difference | None,
    info: Mapping[Metric, MetricInfo] | Mapping[str, MetricInfo] = METRICS,
) -> Verdict:
    """Say what the numbers say.

    Args:
        methods: All columns of the table.
        difference: The paired comparison; None when there are no two policies to compare.
        info: Every metric of the table by name.
    """
    rows: dict[str, MetricInfo] = {str(key): value for key, value in info.items()}
    scale = _scale(methods)
    if difference is None:
        headline = "No two policies were compared: " + "; ".join(
            f"{method.name} has a {METRICS[PRIMARY].label} of {_value(method.metrics)}"
            for method in methods
            if method.kind is MethodKind.POLICY
        )
        return Verdict(outcome=Outcome.NOT_COMPARED, headline=headline + ".", price="", scale=scale)
    by_name = {method.name: method for method in methods}
    candidate, baseline = by_name[difference.candidate], by_name[difference.baseline]
    outcome = _outcome(difference.metrics[PRIMARY])
    return Verdict(
        outcome=outcome,
        headline=_headline(outcome, candidate, baseline, difference),
        is_at_a_price=bool(worse_guards(difference, rows)),
        price=_price(candidate, baseline, difference, rows),
        scale=scale,
    )


def do_overlap(first: Interval, second: Interval) -> bool | None:
    """Whether two intervals share a value; None when one of them has no ends."""
    if first.low is None or first.high is None or second.low is None or second.high is None:
        return None
    return first.low <= second.high and second.low <= first.high


def guards(difference: Difference, info: Mapping[str, MetricInfo]) -> list[str]:
    """Metrics that are watched beside the primary one and have a difference to look at."""
    watched = [*GUARDS, *(key for key in info if key not in set(Metric))]
    return [
        key
        for key in watched
        if info[key].better is not Better.NEITHER
        and key in difference.metrics
        and difference.metrics[key].mean is not None
    ]


def worse_guards(difference: Difference, info: Mapping[str, MetricInfo]) -> list[str]:
    """Guard metrics whose paired interval lies wholly on the bad side of 0."""
    return [
        key for key in guards(difference, info) if _is_worse(info[key], difference.metrics[key])
    ]


def _is_worse(info: MetricInfo, interval: Interval) -> bool:
    if interval.low is None or interval.high is None:
        return False
    return interval.low > 0 if info.better is Better.LOWER else interval.high < 0


def _outcome(interval: Interval) -> Outcome:
    if interval.low is None or interval.high is None:
        return Outcome.UNDECIDED
    if interval.low > 0:
        return Outcome.BETTER
    return Outcome.WORSE if interval.high < 0 else Outcome.UNDECIDED


def _headline(
    outcome: Outcome, candidate: MethodResult, baseline: MethodResult, difference: Difference
) -> str:
    label = METRICS[PRIMARY].label
    claim = {
        Outcome.BETTER: f"{candidate.name} is better than {baseline.name} in {label}",
        Outcome.WORSE: f"{candidate.name} is worse than {baseline.name} in {label}",
        Outcome.UNDECIDED: f"No difference in {label} between {candidate.name} and "
        f"{baseline.name} is shown",
    }[outcome]
    change = difference.metrics[PRIMARY]
    ends = format_range(PRIMARY, change, is_signed=True)
    interval = f"95 % interval {ends}" if ends else "no interval: one prompt a condition"
    overlap = do_overlap(candidate.metrics[PRIMARY], baseline.metrics[PRIMARY])
    pair = "" if overlap is None else f"; their own intervals {'' if overlap else 'do not '}overlap"
    return (
        f"{claim}: {_value(candidate.metrics)} against {_value(baseline.metrics)}, difference "
        f"{format_value(PRIMARY, change.mean, is_signed=True)} ({interval}) on "
        f"{_count(change.num_prompts, 'held-out prompt')} of "
        f"{_count(change.num_conditions, 'condition')}{pair}."
    )


def _price(
    candidate: MethodResult,
    baseline: MethodResult,
    difference: Difference,
    info: Mapping[str, MetricInfo],
) -> str:
    worse = worse_guards(difference, info)
    if not worse:
        labels = "; ".join(info[key].label for key in guards(difference, info))
        return f"None of these became measurably worse: {labels}."
    changes = "; ".join(
        f"{info[key].label} {format_value(info[key], baseline.metrics[key].mean)} to "
        f"{format_value(info[key], candidate.metrics[key].mean)}"
        for key in worse
    )
    is_gain = _outcome(difference.metrics[PRIMARY]) is Outcome.BETTER
    claim = "The gain has a price" if is_gain else "Worse beside it"
    return f"{claim}, {baseline.name} to {candidate.name}: {changes}."


def _scale(methods: Sequence[MethodResult]) -> str:
    points = [
        f"{method.name} {_value(method.metrics)}"
        for method in methods
        if method.kind is not MethodKind.POLICY and not method.absent_reason
    ]
    return f"For scale, {METRICS[PRIMARY].label}: {', '.join(points)}." if points else ""


def _value(metrics: Mapping[str, Interval]) -> str:
    return format_value(PRIMARY, metrics[PRIMARY].mean)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
