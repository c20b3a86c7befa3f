"""Evaluation: policies on held-out prompts beside null baselines and ceiling, and the report.

Command: `c2s-rl evaluate --config FILE` (section `evaluate`). The stage does not sample: whoever
runs it gets the prompts from `select_prompts`, has every policy answer them, and hands the parsed
groups to `run`, which writes evaluation.json and report.html, and cells for cell-eval where asked.
The numbers are found in `evaluate_numbers.py`. Left out: text answers (cell type names, questions),
which `evaluate_text` scores.

Shape suffix: P prompts.
"""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic import Field, model_validator

from c2s_rl.cells.programs import find_program, load_program, program_indices
from c2s_rl.cells.sentence import stable_hash
from c2s_rl.cells.vocabulary import unknown_name
from c2s_rl.checkpoint import replace_text
from c2s_rl.config import FrozenConfig
from c2s_rl.data.completions import COMPLETIONS
from c2s_rl.data.prompt_set import PromptSet
from c2s_rl.data.shards import CellManifest, read_cells, read_manifest
from c2s_rl.errors import ConfigError, DataError, StageError
from c2s_rl.evaluation.cell_metrics import Yardstick, has_program_order
from c2s_rl.evaluation.donors import AUTO, choose_units, donor_column
from c2s_rl.evaluation.export import ExportColumns, export_cells
from c2s_rl.evaluation.learning_curve import BEST, CURVE, Checkpoint, read_best, read_curve
from c2s_rl.evaluation.parts import HeldOutPart, HeldOutPrompts, part_of
from c2s_rl.evaluation.population_cells import PopulationConfig
from c2s_rl.evaluation.rank import TauVariant
from c2s_rl.evaluation.real_cells import gather_real_cells
from c2s_rl.evaluation.report import RunInfo
from c2s_rl.evaluation.result import Evaluation
from c2s_rl.evaluation.reward_correlation import run_correlation
from c2s_rl.pipeline.evaluate_numbers import Answered, find_numbers
from c2s_rl.pipeline.sampled_answers import AnswersConfig, check_names, in_order
from c2s_rl.prompts.tasks import TASK_RULES
from c2s_rl.runlog import read_metrics
from c2s_rl.types import Group, PromptRecord, Split

if TYPE_CHECKING:
    from c2s_rl.evaluation.assemble import ReportMaterial

EVALUATION = "evaluation.json"
REPORT = "report.html"
EXPORT = "export"

logger = logging.getLogger(__name__)


class BootstrapConfig(FrozenConfig):
    """Where 95 % intervals come from."""

    draws: int = Field(2000, ge=100, description="Draws behind every interval.")
    by: str = Field(
        AUTO,
        description="What is drawn again: cell, an obs column (donor), or auto: the corpus's donor "
        "column where the held-out prompts have 5 donors or more.",
    )


class ReportConfig(FrozenConfig):
    """What report.html shows beside tables and curves."""

    umap_cells: int = Field(
        400, ge=0, description="Most cells of one origin on the map; 0 draws none and saves 20 s."
    )
    num_samples: int = Field(3, ge=0, description="Conditions with sentences.")


class EvaluateConfig(AnswersConfig):
    """Settings of the stage `evaluate`."""

    program: str = Field(description="Shipped gene program, or 'file.gmt:SET_NAME'.")
    variant: TauVariant = Field(TauVariant.B, description="Kendall's tau: b (tie-corrected) or a.")
    candidate_checkpoint: Checkpoint = Field(
        Checkpoint.LAST,
        description="Which of GRPO's policies: last, or the best one of align.evaluation",
    )
    held_out: HeldOutPrompts | None = Field(
        None,
        description="test leaves out the quarter of prompts that chooses checkpoints, all does "
        "not; default: test with align.evaluation, else all",
    )
    bootstrap: BootstrapConfig = Field(
        default_factory=BootstrapConfig, description="Intervals of all metrics of a prompt."
    )
    population: PopulationConfig | None = Field(
        default_factory=PopulationConfig,
        description="Distances between generated and real cells of a condition; null: none.",
    )
    export: bool = Field(
        default=False, description="Also write real and predicted cells as .h5ad, for cell-eval."
    )
    report: ReportConfig = Field(
        default_factory=ReportConfig, description="Pictures and samples of report.html."
    )

    def for_run(self, *, has_validation: bool) -> Self:
        """Decide what depends on whether alignment is evaluated during training."""
        default = HeldOutPrompts.TEST if has_validation else HeldOutPrompts.ALL
        return self.model_copy(update={"held_out": self.held_out or default})

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.task is not None and not TASK_RULES[self.task].is_cell_sentence:
            raise ValueError(
                f"task must be one whose answers are cells, got {self.task.value!r}; "
                "evaluate_text is the section for text"
            )
        return self


