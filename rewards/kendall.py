"""Kendall's tau between the generated and the true order of gene programs."""

import math
from collections.abc import Sequence
from enum import StrEnum

import numpy as np
from pydantic import Field, model_validator

from c2s_rl.cells.programs import GeneProgram, load_program, program_indices
from c2s_rl.config import FrozenConfig
from c2s_rl.errors import ConfigError, DataError
from c2s_rl.evaluation.rank import ProgramTaus, TauVariant, programs_tau
from c2s_rl.types import Group, IntArray
from rewards.base import RewardBatch, RewardResult, RewardScope
from rewards.info import RewardInfo


class TauForm(StrEnum):
    """What is compared."""

    ABSOLUTE = "absolute"
    """The ranks of the program's genes."""
    DELTA = "delta"
    """How those ranks moved against the control cell; copying the control earns nothing."""
    BASELINE = "baseline"
    """The absolute tau less that of the control cell; copying the control earns nothing."""


class TauTarget(StrEnum):
    """What a completion is compared with."""

    PROMPT = "prompt"
    """The target of the prompt: `corpus.reward_target` says whether it is a cell or a mean."""
    PSEUDOBULK = "pseudobulk"
    """The mean of the real cells of the prompt's condition, on the prompt's side of the split."""


class SeveralPrograms(StrEnum):
    """How several programs become one score."""

    MEAN = "mean"
    """The mean of their taus; programs that the target does not order are left out."""
    UNION = "union"
    """One tau over all their genes."""


class KendallOptions(FrozenConfig):
    """Which genes are compared, and how."""

    program: str | None = Field(
        None,
        description="Shipped gene program, 'file.gmt:SET_NAME', or 'genes.txt'",
        examples=["hallmark_interferon_alpha_response"],
    )
    programs: tuple[str, ...] = Field((), description="Several of them, instead of program")
    several: SeveralPrograms = Field(
        SeveralPrograms.MEAN, description="mean of the programs' taus, or tau of their union"
    )
    variant: TauVariant = Field(
        TauVariant.B, description="b corrects for ties; a is the paper's printed formula"
    )
    form: TauForm = Field(
        TauForm.ABSOLUTE,
        description="absolute ranks, delta to the control, or baseline: less the control's tau",
    )
    target: TauTarget = Field(
        TauTarget.PROMPT, description="the prompt's own target, or pseudobulk of its condition"
    )
    num_genes: int | None = Field(
        None,
        ge=1,
        description="Cut completion, target and control to so many genes first; needed for delta "
        "and baseline: the length of the sentences",
    )

    @model_validator(mode="after")
    def _some_program(self) -> "KendallOptions":
        if (self.program is None) == (not self.programs):
            got = "neither" if self.program is None else "both"
            raise ValueError(f"a tau reward needs either program or programs, got {got}")
        return self

    @model_validator(mode="after")
    def _control_is_cut(self) -> "KendallOptions":
        # Whole rankings differ in length, and the shared last rank with them: every gene that is
        # not written would seem to move, and no copy of a sentence could reach the whole control.
        if self.form is not TauForm.ABSOLUTE and self.num_genes is None:
            raise ValueError(f"the {self.form} form needs num_genes, got None")
        return self


