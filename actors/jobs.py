"""The stages of a run as jobs: each knows its folders, its neighbours and what it needs of Ray.

`c2s-rl <stage>` and `ray job submit -- python -m c2s_rl <stage>` both end here. A stage that is
done is reused, one that was killed goes on; see `actors/stages.py`.
"""

import io
import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel
from rich.console import Console
from ruamel.yaml import YAML

from actors.align_watch import describe_choice, find_watch
from actors.engine_env import quiet_driver
from actors.progress import AlignProgress, EmbedderProgress, SftProgress
from actors.run_config import RunConfig, load_run
from actors.stages import StageKey, StageLedger, resolved
from c2s_rl.cells.sentence import stable_hash
from c2s_rl.data.prompt_set import PromptSet, read_prompts
from c2s_rl.errors import ConfigError, StageError
from c2s_rl.evaluation.learning_curve import BEST, Checkpoint
from c2s_rl.evaluation.material import RewardMaterial
from c2s_rl.grpo.roles import RolloutRequest
from c2s_rl.grpo.sampling import SamplingConfig
from c2s_rl.runlog import MAIN_PACKAGES, METRICS, package_versions, write_manifest
from c2s_rl.types import Group, PromptRecord, Split

if TYPE_CHECKING:
    from c2s_rl.evaluation.report import RunInfo