@dataclass(frozen=True, eq=False)
class Selection:
    """The held-out prompts of an evaluation."""

    records_P: tuple[PromptRecord, ...]
    """[P] prompts, one condition after the other and round again."""
    skipped: Mapping[str, int]
    """Reason to the number of held-out prompts of the task left out; reasons without any absent."""


@dataclass(frozen=True)
class Sources:
    """Files of the run that an evaluation reads beside the corpus."""

    cells: Path
    """Folder of the cell shards that the corpus was made from."""
    metrics: Path | None = None
    """metrics.jsonl in the folder of the alignment, for the curves; beside it are what it found on
    held-out prompts and the completions whose rewards are correlated. None draws none."""
    embedder: Path | None = None
    """Folder of the scGPT that the run trained; None where it trained none."""


def select_prompts(config: EvaluateConfig, prompt_set: PromptSet) -> Selection:
    """Choose held-out prompts, spread evenly over conditions, by a hash of their ids.

    Args:
        config: Which and how many.
        prompt_set: Prompts of the corpus; its order has no influence.

    Returns:
        At most `num_prompts` prompts: one of each condition in turn, until there are enough.
        Prompts whose target expresses no gene of the program cannot be scored and are counted.

    Raises:
        ConfigError: If a condition or the task is not held out, or more than one task could be
            meant.
        StageError: If no prompt can be evaluated.
    """
    program_N = program_indices(load_program(config.program), prompt_set.vocabulary)
    records = _of_task(config, prompt_set)
    wanted = _of_conditions(config, records)
    reported = _without_validation(config, wanted, prompt_set.manifest.seed)
    usable = [record for record in reported if has_program_order(record, program_N)]
    by_condition: defaultdict[str, list[PromptRecord]] = defaultdict(list)
    for record in sorted(usable, key=lambda r: stable_hash(f"eval|{r.prompt_id}", config.seed)):
        by_condition[record.condition].append(record)
    rounds = zip_longest(*(by_condition[name] for name in sorted(by_condition)))
    in_turn = [record for group in rounds for record in group if record is not None]
    if not in_turn:
        raise StageError(
            f"an evaluation needs held-out prompts whose target expresses {config.program}, "
            f"got none among {len(records)} held-out prompts"
        )
    skipped = {
        "of other conditions": len(records) - len(wanted),
        "kept for choosing checkpoints": len(wanted) - len(reported),
        "the target expresses no gene of the program": len(reported) - len(usable),
        "more than num_prompts": max(0, len(in_turn) - config.num_prompts),
    }
    return Selection(
        tuple(in_turn[: config.num_prompts]),
        {reason: number for reason, number in skipped.items() if number},
    )


def run(
    config: EvaluateConfig,
    *,
    prompt_set: PromptSet,
    sources: Sources,
    groups_by_policy: Mapping[str, Sequence[Group]],
    run_info: RunInfo,
    output: Path,
) -> Evaluation:
    """Score every policy, baselines and ceiling, and write evaluation.json and report.html.

    Args:
        config: Settings.
        prompt_set: The whole corpus, both sides: training cells make the mean cell.
        sources: Other files of the run.
        groups_by_policy: Policy name to one group for each prompt of `select_prompts`, in any
            order, each with `samples_per_prompt` answers; the order of policies is the columns'.
        run_info: What the report says about the run.
        output: Folder for both files, and `export/`; created.

    Raises:
        StageError: If a policy did not answer exactly the selected prompts, or cells that have no
            controls are to be exported.
        ConfigError: If two policies or more were sampled, but not those to compare; or
            `bootstrap.by` names no column that divides the prompts.
        DataError: If cells and corpus do not belong together.
    """
    selection = select_prompts(config, prompt_set)
    groups = {
        name: in_order(name, answers, selection.records_P, config.samples_per_prompt)
        for name, answers in groups_by_policy.items()
    }
    check_names(list(groups), baseline=config.baseline, candidate=config.candidate)
    labels = ExportColumns(
        *(_column(prompt_set, f"{part}_column") for part in ("cell_type", "condition", "exposure"))
    )
    answered = _gather(config, prompt_set, sources, groups, selection, labels)
    evaluation = find_numbers(config, answered)
    html = _report(config, answered, evaluation, run_info, sources.metrics)
    output.mkdir(parents=True, exist_ok=True)
    if config.export:
        export_cells(
            output / EXPORT,
            groups,
            answered.real,
            answered.yardstick,
            labels,
            prompt_set.vocabulary,
        )
    replace_text(output / EVALUATION, evaluation.model_dump_json(indent=1) + "\n")
    replace_text(output / REPORT, html)
    logger.info("wrote %s and %s to %s", EVALUATION, REPORT, output)
    return evaluation


