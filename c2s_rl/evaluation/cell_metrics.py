"""What a predicted cell is worth: every metric of a cell sentence against its target.

One path for policies, baselines and the ceiling: each is a list of `ParsedCell`, cut to the number
of genes that the prompt asks for, because a longer list would hold more of the target than was
asked. Text answers (cell type names) are not scored here.

Two kinds of missing order are kept apart. A *flat target* (it expresses no gene of the program)
cannot be ordered by anyone: the prompt has no value of that metric, for every method alike. A
*flat prediction* (the same of the answer) says nothing about the order: it counts as 0, which is
what chance gets, and it is counted.

Shape suffixes: B answers to one prompt, P prompts, N genes of a program, V vocabulary.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from c2s_rl.cells.sentence import RankModel, sentence_to_expression
from c2s_rl.evaluation.metrics import METRICS, Better, Metric, MetricInfo
from c2s_rl.evaluation.rank import (
    DoubleArray,
    TauVariant,
    pearson_rows,
    program_tau,
)
from c2s_rl.types import IntArray, ParsedCell, PromptRecord

__all__ = [
    "METRICS",
    "AnswerScores",
    "Better",
    "MethodScores",
    "Metric",
    "MetricInfo",
    "Yardstick",
    "has_program_order",
    "score_answers",
    "score_method",
]


@dataclass(frozen=True, eq=False)
class Yardstick:
    """What all answers of one evaluation are measured with."""

    program_N: IntArray
    """[N] vocabulary indices of the gene program."""
    rank_model: RankModel
    """Rank to log1p(CP10k) of the data set, for Pearson's r."""
    num_genes: int
    """Genes that a sentence is asked for; answers and reference sentences are cut to it."""
    num_vocabulary: int
    """V, genes of the data set."""
    variant: TauVariant
    """Kendall's tau a or b."""


@dataclass(frozen=True, eq=False)
class MethodScores:
    """All metrics of one method, one value a prompt."""

    values: Mapping[Metric, DoubleArray]
    """Metric to [P] means over the prompt's answers; nan where the prompt has no value."""
    num_flat: Mapping[Metric, int]
    """Metric to the number of answers that ordered nothing and were counted as 0."""
    num_answers: int
    """Answers over all prompts."""


def score_method(
    answers_P: Sequence[Sequence[ParsedCell]],
    records_P: Sequence[PromptRecord],
    yardstick: Yardstick,
) -> MethodScores:
    """Score all answers of one method.

    Args:
        answers_P: [P] answers to each prompt; none where the method has no answer to a prompt.
        records_P: [P] the prompts, with targets that hold genes.
        yardstick: Program, rank model and cut.

    Returns:
        One value a prompt and metric.
    """
    values = {metric: np.full(len(records_P), np.nan) for metric in Metric}
    num_flat = dict.fromkeys(Metric, 0)
    for p, (answers, record) in enumerate(zip(answers_P, records_P, strict=True)):
        if not answers:
            continue
        for metric, scores_B in score_answers(answers, record, yardstick).items():
            num_flat[metric] += int(scores_B.num_flat)
            values[metric][p] = scores_B.values_B.mean()
    return MethodScores(values, num_flat, sum(len(answers) for answers in answers_P))


@dataclass(frozen=True, eq=False)
class AnswerScores:
    """One metric of the answers to one prompt."""

    values_B: DoubleArray
    """[B] one value an answer; all nan when the prompt has no value of this metric."""
    num_flat: int = 0
    """Answers that ordered nothing; their value is 0."""


def score_answers(
    answers: Sequence[ParsedCell], record: PromptRecord, yardstick: Yardstick
) -> dict[Metric, AnswerScores]:
    """Score the answers to one prompt by every metric, see `METRICS` for what each means."""
    cells = [answer.genes_K[: yardstick.num_genes] for answer in answers]
    scores = {
        Metric.GENE_OVERLAP: AnswerScores(_overlap(cells, record, yardstick)),
        Metric.VALIDITY: AnswerScores(_share(answers, lambda a: len(a.genes_K))),
        Metric.DUPLICATE_RATE: AnswerScores(_share(answers, lambda a: a.num_duplicates)),
        Metric.UNKNOWN_RATE: AnswerScores(_share(answers, lambda a: len(a.unknown))),
        Metric.TRUNCATED_RATE: AnswerScores(np.array([float(a.is_truncated) for a in answers])),
        Metric.NUM_WORDS: AnswerScores(np.array([float(a.num_words) for a in answers])),
    }
    return (
        scores | _tau_scores(cells, record, yardstick) | _pearson_scores(cells, record, yardstick)
    )


