"""The result of a text evaluation in words: is the aligned policy better, and at which price.

A gain is called one only when the paired 95 % interval excludes 0.
"""

from collections.abc import Sequence

from c2s_rl.evaluation.bootstrap import Interval
from c2s_rl.evaluation.cell_metrics import Better
from c2s_rl.evaluation.result import MethodKind, Outcome, Verdict
from c2s_rl.evaluation.text_metrics import TEXT_METRICS, TextMetric
from c2s_rl.evaluation.text_result import (
    PRIMARY,
    TextDifference,
    TextMethodResult,
    text_range,
    text_value,
)

# A similarity is won by phrases that fit everything; these fall when that happens.
GUARDS = (
    TextMetric.KEYWORD_RECALL,
    TextMetric.EXACT_LABEL,
    TextMetric.TRUNCATED_RATE,
    TextMetric.EMPTY_RATE,
)


def give_text_verdict(
    methods: Sequence[TextMethodResult], difference: TextDifference | None
) -> Verdict:
    """Say what the numbers say.

    Args:
        methods: All columns of the table.
        difference: The paired comparison; None when there are no two policies to compare.
    """
    label = TEXT_METRICS[PRIMARY].label
    scale = _scale(methods)
    if difference is None:
        found = "; ".join(
            f"{method.name} has a {label} of {_value(method)}"
            for method in methods
            if method.kind is MethodKind.POLICY
        )
        headline = f"No two policies were compared: {found}."
        return Verdict(outcome=Outcome.NOT_COMPARED, headline=headline, price="", scale=scale)
    by_name = {method.name: method for method in methods}
    candidate, baseline = by_name[difference.candidate], by_name[difference.baseline]
    change = difference.metrics[PRIMARY]
    outcome = _outcome(change)
    claim = {
        Outcome.BETTER: f"{candidate.name} is better than {baseline.name} in {label}",
        Outcome.WORSE: f"{candidate.name} is worse than {baseline.name} in {label}",
    }.get(
        outcome,
        f"No difference in {label} between {candidate.name} and {baseline.name} is shown",
    )
    ends = text_range(PRIMARY, change, is_signed=True)
    interval = f"95 % interval {ends}" if ends else "no interval: one prompt a condition"
    worse = [metric for metric in GUARDS if _is_worse(metric, difference.metrics[metric])]
    return Verdict(
        outcome=outcome,
        headline=f"{claim}: {_value(candidate)} against {_value(baseline)}, difference "
        f"{text_value(PRIMARY, change.mean, is_signed=True)} ({interval}) on "
        f"{change.num_prompts} held-out prompts of {change.num_conditions} conditions.",
        is_at_a_price=bool(worse),
        price=_price(candidate, baseline, worse),
        scale=scale,
    )


def _outcome(interval: Interval) -> Outcome:
    if interval.low is None or interval.high is None:
        return Outcome.UNDECIDED
    if interval.low > 0:
        return Outcome.BETTER
    return Outcome.WORSE if interval.high < 0 else Outcome.UNDECIDED


def _is_worse(metric: TextMetric, interval: Interval) -> bool:
    if interval.low is None or interval.high is None:
        return False
    is_lower_better = TEXT_METRICS[metric].better is Better.LOWER
    return interval.low > 0 if is_lower_better else interval.high < 0


def _price(
    candidate: TextMethodResult, baseline: TextMethodResult, worse: Sequence[TextMetric]
) -> str:
    if not worse:
        labels = ", ".join(TEXT_METRICS[metric].label for metric in GUARDS)
        return f"None of these became measurably worse: {labels}."
    changes = ", ".join(
        f"{TEXT_METRICS[metric].label} {text_value(metric, baseline.metrics[metric].mean)} to "
        f"{text_value(metric, candidate.metrics[metric].mean)}"
        for metric in worse
    )
    return f"Worse beside it, {baseline.name} to {candidate.name}: {changes}."


def _scale(methods: Sequence[TextMethodResult]) -> str:
    points = [
        f"{method.name} {_value(method)}"
        for method in methods
        if method.kind is MethodKind.NULL and not method.absent_reason
    ]
    return f"For scale, {TEXT_METRICS[PRIMARY].label}: {', '.join(points)}." if points else ""


def _value(method: TextMethodResult) -> str:
    return text_value(PRIMARY, method.metrics[PRIMARY].mean)
