"""From answers to numbers by task: every method scored on every prompt, means with intervals.

A prompt's value is the mean over its answers, and a task's the mean over its prompts, each weighing
the same. Left out: sampling the answers and finding the losses, which need models.

Shape suffix: P prompts of one task.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.evaluation.bertscore import BertScorer
from c2s_rl.evaluation.bootstrap import Interval, stratified_interval
from c2s_rl.evaluation.rank import DoubleArray
from c2s_rl.evaluation.summary import Resampling
from c2s_rl.evaluation.task_metrics import TaskFigure, gene_overlap, valid_words
from c2s_rl.evaluation.text_methods import Answer
from c2s_rl.evaluation.text_metrics import is_same_label
from c2s_rl.prompts.tasks import TASK_RULES, TaskMetric
from c2s_rl.types import PromptRecord, Task

FIGURE_OF_METRIC: Mapping[TaskMetric, TaskFigure] = {
    TaskMetric.OVERLAP: TaskFigure.OVERLAP,
    TaskMetric.BERTSCORE: TaskFigure.BERTSCORE,
    TaskMetric.ACCURACY: TaskFigure.ACCURACY,
}

Figures = dict[TaskFigure, DoubleArray]
"""Figure to [P] value of each prompt; nan where it has none."""


@dataclass(frozen=True, eq=False)
class Answered:
    """One task, answered by one method."""

    answers_P: Sequence[Sequence[Answer]]
    """[P] its answers to each prompt; an empty one has no value there."""
    losses_P: Sequence[float] | None = None
    """[P] loss of the right answers; None for what is no model."""


def score_answers(
    task: Task,
    records_P: Sequence[PromptRecord],
    answered: Answered,
    *,
    vocabulary: Vocabulary,
    scorer: BertScorer | None,
) -> Figures:
    """Score a method's answers to the prompts of one task.

    Args:
        task: Decides the metric.
        records_P: [P] the prompts.
        answered: The answers.
        vocabulary: What counts as a gene.
        scorer: Of BERTScore; needed for the tasks whose metric it is.

    Returns:
        The figures that the task has.
    """
    pairs_P = [
        [(answer, record) for answer in answers]
        for answers, record in zip(answered.answers_P, records_P, strict=True)
    ]

    def mean(score: Callable[[Answer, PromptRecord], float]) -> DoubleArray:
        return np.array(
            [np.mean([score(*pair) for pair in pairs]) if pairs else np.nan for pairs in pairs_P]
        )

    figures: Figures = {}
    if TASK_RULES[task].metric is TaskMetric.OVERLAP:
        figures[TaskFigure.OVERLAP] = mean(lambda a, r: gene_overlap(a.text, r.target, vocabulary))
        figures[TaskFigure.VALID_WORDS] = mean(lambda a, _: valid_words(a.text, vocabulary))
    else:
        figures[TaskFigure.ACCURACY] = mean(lambda a, r: float(is_same_label(a.text, r.target)))
    if TASK_RULES[task].metric is TaskMetric.BERTSCORE:
        assert scorer is not None
        flat = [pair for pairs in pairs_P for pair in pairs]
        f1 = iter(scorer.score([a.text for a, _ in flat], [r.target for _, r in flat]).f1_B)
        figures[TaskFigure.BERTSCORE] = mean(lambda _a, _r: float(next(f1)))
    figures[TaskFigure.TRUNCATED_RATE] = mean(lambda a, _: float(a.is_truncated))
    if answered.losses_P is not None:
        figures[TaskFigure.LOSS] = np.asarray(answered.losses_P, dtype=np.float64)
    return figures


def means(figures: Figures, resampling: Resampling) -> dict[TaskFigure, Interval]:
    """Mean over prompts of every figure, with its bootstrap interval."""
    return {figure: _interval(values_P, resampling) for figure, values_P in figures.items()}


def gains(
    candidate: Figures, baseline: Figures, resampling: Resampling
) -> dict[TaskFigure, Interval]:
    """Paired difference of every figure on the same prompts, candidate less baseline."""
    return {
        figure: _interval(candidate[figure] - baseline[figure], resampling)
        for figure in TaskFigure
        if figure in candidate and figure in baseline
    }


def _interval(values_P: DoubleArray, resampling: Resampling) -> Interval:
    # One stratum: the conditions of a task may be as many as its prompts (gene sets, abstracts).
    return stratified_interval(
        values_P, ["all"] * len(values_P), num_draws=resampling.num_draws, seed=resampling.seed
    )
