"""Expression of a completion against its target's: Pearson's r and root mean squared error.

Both sides are sentences, read as log1p(CP10k) by rank and cut to the same length: the best answer
that can be written down is then perfect. Left out: measured values, which a sentence cannot hold.

Shape suffixes: G completions of one prompt, V vocabulary, N compared genes.
"""

import math
from abc import ABC, abstractmethod
from enum import StrEnum
from typing import ClassVar

import numpy as np
from pydantic import Field

from c2s_rl.cells.programs import load_program, program_indices
from c2s_rl.cells.sentence import sentence_to_expression
from c2s_rl.config import FrozenConfig
from c2s_rl.errors import DataError
from c2s_rl.evaluation.expression_change import for_full_answers
from c2s_rl.evaluation.rank import DoubleArray, IndexArray, pearson_rows
from c2s_rl.types import Group, IntArray
from rewards.base import RewardBatch, RewardResult, RewardScope
from rewards.info import RewardInfo


class ExpressionForm(StrEnum):
    """What is compared."""

    ABSOLUTE = "absolute"
    """Expression."""
    DELTA = "delta"
    """Expression minus that of the control cell in the prompt; copying the control earns least."""


class ExpressionOptions(FrozenConfig):
    """Which genes are compared, and how."""

    program: str | None = Field(
        None, description="Gene program to compare; none takes the target's own top genes"
    )
    top_genes: int = Field(
        50,
        ge=2,
        description="Without a program: the target's highest genes, or in the delta form the "
        "genes that target and completion change most",
    )
    form: ExpressionForm = Field(
        ExpressionForm.ABSOLUTE, description="absolute expression, or delta to the control"
    )


class ExpressionReward(ABC):
    """Compares the expression of N genes, x of the completion with y of the target.

    The genes are those of a program or the target's top genes. In the delta form x and y are
    differences to the control cell of the prompt, and the completion's own top changes are compared
    too: any unrelated answer loses the genes of the control, as the target does, and only what it
    gains in their place tells it apart. For the same reason a positive reward of an answer that
    names only a share of as many genes as its target is cut to that share. Genes that a sentence
    does not name have expression 0. A prompt whose target says nothing about the genes (all equal)
    abstains.
    """

    scope = RewardScope.GROUP
    Options: ClassVar[type[ExpressionOptions]] = ExpressionOptions

    def __init__(self, options: ExpressionOptions) -> None:
        self._options = options
        self._program = load_program(options.program) if options.program else None

    def score(self, batch: RewardBatch) -> RewardResult:
        """Score every completion; see the class for the formula."""
        program_N = program_indices(self._program, batch.vocabulary) if self._program else None
        scores: list[float | None] = []
        for group in batch.groups:
            scores += self._score_group(group, batch, program_N)
        return RewardResult(tuple(scores))

    def _score_group(
        self, group: Group, batch: RewardBatch, program_N: IntArray | None
    ) -> list[float | None]:
        record, reference = group.record, batch.material.reference

        def expression(genes_K: IntArray) -> DoubleArray:
            cut_K = genes_K[: reference.num_genes]
            values = sentence_to_expression(cut_K, reference.rank_model, len(batch.vocabulary))
            return values.astype(np.float64)

        target_V = expression(record.target_genes_K)
        if self._options.form is ExpressionForm.DELTA:
            if not len(record.context_genes_K):
                raise DataError(
                    "the delta form needs a control cell in the prompt, "
                    f"got none in prompt {record.prompt_id!r}"
                )
            control_V = expression(record.context_genes_K)
        else:
            control_V = np.zeros(len(target_V))
        y_V = target_V - control_V
        genes_N = self._top_genes(y_V) if program_N is None else program_N
        y_N = y_V[genes_N]
        if not len(y_N) or (y_N == y_N[0]).all():
            return [None] * len(group.cells_G)
        x_G_V = [expression(cell.genes_K) - control_V for cell in group.cells_G]
        if program_N is None and self._options.form is ExpressionForm.DELTA:
            own = [np.union1d(genes_N, self._top_genes(x_V)) for x_V in x_G_V]
        else:
            own = [genes_N] * len(x_G_V)
        scores_G = np.array(
            [
                self._compare(x_V[genes][None], y_V[genes])[0]
                for x_V, genes in zip(x_G_V, own, strict=True)
            ]
        )
        if self._options.form is ExpressionForm.DELTA:
            wanted = min(len(record.target_genes_K), reference.num_genes)
            lengths_G = np.array([len(cell.genes_K) for cell in group.cells_G])
            scores_G = for_full_answers(scores_G, lengths_G / wanted)
        return [float(value) for value in scores_G]

    def _top_genes(self, y_V: DoubleArray) -> IndexArray:
        """The genes of largest absolute value, ties by index; none that is 0."""
        order = np.argsort(-np.abs(y_V), kind="stable")[: self._options.top_genes]
        found: IndexArray = order[y_V[order] != 0]
        return found

    @abstractmethod
    def _compare(self, x_G_N: DoubleArray, y_N: DoubleArray) -> DoubleArray:
        """[G] reward of each row."""


class PearsonReward(ExpressionReward):
    """`ExpressionReward` with reward = Pearson's r of x and y, in [-1, 1].

    A completion that says nothing about the genes (all equal) has no correlation and scores 0,
    which is what chance gets.

    Source: C2S-Scale 4.6.9; the delta form as in GEARS, doi:10.1038/s41587-023-01905-6.
    """

    info = RewardInfo(
        meaning="Expression by rank correlates with the target's",
        low=-1.0,
        high=1.0,
        baseline="answer that names none of the genes 0; copied control high, in the delta form 0",
        source="C2S-Scale 4.6.9",
    )

    def _compare(self, x_G_N: DoubleArray, y_N: DoubleArray) -> DoubleArray:
        return np.nan_to_num(pearson_rows(x_G_N, y_N), nan=0.0)


class RmseReward(ExpressionReward):
    """`ExpressionReward` with reward = -sqrt(mean (x - y)^2), in log1p(CP10k), <= 0."""

    info = RewardInfo(
        meaning="Expression by rank is near the target's; log1p(CP10k)",
        low=-math.inf,
        high=0.0,
        baseline="answer that names none of the genes: minus the target's root mean square",
        source="this project",
    )

    def _compare(self, x_G_N: DoubleArray, y_N: DoubleArray) -> DoubleArray:
        return np.asarray(-np.sqrt(((x_G_N - y_N) ** 2).mean(axis=1)), dtype=np.float64)
