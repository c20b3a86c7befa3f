"""`c2s-rl plan`: a run's config and a cluster, translated to the planner's plain numbers.

Nothing of the run need exist yet: shapes come from the model's folder, the config, or the name of a
published model; lengths from the base model's manifest where it is made, else from the corpus
section and the number of tokens a gene takes.
"""

import json
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from actors.placement import PlacementMode
from actors.run_config import RunConfig
from actors.run_files import BASE
from c2s_rl.config import apply_overrides, expand_variables, validate
from c2s_rl.decoding.constraint import GeneMode
from c2s_rl.errors import ConfigError
from c2s_rl.pipeline.align import AlignConfig
from c2s_rl.pipeline.base_model import BaseModelConfig, BaseModelKind
from c2s_rl.plan.assumptions import Assumptions
from c2s_rl.plan.batch_plan import BatchPlan, make_plan
from c2s_rl.plan.figures import plan_json
from c2s_rl.plan.hardware import Cluster, parse_cluster
from c2s_rl.plan.layouts import Layout, Sharing
from c2s_rl.plan.shape import (
    PUBLISHED,
    ModelShape,
    gpt_neox_shape,
    shape_of_folder,
    shape_of_name,
)
from c2s_rl.plan.show import plan_view
from c2s_rl.plan.timing import Job
from c2s_rl.plan.workload import Method, Workload
from c2s_rl.types import Task

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
# Words around the cell in the shipped templates, and a label, in tokens.
TEMPLATE_TOKENS = 40
LABEL_TOKENS = 8
# A byte-level BPE trained on the corpus itself: at most 96 tokens for 80 genes on the Kang cells.
OWN_TOKENS_PER_GENE = 1.2
GIB = 2**30


@dataclass(frozen=True)
class Lengths:
    """Tokens of prompts and answers, and how they are known."""

    prompt: int
    completion: int
    source: str


def show_plan(
    run: RunConfig, cluster: str, assume: Sequence[str] = (), json_file: Path | None = None
) -> BatchPlan:
    """Plan a run, print the plan, and write it as JSON where a file is named.

    Raises:
        ConfigError: If the cluster or an assumption cannot be read, or the run does no alignment.
        PlanError: If nothing fits.
    """
    assumptions = validate(Assumptions, apply_overrides({}, assume), "--assume")
    job = plan_job(run, parse_cluster(cluster), assumptions)
    plan = make_plan(job, configured_layout(run, job.cluster))
    console = Console()
    console.print(plan_view(plan))
    if json_file is not None:
        json_file.write_text(json.dumps(plan_json(plan), indent=1) + "\n", encoding="utf-8")
        console.print(f"plan: {json_file}", soft_wrap=True)
    return plan


def plan_job(run: RunConfig, cluster: Cluster, assumptions: Assumptions) -> Job:
    """Translate a run's config.

    Raises:
        ConfigError: If it has no section `align` or `base_model`.
        MissingFileError: If the model is neither there nor published under its name.
    """
    if run.align is None or run.base_model is None:
        missing = "align" if run.align is None else "base_model"
        raise ConfigError(f"plan needs the sections align and base_model, got no {missing!r}")
    lengths = _lengths(run, run.align, assumptions)
    completion = min(lengths.completion, run.align.sampling.max_tokens)
    return Job(
        shape=shape_of_run(run, run.base_model),
        workload=Workload(
            num_prompts=run.align.prompts_per_step,
            group_size=run.align.sampling.group_size,
            prompt_tokens=lengths.prompt,
            completion_tokens=completion,
            max_completion_tokens=run.align.sampling.max_tokens,
            num_steps=run.align.num_steps,
            source=lengths.source,
        ),
        method=_method(run, run.align, assumptions),
        cluster=cluster,
        assumptions=assumptions,
        max_num_seqs=run.rollout.max_num_seqs,
        gpu_memory_utilization=run.rollout.gpu_memory_utilization,
        cpu_kv_bytes=run.rollout.kv_cache_gib * GIB,
    )


def _method(run: RunConfig, align: AlignConfig, assumptions: Assumptions) -> Method:
    return Method(
        element_bytes=2 if run.learner.dtype == "bfloat16" else 4,
        zero_stage=run.learner.zero_stage,
        micro_batch_tokens=run.learner.micro_batch_tokens,
        has_reference=align.loss.beta > 0,
        is_packed=assumptions.packed,
        is_checkpointed=run.learner.gradient_checkpointing,
        lora_rank=run.learner.lora.rank if run.learner.lora else None,
        head_columns=_head_columns(align, assumptions),
    )


