"""The stages of a run as jobs: each knows its folders, its neighbours and what it needs of Ray.

`c2s-rl <stage>` and `ray job submit -- python -m c2s_rl <stage>` both end here. A stage that is
done is reused, one that was killed goes on; see `actors/stages.py`.
"""

import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel
from rich.console import Console

from actors import inference_job, stage_inputs
from actors.align_watch import find_watch
from actors.engine_env import quiet_driver
from actors.evaluate_job import SHOWN, evaluate_answers, evaluate_cells
from actors.progress import AlignProgress, EmbedderProgress, SftProgress
from actors.run_config import RunConfig, load_run
from actors.run_files import (
    ALIGN,
    ANNOTATE,
    BASE,
    CELLS,
    CORPUS,
    EMBED,
    EMBEDDER,
    GENERATE,
    PRETRAIN,
    REPORT,
    SFT,
    TASK_REPORT,
    TEXT_REPORT,
    config_text,
    reward_material,
    sft_start,
    start_policy,
)
from actors.stage_inputs import NO_INPUTS, StageInputs
from actors.stages import StageKey, StageLedger, resolved
from c2s_rl.data.leaks import check_shards
from c2s_rl.data.prompt_set import read_prompts
from c2s_rl.errors import ConfigError, StageError
from c2s_rl.pipeline.sft import SftConfig
from c2s_rl.runlog import write_manifest
from c2s_rl.types import Split