def has_program_order(record: PromptRecord, program_N: IntArray) -> bool:
    """Whether the target orders the program: it expresses at least one of its genes.

    With one gene expressed the rest is tied below it, which is an order; with none all are tied.
    """
    return bool(np.isin(program_N, record.target_genes_K).any()) and len(program_N) > 1


def _overlap(cells: Sequence[IntArray], record: PromptRecord, yardstick: Yardstick) -> DoubleArray:
    """|generated and reference| / |reference|; the reference is the target's top `num_genes`."""
    reference = record.target_genes_K[: yardstick.num_genes]
    return np.array([np.isin(reference, cell).mean() for cell in cells])


def _share(answers: Sequence[ParsedCell], count: Callable[[ParsedCell], int]) -> DoubleArray:
    """Count over words; an empty answer has neither valid nor wrong words, so 0."""
    return np.array([count(answer) / max(answer.num_words, 1) for answer in answers])


def _tau_scores(
    cells: Sequence[IntArray], record: PromptRecord, yardstick: Yardstick
) -> dict[Metric, AnswerScores]:
    """Tau on the program (paper's convention: target uncut), its delta form, and on all genes.

    The delta form cuts target and control like the answers: ranks of lists of unequal length
    differ by their lengths alone, and that difference would pass for a response.
    """
    every_gene_V = np.arange(yardstick.num_vocabulary, dtype=np.int32)
    target, cut = record.target_genes_K, yardstick.num_genes
    control = record.context_genes_K[:cut] if len(record.context_genes_K) else None
    delta = (
        AnswerScores(np.full(len(cells), np.nan))
        if control is None
        else _tau(cells, target[:cut], yardstick.program_N, yardstick, control=control)
    )
    return {
        Metric.PROGRAM_TAU: _tau(cells, target, yardstick.program_N, yardstick),
        Metric.PROGRAM_TAU_DELTA: delta,
        Metric.ALL_TAU: _tau(cells, target, every_gene_V, yardstick),
    }


def _tau(
    cells: Sequence[IntArray],
    target: IntArray,
    genes_N: IntArray,
    yardstick: Yardstick,
    *,
    control: IntArray | None = None,
) -> AnswerScores:
    taus = program_tau(
        [*cells, target],
        target,
        genes_N,
        num_vocabulary=yardstick.num_vocabulary,
        variant=yardstick.variant,
        control_genes_K=control,
    )
    # The target against itself is nan only when it has no order to be compared with.
    return _settle(taus[:-1], is_target_flat=bool(np.isnan(taus[-1])))


def _pearson_scores(
    cells: Sequence[IntArray], record: PromptRecord, yardstick: Yardstick
) -> dict[Metric, AnswerScores]:
    """Pearson's r between expressions that both come from sentences of `num_genes` words.

    The target goes through its own sentence instead of its measured values: the best answer that
    can be written down then has r = 1, and no method is charged for what a sentence cannot say.
    """
    model, num_vocabulary = yardstick.rank_model, yardstick.num_vocabulary
    target_V = sentence_to_expression(
        record.target_genes_K[: yardstick.num_genes], model, num_vocabulary
    )
    answers_B_V = np.stack([sentence_to_expression(c, model, num_vocabulary) for c in cells])
    program_N = yardstick.program_N
    return {
        Metric.PROGRAM_PEARSON: _r(answers_B_V[:, program_N], target_V[program_N]),
        Metric.ALL_PEARSON: _r(answers_B_V, target_V),
    }


def _r(answers_B_N: np.ndarray, target_N: np.ndarray) -> AnswerScores:
    is_target_flat = bool((target_N == target_N[0]).all())
    return _settle(pearson_rows(answers_B_N, target_N), is_target_flat=is_target_flat)


def _settle(values_B: DoubleArray, *, is_target_flat: bool) -> AnswerScores:
    """Keep nan when the target is flat; otherwise a flat answer gets 0 and is counted."""
    if is_target_flat:
        return AnswerScores(np.full(len(values_B), np.nan))
    is_flat_B = np.isnan(values_B)
    return AnswerScores(np.where(is_flat_B, 0.0, values_B), num_flat=int(is_flat_B.sum()))