def _head_columns(align: AlignConfig, assumptions: Assumptions) -> int | None:
    """Columns of the LM head that the gene trie leaves; None where every token may be sampled."""
    genes = align.sampling.genes.for_task(align.task)
    return assumptions.head_columns if genes.mode is GeneMode.ON else None


def shape_of_run(run: RunConfig, base: BaseModelConfig) -> ModelShape:
    """Shape of the base model: as made, as configured, as on disk, or as published."""
    made = run.folder / BASE
    if (made / "config.json").is_file():
        return shape_of_folder(made)
    if base.kind is BaseModelKind.SMOLLM2:
        return PUBLISHED["smollm2-135m"]
    if base.kind is BaseModelKind.GPT_NEOX:
        own = base.gpt_neox
        sizes = (own.num_layers, own.hidden_size, own.num_heads)
        return gpt_neox_shape(
            run.name,
            "base_model.gpt_neox of the config",
            sizes,
            vocabulary=own.vocabulary_size,
            max_position=own.max_position,
        )
    folder = Path(str(base.path))
    with suppress(ConfigError):  # the variable may be unset where one only plans
        folder = Path(expand_variables(str(base.path)))
    if (folder / "config.json").is_file():
        return shape_of_folder(folder)
    return shape_of_name(folder.name)


def _lengths(run: RunConfig, align: AlignConfig, assumptions: Assumptions) -> Lengths:
    known = _known_lengths(run, align, assumptions)
    given = (assumptions.prompt_tokens, assumptions.completion_tokens)
    if all(given):
        source = "given"
    elif any(given):
        source = f"one given, else {known.source}"
    else:
        source = known.source
    return Lengths(given[0] or known.prompt, given[1] or known.completion, source)


def _known_lengths(run: RunConfig, align: AlignConfig, assumptions: Assumptions) -> Lengths:
    manifest = run.folder / BASE / MANIFEST
    if manifest.is_file():
        found = json.loads(manifest.read_text(encoding="utf-8"))
        source = "the longest of the corpus, in the base model's tokens"
        return Lengths(int(found["max_prompt_tokens"]), int(found["max_target_tokens"]), source)
    if run.corpus is None:
        # Nothing says what prompts look like; the answer may be as long as is sampled.
        return Lengths(TEMPLATE_TOKENS, align.sampling.max_tokens, "no corpus section")
    is_own = run.base_model is not None and run.base_model.kind is BaseModelKind.GPT_NEOX
    rate = OWN_TOKENS_PER_GENE if is_own else assumptions.tokens_per_gene
    cell = round(run.corpus.num_genes * rate)
    source = f"estimated at {rate:g} tokens a gene"
    if align.task is Task.PERTURBATION_RESPONSE:
        return Lengths(cell + TEMPLATE_TOKENS, cell, source)
    if align.task is Task.CELL_TYPE_ANNOTATION:
        return Lengths(cell + TEMPLATE_TOKENS, LABEL_TOKENS, source)
    if align.task is Task.QUESTION_ANSWERING:
        num_cells = run.corpus.qa.cells_per_question if run.corpus.qa else 1
        return Lengths(num_cells * cell + TEMPLATE_TOKENS, align.sampling.max_tokens, source)
    return Lengths(TEMPLATE_TOKENS, cell, source)


def configured_layout(run: RunConfig, cluster: Cluster) -> Layout | None:
    """The layout that the config's workers reserve; None where it is none of this cluster."""
    if cluster.device.is_cpu:
        return None
    rollout, learner = run.rollout, run.learner
    size = max(1, int(rollout.num_gpus))
    needed = learner.num_workers * learner.num_gpus + rollout.num_workers * rollout.num_gpus
    is_split = learner.num_gpus >= 1 and rollout.num_gpus >= 1
    is_split = is_split and run.placement.mode is PlacementMode.DISAGGREGATED
    if not is_split or needed > cluster.num_devices:
        logger.warning(
            "the config's workers reserve %g GPUs (rollout %d x %g, learner %d x %g), which is no "
            "split of the %d of %s",
            needed,
            rollout.num_workers,
            rollout.num_gpus,
            learner.num_workers,
            learner.num_gpus,
            cluster.num_devices,
            cluster.name,
        )
        return None
    return Layout(Sharing.SPLIT, learner.num_workers, rollout.num_workers, size)