def _gather(
    config: EvaluateConfig,
    prompt_set: PromptSet,
    sources: Sources,
    groups: Mapping[str, Sequence[Group]],
    selection: Selection,
    labels: ExportColumns,
) -> Answered:
    """Read the cells and put everything together that numbers are computed from."""
    manifest = read_manifest(sources.cells)
    _check_vocabularies(manifest, prompt_set)
    donors = donor_column(
        config.bootstrap.by, _column(prompt_set, "donor_column"), manifest.obs_columns
    )
    columns = {donors, *(labels.names if config.export else ())}
    table = read_cells(sources.cells, sorted(column for column in columns if column is not None))
    real = gather_real_cells(prompt_set.records, table, len(manifest.symbols))
    return Answered(
        records_P=selection.records_P,
        skipped=selection.skipped,
        groups=groups,
        real=real,
        units=choose_units(config.bootstrap.by, donors, selection.records_P, real),
        yardstick=Yardstick(
            program_N=find_program(load_program(config.program), prompt_set.vocabulary).indices,
            rank_model=manifest.rank_model,
            num_genes=prompt_set.num_genes,
            num_vocabulary=len(manifest.symbols),
            variant=config.variant,
        ),
        prompt_set=prompt_set,
        own_embedder=sources.embedder,
    )


def _report(
    config: EvaluateConfig,
    answered: Answered,
    evaluation: Evaluation,
    run_info: RunInfo,
    metrics: Path | None,
) -> str:
    """Draw the pictures and lay out report.html."""
    from c2s_rl.evaluation.assemble import assemble_report  # matplotlib: 0.5 s

    material = _material(answered, evaluation, metrics)
    return assemble_report(
        material,
        run_info,
        metrics=[] if metrics is None else read_metrics(metrics),
        max_map_cells=config.report.umap_cells,
        num_samples=config.report.num_samples,
        correlation=None if metrics is None else run_correlation(metrics.parent / COMPLETIONS),
    )


def _of_task(config: EvaluateConfig, prompt_set: PromptSet) -> list[PromptRecord]:
    """Held-out prompts of the task to evaluate, whose answers are cells."""
    held_out = [
        record
        for record in prompt_set.records
        if record.split is Split.TEST and TASK_RULES[record.task].is_cell_sentence
    ]
    tasks = sorted({record.task for record in held_out})
    if config.task is None and len(tasks) > 1:
        raise ConfigError(f"task must be named when several are held out, got {tasks}")
    if config.task is not None and config.task not in tasks:
        raise ConfigError(f"task must be one of the held-out {tasks}, got {config.task.value!r}")
    return [record for record in held_out if config.task in {None, record.task}]


def _of_conditions(
    config: EvaluateConfig, records: Sequence[PromptRecord]
) -> Sequence[PromptRecord]:
    known = sorted({record.condition for record in records})
    for condition in config.conditions:
        if condition not in known:
            raise ConfigError(unknown_name("a held-out condition", condition, known, "the corpus"))
    return [r for r in records if r.condition in (config.conditions or known)]


def _without_validation(
    config: EvaluateConfig, records: Sequence[PromptRecord], corpus_seed: int
) -> Sequence[PromptRecord]:
    if config.held_out is not HeldOutPrompts.TEST:
        return records
    return [r for r in records if part_of(r, corpus_seed) is HeldOutPart.TEST]


def _check_vocabularies(manifest: CellManifest, prompt_set: PromptSet) -> None:
    if manifest.symbols != prompt_set.vocabulary.symbols:
        raise DataError(
            "cells and corpus must have the same gene symbols, got "
            f"{len(manifest.symbols)} in the cells and {len(prompt_set.vocabulary)} in the corpus"
        )


def _material(answered: Answered, evaluation: Evaluation, metrics: Path | None) -> "ReportMaterial":
    """Numbers, answers and cells of the report, with what alignment found on held-out prompts."""
    from c2s_rl.evaluation.assemble import ReportMaterial

    align = metrics.parent if metrics is not None else None
    corpus_seed = answered.prompt_set.manifest.seed
    return ReportMaterial(
        evaluation,
        answered.groups,
        answered.real,
        answered.yardstick,
        answered.prompt_set.vocabulary,
        curve=read_curve(align / CURVE) if align else (),
        best=read_best(align / BEST) if align else None,
        num_shared=sum(
            part_of(record, corpus_seed) is HeldOutPart.VALIDATION for record in answered.records_P
        ),
    )


def _column(prompt_set: PromptSet, key: str) -> str | None:
    """An obs column that the corpus's config names, if it does."""
    value = prompt_set.manifest.config.get(key)
    return value if isinstance(value, str) else None
