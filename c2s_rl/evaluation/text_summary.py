"""From text answers to numbers with intervals: one result a method, and the paired comparison.

The unit of the bootstrap is the prompt, as in `bootstrap.py`: a prompt's value is the mean over
its answers. Words about the result are in `text_verdict.py`.

Shape suffix: P prompts.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt

from c2s_rl.evaluation.bertscore import BertScorer
from c2s_rl.evaluation.bootstrap import Interval, paired_interval, stratified_interval
from c2s_rl.evaluation.rank import DoubleArray, IndexArray
from c2s_rl.evaluation.summary import Resampling
from c2s_rl.evaluation.text_methods import TextMethod
from c2s_rl.evaluation.text_metrics import (
    TextMetric,
    count_words,
    is_same_label,
    keyword_recall,
)
from c2s_rl.evaluation.text_result import TextDifference, TextMethodResult
from c2s_rl.types import PromptRecord


@dataclass(frozen=True, eq=False)
class ScoredTexts:
    """A method with its values a prompt."""

    method: TextMethod
    values: Mapping[TextMetric, DoubleArray]
    """[P] mean over the prompt's answers; nan where it has none."""


def score_texts(
    method: TextMethod, records_P: Sequence[PromptRecord], scorer: BertScorer
) -> ScoredTexts:
    """Score a method's answers to every prompt."""
    counts_P = [len(answers) for answers in method.answers_P]
    answers = list(chain.from_iterable(method.answers_P))
    records = [r for r, num in zip(records_P, counts_P, strict=True) for _ in range(num)]
    bert = scorer.score([a.text for a in answers], [r.target for r in records])
    pairs = list(zip(answers, records, strict=True))
    recalls = [keyword_recall(a.text, r.keywords) for a, r in pairs]
    words = [count_words(a.text) for a in answers]
    flat: dict[TextMetric, npt.ArrayLike] = {
        TextMetric.BERTSCORE: bert.f1_B,
        TextMetric.KEYWORD_RECALL: [np.nan if share is None else share for share in recalls],
        TextMetric.EXACT_LABEL: [is_same_label(a.text, r.target) for a, r in pairs],
        TextMetric.NUM_WORDS: words,
        TextMetric.TRUNCATED_RATE: [a.is_truncated for a in answers],
        TextMetric.EMPTY_RATE: [num == 0 for num in words],
    }
    return ScoredTexts(
        method, {m: _means(np.asarray(values, float), counts_P) for m, values in flat.items()}
    )


def summarise_texts(
    scored: ScoredTexts, records_P: Sequence[PromptRecord], resampling: Resampling
) -> TextMethodResult:
    """Mean and interval of every metric, over all conditions and within each."""
    conditions_P = _conditions(records_P)

    def alone(metric: TextMetric, rows: IndexArray) -> Interval:
        return stratified_interval(
            scored.values[metric][rows],
            conditions_P[rows].tolist(),
            num_draws=resampling.num_draws,
            seed=resampling.seed,
        )

    overall, per_condition = _intervals(conditions_P, alone)
    method = scored.method
    return TextMethodResult(
        name=method.name,
        kind=method.kind,
        definition=method.definition,
        absent_reason=method.absent_reason,
        metrics=overall,
        per_condition=per_condition,
        num_answers=sum(map(len, method.answers_P)),
    )


def compare_texts(
    candidate: ScoredTexts,
    baseline: ScoredTexts,
    records_P: Sequence[PromptRecord],
    resampling: Resampling,
) -> TextDifference:
    """Paired difference candidate - baseline of every metric, overall and within conditions."""
    conditions_P = _conditions(records_P)

    def paired(metric: TextMetric, rows: IndexArray) -> Interval:
        return paired_interval(
            candidate.values[metric][rows],
            baseline.values[metric][rows],
            conditions_P[rows].tolist(),
            num_draws=resampling.num_draws,
            seed=resampling.seed,
        )

    overall, per_condition = _intervals(conditions_P, paired)
    return TextDifference(
        candidate=candidate.method.name,
        baseline=baseline.method.name,
        metrics=overall,
        per_condition=per_condition,
    )


def _means(values: DoubleArray, counts_P: Sequence[int]) -> DoubleArray:
    """[P] mean of each prompt's values; nan where it has none."""
    parts = np.split(values, np.cumsum(counts_P)[:-1]) if counts_P else []
    return np.array([part.mean() if len(part) else np.nan for part in parts])


def _conditions(records_P: Sequence[PromptRecord]) -> npt.NDArray[np.str_]:
    return np.array([record.condition for record in records_P], dtype=np.str_)


def _intervals(
    conditions_P: npt.NDArray[np.str_], interval: Callable[[TextMetric, IndexArray], Interval]
) -> tuple[dict[TextMetric, Interval], dict[str, dict[TextMetric, Interval]]]:
    """Run `interval` on the rows of all prompts, and on those of each condition."""
    every_row = np.arange(len(conditions_P))
    overall = {metric: interval(metric, every_row) for metric in TextMetric}
    per_condition = {
        str(condition): {
            metric: interval(metric, np.flatnonzero(conditions_P == condition))
            for metric in TextMetric
        }
        for condition in np.unique(conditions_P)
    }
    return overall, per_condition