__all__ = ["STAGES", "load_run", "run_all", "run_stage", "write_tokens"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stage:
    """One stage: what it reads, what it writes, how it runs."""

    sections: tuple[str, ...]
    """Config sections that its output depends on; the first one makes it part of a run."""
    upstream: tuple[str, ...] | Callable[[RunConfig], tuple[str, ...]]
    """Stages whose output it reads; those that the run does not have are passed over."""
    output: str
    """Name of its folder or file in the run's folder."""
    execute: Callable[[RunConfig, Console], None]
    """Does the work."""
    inputs: StageInputs = NO_INPUTS
    """The user's files that its output depends on too."""


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
    suspects = ledger.suspects(key) if output.exists() else []
    changed = STAGES[stage].inputs.changed(run, suspects) if suspects else []
    if not ledger.begin(key, output, overwrite=overwrite, changed=changed):
        console.print(f"[dim]{stage}: reusing {output}[/]")
        shown = SHOWN | inference_job.SHOWN
        if stage in shown:
            shown[stage](run)
        return
    console.print(f"[bold]{stage}[/] -> {output}")
    _write_run_files(run)
    with ledger.running(key, output):
        if CORPUS in key.upstream:
            check_shards(run.folder / CORPUS)
        STAGES[stage].execute(run, console)


def write_tokens(run: RunConfig, *, overwrite: bool = False) -> None:
    """Tokenise what pretraining and SFT will learn from, to be looked at before they train.

    SFT of a run that pretrains comes after it: its turn is when pretraining is done.

    Args:
        run: The run's config.
        overwrite: Replace what another config made.

    Raises:
        ConfigError: If the run has neither stage.
        C2SError: As tokenising raises it.
    """
    from actors.sft_job import SftFolders, tokenise

    console = Console(stderr=True)
    ledger = StageLedger(run.folder)
    sections = {"pretrain": run.pretrain, "sft": run.sft}
    present = {name: config for name, config in sections.items() if config is not None}
    if not present:
        raise ConfigError(
            "tokens are written for the sections pretrain and sft, "
            f"got sections for {', '.join(_present(run)) or 'none'}"
        )
    for name, config in present.items():
        if name == "sft" and run.pretrain is not None and ledger.fingerprint("pretrain") is None:
            console.print("sft: its tokens follow when pretraining is done")
            continue
        output = run.folder / STAGES[name].output
        if ledger.begin(_key(run, name, ledger), output, overwrite=overwrite):
            _write_run_files(run)
        check_shards(run.folder / CORPUS)
        start = run.folder / BASE if name == "pretrain" else sft_start(run)
        with SftProgress(console, config) as progress:
            tokens = tokenise(
                config,
                SftFolders(run.folder / CORPUS, start, output),
                on_tokens=progress.tokenised,
            )
        console.print(f"{name}: {tokens / 'report.html'}", soft_wrap=True)


def _present(run: RunConfig) -> list[str]:
    return [name for name, s in STAGES.items() if vars(run)[s.sections[0]] is not None]


def _key(run: RunConfig, stage: str, ledger: StageLedger) -> StageKey:
    present = _present(run)
    upstream: dict[str, str] = {}
    needed = STAGES[stage].upstream
    for name in needed(run) if callable(needed) else needed:
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
    inputs = STAGES[stage].inputs
    files = inputs.hashes(run)
    if files:
        sections["files"] = dict(files)
    return StageKey(stage, sections | {"seed": run.seed}, upstream, inputs.versions(run))


def _write_run_files(run: RunConfig) -> None:
    """Leave the resolved config and the manifest in the run's folder."""
    run.folder.mkdir(parents=True, exist_ok=True)
    text = config_text(run)
    (run.folder / "config.yaml").write_text(text, encoding="utf-8")
    hashes: dict[str, str] = {}
    if (run.folder / CELLS / "manifest.json").is_file():
        from c2s_rl.data.shards import read_manifest

        manifest = read_manifest(run.folder / CELLS)
        hashes = {source.path: source.sha256 for source in manifest.sources}
    write_manifest(run.folder, seed=run.seed, config_text=text, data_hashes=hashes)


def _convert(run: RunConfig, _console: Console) -> None:
    from actors.convert_job import run_convert

    assert run.convert is not None
    run_convert(run.convert, run.folder / CELLS, run.ray)


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


def _base_model(run: RunConfig, _console: Console) -> None:
    from c2s_rl.pipeline import base_model

    assert run.base_model is not None
    base_model.run(run.base_model, run.folder / CORPUS, run.folder / BASE)


def _pretrain(run: RunConfig, console: Console) -> None:
    assert run.pretrain is not None
    _train(
        run, run.pretrain, start=run.folder / BASE, output=run.folder / PRETRAIN, console=console
    )


def _sft(run: RunConfig, console: Console) -> None:
    assert run.sft is not None
    _train(run, run.sft, start=sft_start(run), output=run.folder / SFT, console=console)


def _train(
    run: RunConfig, config: SftConfig, *, start: Path, output: Path, console: Console
) -> None:
    from actors.session import ray_session
    from actors.sft_job import SftFolders, run_sft

    workers = config.workers
    with (
        ray_session(run.ray, num_cpus=workers.num_workers * workers.num_cpus),
        SftProgress(console, config) as progress,
    ):
        run_sft(
            config,
            SftFolders(run.folder / CORPUS, start, output),
            on_metrics=progress.update,
            on_tokens=progress.tokenised,
        )


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


def _evaluate_tasks(run: RunConfig, console: Console) -> None:
    from actors.evaluate_tasks_job import evaluate_task_answers

    evaluate_task_answers(run, console)


def _align_cpus(run: RunConfig) -> float:
    pools = (run.rollout, run.learner, *run.reward_pools)
    return sum(pool.num_workers * pool.num_cpus for pool in pools)


STAGES: dict[str, Stage] = {
    "convert": Stage(("convert",), (), CELLS, _convert, stage_inputs.CONVERT),
    "corpus": Stage(("corpus",), ("convert",), CORPUS, _corpus, stage_inputs.CORPUS),
    "train_embedder": Stage(("embedder",), ("convert", "corpus"), EMBEDDER, _train_embedder),
    "base_model": Stage(("base_model",), ("corpus",), BASE, _base_model),
    "pretrain": Stage(("pretrain",), ("corpus", "base_model"), PRETRAIN, _pretrain),
    "sft": Stage(("sft",), ("corpus", "base_model", "pretrain"), SFT, _sft),
    "align": Stage(
        ("align", "rewards", "composite", "rollout", "learner"),
        ("corpus", "train_embedder", "base_model", "pretrain", "sft"),
        ALIGN,
        _align,
    ),
    "evaluate": Stage(
        ("evaluate",),
        ("convert", "corpus", "train_embedder", "base_model", "pretrain", "sft", "align"),
        REPORT,
        evaluate_cells,
    ),
    "evaluate_tasks": Stage(
        ("evaluate_tasks",),
        ("corpus", "base_model", "pretrain", "sft", "align"),
        TASK_REPORT,
        _evaluate_tasks,
    ),
    "evaluate_text": Stage(
        ("evaluate_text",),
        ("corpus", "base_model", "pretrain", "sft", "align"),
        TEXT_REPORT,
        evaluate_answers,
    ),
    "embed": Stage(("embed",), inference_job.embed_needs, EMBED, inference_job.embed_cells),
    "annotate": Stage(
        ("annotate",), inference_job.annotate_needs, ANNOTATE, inference_job.annotate_cells
    ),
    "generate": Stage(
        ("generate",), inference_job.generate_needs, GENERATE, inference_job.generate_cells
    ),
}
