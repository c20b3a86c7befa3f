"""The files of a run: where its stages leave what they make, and which of it others start from."""

import io
from collections.abc import Mapping
from pathlib import Path

from ruamel.yaml import YAML

from actors.align_watch import describe_choice
from actors.run_config import RunConfig
from c2s_rl.data.prompt_set import PromptSet
from c2s_rl.evaluation.learning_curve import BEST, Checkpoint
from c2s_rl.evaluation.material import RewardMaterial
from c2s_rl.types import Split

CELLS, CORPUS, BASE, SFT, ALIGN = "cells", "corpus", "base", "sft", "align"
PRETRAIN = "pretrain"
EMBEDDER = "embedder"
EMBED, ANNOTATE, GENERATE = "embed", "annotate", "generate"
EVALUATION, REPORT = "evaluation.json", "report.html"
TASK_EVALUATION, TASK_REPORT = "task_evaluation.json", "task_report.html"
TEXT_EVALUATION, TEXT_REPORT = "text_evaluation.json", "text_report.html"


def config_text(run: RunConfig) -> str:
    """The resolved configuration, defaults included, as YAML."""
    stream = io.StringIO()
    YAML(typ="safe", pure=True).dump(run.model_dump(mode="json"), stream)
    return stream.getvalue()


def own_embedder(run: RunConfig) -> Path | None:
    """Folder of the scGPT that the run trains, if it does; absolute, for other processes."""
    return (run.folder / EMBEDDER).absolute() if run.embedder else None


def reward_material(run: RunConfig) -> RewardMaterial:
    """What rewards may compare with; absolute, for they run in other processes."""
    folder = run.folder.absolute()
    return RewardMaterial(
        cells=folder / CELLS,
        corpus=folder / CORPUS,
        cache=folder / ALIGN / "cache",
        seed=run.seed,
        embedder=own_embedder(run),
    )


def sft_start(run: RunConfig) -> Path:
    """The model that SFT starts from: the pretrained one, or the base model where there is none."""
    return run.folder / PRETRAIN / "policy" if run.pretrain else run.folder / BASE


def start_policy(run: RunConfig) -> Path:
    """The policy that alignment starts from: that of the last stage before it."""
    return run.folder / SFT / "policy" if run.sft else sft_start(run)


def evaluated_policies(run: RunConfig) -> Mapping[str, Path]:
    """Policies by the name of their column."""
    align = run.folder / ALIGN
    is_best = run.evaluate is not None and run.evaluate.candidate_checkpoint is Checkpoint.BEST
    aligned = align / BEST / "policy" if is_best else align / "policy"
    return dict(zip(run.policy_names, (start_policy(run), aligned), strict=False))


def trained_policies(run: RunConfig) -> Mapping[str, Path]:
    """Every model of the run by name, the untrained one first."""
    folders = {
        "Base": run.folder / BASE,
        "Pretrained": run.folder / PRETRAIN / "policy",
        "SFT": run.folder / SFT / "policy",
        "GRPO": run.folder / ALIGN / "policy",
    }
    return {name: folders[name] for name in run.trained_names}


def describe(run: RunConfig, prompt_set: PromptSet) -> str:
    """Say in one sentence what was trained on what."""
    manifest = prompt_set.manifest
    parts = [f"{manifest.num_prompts(Split.TRAIN)} training prompts of {manifest.organism} cells"]
    if run.align:
        config = run.align
        rewards = " + ".join(f"{spec.weight:g} x {spec.key}" for spec in run.rewards)
        parts.append(
            f"GRPO for {config.num_steps} steps of {config.prompts_per_step} prompts x "
            f"{config.sampling.group_size} answers ({config.task.value}) on {rewards}"
        )
        parts += describe_choice(run, run.folder / ALIGN / BEST)
    return "; ".join(parts)
