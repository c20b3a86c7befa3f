"""Kendall's tau between the generated and the true order of a gene program."""

import math
from enum import StrEnum

from pydantic import Field, model_validator

from c2s_rl.cells.programs import load_program, program_indices
from c2s_rl.config import FrozenConfig
from c2s_rl.errors import DataError
from c2s_rl.evaluation.rank import TauVariant, program_tau
from c2s_rl.types import Group, IntArray
from rewards.base import RewardBatch, RewardResult, RewardScope
from rewards.info import RewardInfo


class TauForm(StrEnum):
    """What is compared."""

    ABSOLUTE = "absolute"
    """The ranks of the program's genes."""
    DELTA = "delta"
    """How those ranks moved against the control cell; copying the control earns nothing."""


class KendallOptions(FrozenConfig):
    """Which genes are compared, and how."""

    program: str = Field(
        description="Shipped gene program, or 'file.gmt:SET_NAME'",
        examples=["hallmark_interferon_alpha_response"],
    )
    variant: TauVariant = Field(
        TauVariant.B, description="b corrects for ties; a is the paper's printed formula"
    )
    form: TauForm = Field(TauForm.ABSOLUTE, description="absolute ranks, or delta to the control")
    num_genes: int | None = Field(
        None,
        ge=1,
        description="Cut completion, target and control to so many genes first; needed for delta: "
        "the length of the sentences",
    )

    @model_validator(mode="after")
    def _delta_is_cut(self) -> "KendallOptions":
        # Whole rankings differ in length, and the shared last rank with them: every gene that is
        # not written would seem to move.
        if self.form is TauForm.DELTA and self.num_genes is None:
            raise ValueError("the delta form needs num_genes, got None")
        return self


class KendallReward:
    """Scores the order in which a completion writes the genes of a program.

    reward = tau(ranks generated, ranks of the target) over the program's genes. A gene's rank is
    its position among the known genes of the completion, each counted once: a repeated or unknown
    word has no position and earns nothing. Genes not written share the rank after the last.
    A completion without any order of the program (none of its genes written) scores 0; a prompt
    whose target has none abstains.

    Source: C2S-Scale section 4.5.2.
    """

    info = RewardInfo(
        meaning="The program's genes stand in the target's order",
        low=-1.0,
        high=1.0,
        baseline="order of chance 0; the copied control well above it (0.8 on L1000), so see delta",
        source="C2S-Scale section 4.5.2",
    )
    scope = RewardScope.GROUP
    Options = KendallOptions

    def __init__(self, options: KendallOptions) -> None:
        self._options = options
        self._program = load_program(options.program)
        self._indices: dict[int, IntArray] = {}

    def score(self, batch: RewardBatch) -> RewardResult:
        """Score every completion; see the class for the formula."""
        # The vocabulary stays the same object for a whole run: look the program up once.
        key = id(batch.vocabulary)
        if key not in self._indices:
            self._indices = {key: program_indices(self._program, batch.vocabulary)}
        program_N = self._indices[key]
        scores: list[float | None] = []
        covered: list[float] = []
        for group in batch.groups:
            scores += self._score_group(group, program_N, len(batch.vocabulary))
            covered += [
                float(len(set(cell.genes_K.tolist()).intersection(program_N.tolist())))
                for cell in group.cells_G
            ]
        return RewardResult(tuple(scores), {"program_genes": tuple(covered)})

    def _score_group(
        self, group: Group, program_N: IntArray, num_vocabulary: int
    ) -> list[float | None]:
        record = group.record
        is_delta = self._options.form is TauForm.DELTA
        if is_delta and not len(record.context_genes_K):
            raise DataError(
                "the delta form needs a control cell in the prompt, "
                f"got none in prompt {record.prompt_id!r}"
            )
        length = self._options.num_genes
        target_K = record.target_genes_K[:length]
        taus_G = program_tau(
            [*(cell.genes_K[:length] for cell in group.cells_G), target_K],
            target_K,
            program_N,
            num_vocabulary=num_vocabulary,
            variant=self._options.variant,
            control_genes_K=record.context_genes_K[:length] if is_delta else None,
        ).tolist()
        # The target against itself is nan only when it has no order to be compared with.
        if math.isnan(taus_G.pop()):
            return [None] * len(group.cells_G)
        return [0.0 if math.isnan(tau) else tau for tau in taus_G]