class KendallReward:
    """Scores the order in which a completion writes the genes of a program.

    absolute: tau(ranks generated, ranks of the target) over the program's genes
    delta:    tau(ranks generated - ranks of the control, ranks of the target - of the control)
    baseline: tau(ranks generated, ranks of the target) - tau(ranks of the control, of the target)

    A gene's rank is its position among the known genes of the completion, each counted once: a
    repeated or unknown word has no position and earns nothing. Genes not written share the rank
    after the last. A completion without any order of the program (none of its genes written) has
    tau 0; a prompt whose target has none abstains.

    Diagnostics: `program_genes`, distinct genes of the programs that were written;
    `program_coverage`, their share of the genes that the vocabulary has; with the baseline form
    `control_tau`; with the mean of several programs `tau_<program>`; both nan where the target has
    no order.

    Source: C2S-Scale section 4.5.2.
    """

    info = RewardInfo(
        meaning="The program's genes stand in the target's order",
        low=-2.0,  # of the form baseline; the others stay in [-1, 1]
        high=2.0,
        baseline="order of chance 0; the copied control well above it (0.8 on L1000), but 0 in the "
        "forms delta and baseline",
        source="C2S-Scale section 4.5.2",
    )
    scope = RewardScope.GROUP
    Options = KendallOptions

    def __init__(self, options: KendallOptions) -> None:
        self._options = options
        names = options.programs or (options.program or "",)
        self._programs = _merged([load_program(name) for name in names], options.several)
        if len({program.name for program in self._programs}) != len(self._programs):
            raise ConfigError(
                "programs of one reward must have names of their own, "
                f"got {[program.name for program in self._programs]}"
            )
        self._indices: dict[int, tuple[IntArray, ...]] = {}
        self._pseudobulks: dict[str, IntArray] = {}

    def score(self, batch: RewardBatch) -> RewardResult:
        """Score every completion; see the class for the formula."""
        # The vocabulary stays the same object for a whole run: look the programs up once.
        key = id(batch.vocabulary)
        if key not in self._indices:
            found = tuple(program_indices(p, batch.vocabulary) for p in self._programs)
            self._indices = {key: found}
        programs = self._indices[key]
        scores: list[float | None] = []
        diagnostics: dict[str, list[float]] = {}
        for group in batch.groups:
            taus = self._taus(group, batch, programs)
            scores += self._scores(taus, len(group.completions_G))
            for name, values in self._explain(taus, programs, len(group.completions_G)).items():
                diagnostics.setdefault(name, []).extend(values)
        return RewardResult(tuple(scores), {n: tuple(v) for n, v in diagnostics.items()})

    def _taus(self, group: Group, batch: RewardBatch, programs: Sequence[IntArray]) -> ProgramTaus:
        """Taus of the completions, then of the target with itself, then of the control."""
        record, form = group.record, self._options.form
        if form is not TauForm.ABSOLUTE and not len(record.context_genes_K):
            raise DataError(
                f"the {form} form needs a control cell in the prompt, "
                f"got none in prompt {record.prompt_id!r}"
            )
        length = self._options.num_genes
        target_K = self._target(group, batch)[:length]
        control_K = record.context_genes_K[:length]
        compared = [*(cell.genes_K[:length] for cell in group.cells_G), target_K]
        if form is TauForm.BASELINE:
            compared.append(control_K)
        return programs_tau(
            compared,
            target_K,
            programs,
            num_vocabulary=len(batch.vocabulary),
            variant=self._options.variant,
            control_genes_K=control_K if form is TauForm.DELTA else None,
        )

    def _target(self, group: Group, batch: RewardBatch) -> IntArray:
        record = group.record
        if self._options.target is TauTarget.PROMPT:
            return record.target_genes_K
        name = f"{record.condition} | {record.split}"
        if name not in self._pseudobulks:
            self._pseudobulks[name] = batch.material.reference.pseudobulk(record, batch.vocabulary)
        return self._pseudobulks[name]

    def _scores(self, taus: ProgramTaus, num_completions: int) -> list[float | None]:
        # The target against itself is nan only where it has no order to be compared with.
        has_order_P = ~np.isnan(taus.taus_P_B[:, num_completions])
        if not has_order_P.any():
            return [None] * num_completions
        means_B = np.nan_to_num(taus.taus_P_B[has_order_P]).mean(axis=0)
        if self._options.form is TauForm.BASELINE:
            means_B = means_B - means_B[-1]
        scores: list[float | None] = [float(mean) for mean in means_B[:num_completions]]
        return scores

    def _explain(
        self, taus: ProgramTaus, programs: Sequence[IntArray], num_completions: int
    ) -> dict[str, list[float]]:
        written_G = taus.written_P_B[:, :num_completions].sum(axis=0)
        total = sum(len(program_N) for program_N in programs)
        figures = {
            "program_genes": [float(num) for num in written_G],
            "program_coverage": [float(num) / total for num in written_G],
        }
        # The same programs as in the score; nan where there is none.
        has_order_P = ~np.isnan(taus.taus_P_B[:, num_completions])
        if self._options.form is TauForm.BASELINE:
            control_P = np.nan_to_num(taus.taus_P_B[has_order_P, -1])
            control = float(control_P.mean()) if len(control_P) else math.nan
            figures["control_tau"] = [control] * num_completions
        if len(programs) > 1:
            for p, program in enumerate(self._programs):
                taus_G = np.nan_to_num(taus.taus_P_B[p, :num_completions])
                figures[f"tau_{program.name}"] = [
                    float(tau) if has_order_P[p] else math.nan for tau in taus_G
                ]
        return figures


def _merged(programs: Sequence[GeneProgram], several: SeveralPrograms) -> list[GeneProgram]:
    """Return the programs, or their union as one."""
    if several is SeveralPrograms.MEAN or len(programs) == 1:
        return list(programs)
    return [
        GeneProgram(
            name="+".join(program.name for program in programs),
            symbols=tuple(dict.fromkeys(s for program in programs for s in program.symbols)),
            source="union",
        )
    ]