__all__ = ["STAGES", "load_run", "run_all", "run_stage"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stage:
    """One stage: what it reads, what it writes, how it runs."""

    sections: tuple[str, ...]
    """Config sections that its output depends on; the first one makes it part of a run."""
    upstream: tuple[str, ...]
    """Stages whose output it reads; those that the run does not have are passed over."""
    output: str
    """Name of its folder or file in the run's folder."""
    execute: Callable[[RunConfig, Console], None]
    """Does the work."""


def run_all(run: RunConfig, *, overwrite: bool = False) -> None:
    """Run every stage that the file has a section for, in order.

    Raises:
        C2SError: As the stages raise it.
    """
    for name in _present(run):
        run_stage(run, name, overwrite=overwrite)


def run_stage(run: RunConfig, stage: str, *, overwrite: bool = False) -> None:
    """Run one stage, go on with it, or reuse what it made.

    Args:
        run: The run's config.
        stage: A key of `STAGES`.
        overwrite: Replace what another config made.

    Raises:
        ConfigError: If the file has no section for the stage.
        StageError: If a stage before it is not done, or another config made what is there.
    """
    console = Console(stderr=True)
    quiet_driver()
    if stage not in _present(run):
        raise ConfigError(
            f"stage {stage!r} needs a section {STAGES[stage].sections[0]!r}, "
            f"got sections for {', '.join(_present(run)) or 'none'}"
        )
    ledger = StageLedger(run.folder)
    key = _key(run, stage, ledger)
    output = run.folder / STAGES[stage].output
    if not ledger.begin(key, output, overwrite=overwrite):
        console.print(f"[dim]{stage}: reusing {output}[/]")
        if stage in SHOWN:
            SHOWN[stage](run)
        return
    console.print(f"[bold]{stage}[/] -> {output}")
    _write_run_files(run)
    STAGES[stage].execute(run, console)
    ledger.finish(key)


def _present(run: RunConfig) -> list[str]:
    return [name for name, s in STAGES.items() if vars(run)[s.sections[0]] is not None]


def _key(run: RunConfig, stage: str, ledger: StageLedger) -> StageKey:
    present = _present(run)
    upstream: dict[str, str] = {}
    for name in STAGES[stage].upstream:
        if name not in present:
            continue
        fingerprint = ledger.fingerprint(name)
        if fingerprint is None:
            raise StageError(
                f"stage {stage!r} needs stage {name!r} to be done first, "
                f"got no finished one in {run.folder}: run `c2s-rl {name.replace('_', '-')}`"
            )
        upstream[name] = fingerprint
    sections = {
        name: resolved(value)
        for name in STAGES[stage].sections
        if isinstance(value := vars(run)[name], BaseModel | tuple)
    }
    return StageKey(stage, sections | {"seed": run.seed}, upstream)


def _write_run_files(run: RunConfig) -> None:
    """Leave the resolved config and the manifest in the run's folder."""
    run.folder.mkdir(parents=True, exist_ok=True)
    text = config_text(run)
    (run.folder / "config.yaml").write_text(text, encoding="utf-8")
    hashes: dict[str, str] = {}
    if (run.folder / CELLS / "manifest.json").is_file():
        from c2s_rl.data.shards import read_manifest

        manifest = read_manifest(run.folder / CELLS)
        hashes = {manifest.source: manifest.source_sha256}
    write_manifest(run.folder, seed=run.seed, config_text=text, data_hashes=hashes)


def config_text(run: RunConfig) -> str:
    """The resolved configuration, defaults included, as YAML."""
    stream = io.StringIO()
    YAML(typ="safe", pure=True).dump(run.model_dump(mode="json"), stream)
    return stream.getvalue()


CELLS, CORPUS, BASE, SFT, ALIGN = "cells", "corpus", "base", "sft", "align"
EMBEDDER = "embedder"
EVALUATION, REPORT = "evaluation.json", "report.html"
TEXT_EVALUATION, TEXT_REPORT = "text_evaluation.json", "text_report.html"


def _convert(run: RunConfig, _console: Console) -> None:
    from c2s_rl.pipeline import convert

    assert run.convert is not None
    convert.run(run.convert, run.folder / CELLS)


def _corpus(run: RunConfig, _console: Console) -> None:
    from c2s_rl.pipeline import corpus

    assert run.corpus is not None
    corpus.run(run.corpus, run.folder / CELLS, run.folder / CORPUS)


def _train_embedder(run: RunConfig, console: Console) -> None:
    from c2s_rl.pipeline import train_embedder

    assert run.embedder is not None
    cells, corpus = run.folder / CELLS, run.folder / CORPUS
    with EmbedderProgress(console, run.embedder.num_steps) as progress:
        train_embedder.run(
            run.embedder, cells, corpus, run.folder / EMBEDDER, on_step=progress.update
        )


def own_embedder(run: RunConfig) -> Path | None:
    """Folder of the scGPT that the run trains, if it does; absolute, for other processes."""
    return (run.folder / EMBEDDER).absolute() if run.embedder else None


def _base_model(run: RunConfig, _console: Console) -> None:
    from c2s_rl.pipeline import base_model

    assert run.base_model is not None
    base_model.run(run.base_model, run.folder / CORPUS, run.folder / BASE)


def _sft(run: RunConfig, console: Console) -> None:
    from actors.session import ray_session
    from actors.sft_job import SftFolders, run_sft

    assert run.sft is not None
    folders = SftFolders(run.folder / CORPUS, run.folder / BASE, run.folder / SFT)
    workers = run.sft.workers
    with (
        ray_session(run.ray, num_cpus=workers.num_workers * workers.num_cpus),
        SftProgress(console, run.sft) as progress,
    ):
        run_sft(run.sft, folders, on_metrics=progress.update)


def _align(run: RunConfig, console: Console) -> None:
    from actors.launch import AlignSections, align_workers
    from actors.session import ray_session
    from c2s_rl.pipeline import align

    assert run.align is not None
    sampling = run.align.sampling.for_task(run.align.task)
    config = run.align.model_copy(update={"sampling": sampling})
    prompts = read_prompts(run.folder / CORPUS, split=Split.TRAIN, task=config.task)
    watch = find_watch(run, prompts, corpus=run.folder / CORPUS, cells=run.folder / CELLS)
    output = run.folder / ALIGN
    with ExitStack() as stack:
        stack.enter_context(ray_session(run.ray, num_cpus=_align_cpus(run)))
        progress = stack.enter_context(AlignProgress(console, config.num_steps))
        workers = stack.enter_context(
            align_workers(
                start_policy(run),
                prompts.vocabulary,
                AlignSections(
                    align=config,
                    rewards=run.rewards,
                    composite=run.composite,
                    rollout=run.rollout,
                    learner=run.learner,
                    reward_workers=run.reward_workers,
                    sync=run.sync,
                    placement=run.placement,
                ),
                material=reward_material(run),
                output=output,
            )
        )
        align.run(
            config,
            workers,
            prompts.records,
            output=output,
            seed=run.seed,
            on_step=progress.update,
            watch=watch,
        )


def reward_material(run: RunConfig) -> RewardMaterial:
    """What rewards may compare with; absolute, for they run in other processes."""
    folder = run.folder.absolute()
    return RewardMaterial(
        cells=folder / CELLS,
        corpus=folder / CORPUS,
        cache=folder / ALIGN / "cache",
        seed=run.seed,
    )


def _evaluate(run: RunConfig, console: Console) -> None:
    from c2s_rl.pipeline import evaluate

    assert run.evaluate is not None
    has_validation = run.align is not None and run.align.evaluation is not None
    config = run.evaluate.for_run(has_validation=has_validation)
    prompt_set = read_prompts(run.folder / CORPUS)
    records = evaluate.select_prompts(config, prompt_set).records_P
    groups = _answers(run, console, prompt_set, records, config.samples_per_prompt)
    evaluate.run(
        config,
        prompt_set=prompt_set,
        cells=run.folder / CELLS,
        groups_by_policy=groups,
        metrics=run.folder / ALIGN / METRICS if run.align else None,
        run_info=_run_info(run, prompt_set),
        output=run.folder,
    )
    show_evaluation(run)


def _evaluate_text(run: RunConfig, console: Console) -> None:
    from c2s_rl.pipeline import evaluate_text

    config = run.evaluate_text
    assert config is not None
    prompt_set = read_prompts(run.folder / CORPUS)
    records = evaluate_text.select_text_prompts(config, prompt_set).records_P
    groups = _answers(run, console, prompt_set, records, config.samples_per_prompt)
    evaluate_text.run(
        config,
        prompt_set=prompt_set,
        groups_by_policy=groups,
        metrics=run.folder / ALIGN / METRICS if run.align else None,
        run_info=_run_info(run, prompt_set),
        output=run.folder,
    )
    show_text_evaluation(run)


def _run_info(run: RunConfig, prompt_set: PromptSet) -> "RunInfo":
    from c2s_rl.evaluation.report import RunInfo

    return RunInfo(
        name=run.name,
        trained_on=describe(run, prompt_set),
        seed=run.seed,
        date=date.today().isoformat(),
        versions=package_versions(MAIN_PACKAGES),
        config_text=config_text(run),
    )


def _answers(
    run: RunConfig,
    console: Console,
    prompt_set: PromptSet,
    records: tuple[PromptRecord, ...],
    num_samples: int,
) -> dict[str, list[Group]]:
    """Have every policy of the run answer the prompts, one policy after the other."""
    from actors.session import ray_session

    num_cpus = run.rollout.num_workers * run.rollout.num_cpus
    groups: dict[str, list[Group]] = {}
    with ray_session(run.ray, num_cpus=num_cpus):
        for name, policy in evaluated_policies(run).items():
            with console.status(f"{name} answers {len(records)} held-out prompts"):
                groups[name] = _sample(run, policy, prompt_set, records, num_samples)
    return groups


def _sample(
    run: RunConfig,
    policy: Path,
    prompt_set: PromptSet,
    records: tuple[PromptRecord, ...],
    num_samples: int,
) -> list[Group]:
    """Have one policy answer the prompts; all policies draw from the same random numbers."""
    from actors.launch import rollout_pool

    trained = run.align.sampling if run.align else SamplingConfig()
    sampling = trained.model_copy(update={"group_size": num_samples})
    sampling = sampling.for_task(records[0].task)  # an evaluation has prompts of one task
    requests = [
        RolloutRequest(record, stable_hash(f"evaluate/{record.prompt_id}", run.seed) >> 2)
        for record in records
    ]
    with rollout_pool(policy, prompt_set.vocabulary, sampling, run.rollout) as pool:
        return pool.generate(requests)


def show_evaluation(run: RunConfig) -> None:
    """Print the table of a finished evaluation, and where its report is."""
    from c2s_rl.evaluation.result import read_evaluation
    from c2s_rl.evaluation.table import result_table

    console = Console()
    evaluation = read_evaluation(run.folder / EVALUATION)
    console.print(result_table(evaluation, width=console.width))
    console.print(f"report: {run.folder / REPORT}", soft_wrap=True)


def show_text_evaluation(run: RunConfig) -> None:
    """Print the table of a finished evaluation of text, and where its report is."""
    from c2s_rl.evaluation.text_result import TextEvaluation
    from c2s_rl.evaluation.text_table import text_table

    text = (run.folder / TEXT_EVALUATION).read_text(encoding="utf-8")
    console = Console()
    console.print(text_table(TextEvaluation.model_validate_json(text)))
    console.print(f"report: {run.folder / TEXT_REPORT}", soft_wrap=True)


SHOWN = {"evaluate": show_evaluation, "evaluate_text": show_text_evaluation}


def start_policy(run: RunConfig) -> Path:
    """The policy that alignment starts from: SFT's, or the base model where there is no SFT."""
    return run.folder / SFT / "policy" if run.sft else run.folder / BASE


def evaluated_policies(run: RunConfig) -> Mapping[str, Path]:
    """Policies by the name of their column."""
    align = run.folder / ALIGN
    is_best = run.evaluate is not None and run.evaluate.candidate_checkpoint is Checkpoint.BEST
    aligned = align / BEST / "policy" if is_best else align / "policy"
    return dict(zip(run.policy_names, (start_policy(run), aligned), strict=False))


def describe(run: RunConfig, prompt_set: PromptSet) -> str:
    """Say in one sentence what was trained on what."""
    num_train = sum(record.split is Split.TRAIN for record in prompt_set.records)
    parts = [f"{num_train} training prompts of {prompt_set.manifest.organism} cells"]
    if run.align:
        config = run.align
        rewards = " + ".join(f"{spec.weight:g} x {spec.key}" for spec in run.rewards)
        parts.append(
            f"GRPO for {config.num_steps} steps of {config.prompts_per_step} prompts x "
            f"{config.sampling.group_size} answers ({config.task.value}) on {rewards}"
        )
        parts += describe_choice(run, run.folder / ALIGN / BEST)
    return "; ".join(parts)


def _align_cpus(run: RunConfig) -> float:
    pools = (run.rollout, run.learner, *run.reward_pools)
    return sum(pool.num_workers * pool.num_cpus for pool in pools)


STAGES: dict[str, Stage] = {
    "convert": Stage(("convert",), (), CELLS, _convert),
    "corpus": Stage(("corpus",), ("convert",), CORPUS, _corpus),
    "train_embedder": Stage(("embedder",), ("convert", "corpus"), EMBEDDER, _train_embedder),
    "base_model": Stage(("base_model",), ("corpus",), BASE, _base_model),
    "sft": Stage(("sft",), ("corpus", "base_model"), SFT, _sft),
    "align": Stage(
        ("align", "rewards", "composite", "rollout", "learner"),
        ("corpus", "train_embedder", "base_model", "sft"),
        ALIGN,
        _align,
    ),
    "evaluate": Stage(
        ("evaluate",),
        ("convert", "corpus", "train_embedder", "base_model", "sft", "align"),
        REPORT,
        _evaluate,
    ),
    "evaluate_text": Stage(
        ("evaluate_text",),
        ("corpus", "base_model", "sft", "align"),
        TEXT_REPORT,
        _evaluate_text,
    ),
}
