"""What a run evaluates itself on during training: fixed held-out prompts and their yardsticks.

The prompts are of the validation part of the held-out ones (`evaluation/parts.py`), which the stage
`evaluate` then leaves out. When they are answered is in `held_out_watch.py`.

Shape suffix: P prompts.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from pydantic import Field

from c2s_rl.cells.programs import load_program, program_indices
from c2s_rl.cells.sentence import stable_hash
from c2s_rl.cells.vocabulary import unknown_name
from c2s_rl.config import FrozenConfig
from c2s_rl.data.prompt_set import PromptSet
from c2s_rl.data.shards import CellManifest, read_cells, read_manifest
from c2s_rl.errors import ConfigError, StageError
from c2s_rl.evaluation.cell_metrics import Metric, Yardstick, has_program_order
from c2s_rl.evaluation.methods import REAL_CELL, Drawing, ceilings
from c2s_rl.evaluation.parts import HeldOutPart, part_of
from c2s_rl.evaluation.probes import ProbeRuler, probe_ruler
from c2s_rl.evaluation.rank import TauVariant
from c2s_rl.evaluation.real_cells import gather_real_cells
from c2s_rl.grpo.roles import RolloutRequest
from c2s_rl.pipeline.align_data import SEED_BITS
from c2s_rl.prompts.tasks import TASK_RULES
from c2s_rl.types import ParsedCell, PromptRecord, Split, Task

# Of prefixes in the sampler's cache: training prompts must not find held-out ones there.
CACHE_SCOPE = "held-out"


class HeldOutConfig(FrozenConfig):
    """Evaluation during training."""

    every: int = Field(
        10, ge=1, description="Steps between evaluations; the first is at step 0, one is at the end"
    )
    num_prompts: int = Field(
        16, ge=1, description="Validation prompts, spread evenly over conditions."
    )
    samples_per_prompt: int = Field(
        4, ge=2, description="Answers to each; two or more, for rewards compare them."
    )
    metric: str = Field(
        Metric.PROGRAM_TAU.value,
        description="What the best checkpoint is the best by: a cell metric of the report, "
        "'reward' (the weighted total), or 'reward/<name>'",
    )
    program: str | None = Field(
        None, description="Gene program of the cell metrics; default: evaluate.program."
    )
    variant: TauVariant = Field(TauVariant.B, description="Kendall's tau: b (tie-corrected) or a.")
    conditions: tuple[str, ...] = Field(
        (), description="Held-out conditions to answer; empty takes all."
    )
    bootstrap_draws: int = Field(500, ge=100, description="Draws behind every 95 % interval.")


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Everything that stays the same from one evaluation of a run to the next."""

    config: HeldOutConfig
    """How often and by what."""
    records_P: tuple[PromptRecord, ...]
    """[P] validation prompts, one condition after the other and round again."""
    yardstick: Yardstick | None
    """What cell metrics are measured with; None where answers are no cells."""
    ruler: ProbeRuler
    """What probes are measured with."""
    real_P: Sequence[Sequence[ParsedCell]]
    """[P] real cells of each prompt's condition, as if they were answers."""
    seed: int
    """Seeds the answers and the bootstrap."""

    def requests(self) -> list[RolloutRequest]:
        """What the rollout workers are asked, the same every time."""
        return [
            RolloutRequest(
                record,
                stable_hash(f"held-out/{record.prompt_id}", self.seed) >> (64 - SEED_BITS),
                num_samples=self.config.samples_per_prompt,
                cache_scope=CACHE_SCOPE,
            )
            for record in self.records_P
        ]


def prepare(
    config: HeldOutConfig, task: Task, prompt_set: PromptSet, cells: Path, *, seed: int
) -> HeldOut:
    """Choose the validation prompts of a run and find what to compare their answers with.

    Args:
        config: How many, and the gene program.
        task: Of the prompts that are trained on.
        prompt_set: The whole corpus, both sides.
        cells: Folder of the cell shards that it was made from.
        seed: The run's seed.

    Raises:
        ConfigError: If a condition is not held out, or the program is not named.
        StageError: If there is no validation prompt.
    """
    is_cells = TASK_RULES[task].is_cell_sentence
    manifest = read_manifest(cells)
    yardstick = _yardstick(config, prompt_set, manifest) if is_cells else None
    records_P = choose_prompts(config, task, prompt_set, yardstick, seed=seed)
    real = gather_real_cells(prompt_set.records, read_cells(cells), len(manifest.symbols))
    drawing = Drawing(prompt_set.num_genes, config.samples_per_prompt, seed)
    by_name = {method.name: method for method in ceilings(records_P, real, drawing)}
    return HeldOut(
        config=config,
        records_P=records_P,
        yardstick=yardstick,
        ruler=probe_ruler(prompt_set.vocabulary, prompt_set.num_genes, has_cells=is_cells),
        real_P=by_name[REAL_CELL].answers_P,
        seed=seed,
    )


def _yardstick(config: HeldOutConfig, prompt_set: PromptSet, manifest: CellManifest) -> Yardstick:
    if config.program is None:
        raise ConfigError(
            "align.evaluation.program must name a gene program, got neither it nor evaluate.program"
        )
    return Yardstick(
        program_N=program_indices(load_program(config.program), prompt_set.vocabulary),
        rank_model=manifest.rank_model,
        num_genes=prompt_set.num_genes,
        num_vocabulary=len(prompt_set.vocabulary),
        variant=config.variant,
    )


def choose_prompts(
    config: HeldOutConfig,
    task: Task,
    prompt_set: PromptSet,
    yardstick: Yardstick | None,
    *,
    seed: int,
) -> tuple[PromptRecord, ...]:
    """Choose prompts of the validation part, one of each condition in turn, by a hash of their ids.

    Raises:
        ConfigError: If a condition is not held out.
        StageError: If there is none that can be scored.
    """
    held_out = [r for r in prompt_set.records if r.split is Split.TEST and r.task is task]
    known = sorted({record.condition for record in held_out})
    for condition in config.conditions:
        if condition not in known:
            raise ConfigError(unknown_name("a held-out condition", condition, known, "the corpus"))
    wanted = set(config.conditions or known)
    by_condition: defaultdict[str, list[PromptRecord]] = defaultdict(list)
    for record in sorted(held_out, key=lambda r: stable_hash(f"held-out|{r.prompt_id}", seed)):
        is_usable = yardstick is None or has_program_order(record, yardstick.program_N)
        is_validation = part_of(record, prompt_set.manifest.seed) is HeldOutPart.VALIDATION
        if record.condition in wanted and is_usable and is_validation:
            by_condition[record.condition].append(record)
    rounds = zip_longest(*(by_condition[name] for name in sorted(by_condition)))
    in_turn = [record for group in rounds for record in group if record is not None]
    if not in_turn:
        raise StageError(
            "an evaluation during training needs held-out prompts in the validation part, got "
            f"none of {len(held_out)} held-out prompts; hold out more cells, or leave out "
            "align.evaluation"
        )
    return tuple(in_turn[: config.num_prompts])
