"""What a trained policy is used for, as jobs: embed, annotate, generate.

Each finds its policy among the run's own or in a folder, opens the Ray session, and leaves the work
to `c2s_rl/pipeline/{embed,annotate,generate}.py`. Paths are made absolute, for workers run
elsewhere. Left out: the metrics of a run (`evaluate_job.py`).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

from actors.progress import CountProgress
from actors.run_config import RunConfig
from actors.run_files import (
    ALIGN,
    ANNOTATE,
    BASE,
    CELLS,
    CORPUS,
    EMBED,
    GENERATE,
    PRETRAIN,
    SFT,
    start_policy,
)
from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.config import expand_variables
from c2s_rl.errors import ConfigError
from c2s_rl.evaluation.learning_curve import BEST
from c2s_rl.grpo.sampling import SamplingConfig
from c2s_rl.pipeline.ask import AskFolders, Engines, StartEngines

# Policies that a run makes: the word for each, the stage that makes it, its place.
RUN_POLICIES: dict[str, tuple[str, Path]] = {
    "base": ("base_model", Path(BASE)),
    "pretrain": ("pretrain", Path(PRETRAIN) / "policy"),
    "sft": ("sft", Path(SFT) / "policy"),
    "align": ("align", Path(ALIGN) / "policy"),
    "best": ("align", Path(ALIGN) / BEST / "policy"),
}


def policy_folder(run: RunConfig, named: str | None) -> Path:
    """Find a policy: None is what alignment starts from, a word the run's own, else a folder.

    Raises:
        ConfigError: If the run makes no such policy, or the path names a variable that is not set.
    """
    if named is None:
        return start_policy(run).absolute()
    if named not in RUN_POLICIES:
        return Path(expand_variables(named)).absolute()
    stage, place = RUN_POLICIES[named]
    if vars(run).get(stage) is None:
        made = [word for word, (s, _) in RUN_POLICIES.items() if vars(run).get(s) is not None]
        raise ConfigError(
            f"a policy must be one that the run makes ({', '.join(made) or 'none'}) or a folder, "
            f"got {named!r}"
        )
    return (run.folder / place).absolute()


def embed_needs(run: RunConfig) -> tuple[str, ...]:
    """Stages that embed reads from."""
    assert run.embed is not None
    is_own = run.embed.cells is None and run.embed.texts is None
    return (*(("convert",) if is_own else ()), *_makers(run.embed.policy))


def annotate_needs(run: RunConfig) -> tuple[str, ...]:
    """Stages that annotate reads from."""
    assert run.annotate is not None
    is_own = run.annotate.cells is None and run.annotate.source is None
    inputs = ("convert",) if is_own else ()
    return (
        *inputs,
        *(("corpus",) if run.annotate.side is not None else ()),
        *_makers(run.annotate.policy),
    )


def generate_needs(run: RunConfig) -> tuple[str, ...]:
    """Stages that generate reads from."""
    assert run.generate is not None
    is_own = run.generate.cells is None
    return (*(("convert",) if is_own else ()), *_makers(_generate_policy(run)))


def embed_cells(run: RunConfig, console: Console) -> None:
    """Embed on Ray workers and show where the vectors are."""
    from actors.embed_job import embed_workers
    from actors.session import ray_session
    from c2s_rl.pipeline import embed

    assert run.embed is not None
    folders = embed.EmbedFolders(
        policy_folder(run, run.embed.policy),
        _cells(run, run.embed.cells),
        (run.folder / EMBED).absolute(),
    )
    workers = run.embed_workers
    with (
        ray_session(run.ray, num_cpus=workers.num_workers * workers.num_cpus),
        embed_workers(workers) as execute,
        CountProgress(console, "embed") as progress,
    ):
        embed.run(run.embed, folders, execute, on_progress=progress.update)
    show_embedding(run)


def annotate_cells(run: RunConfig, console: Console) -> None:
    """Annotate on vLLM engines and show how often the labels are right."""
    from c2s_rl.pipeline import annotate

    config = run.annotate
    assert config is not None
    policy = policy_folder(run, config.policy)
    folders = AskFolders(policy, _cells(run, config.cells), (run.folder / ANNOTATE).absolute())
    with CountProgress(console, "annotate") as progress:
        annotate.run(
            config,
            folders,
            _engines(run, policy),
            prompt_seed=run.corpus.seed if run.corpus else config.seed,
            corpus=(run.folder / CORPUS).absolute() if run.corpus else None,
            on_progress=progress.update,
        )
    show_annotation(run)


def generate_cells(run: RunConfig, console: Console) -> None:
    """Generate on vLLM engines and show what the cells are like."""
    from c2s_rl.pipeline import generate

    assert run.generate is not None
    policy = policy_folder(run, _generate_policy(run))
    cells = _cells(run, run.generate.cells)
    folders = AskFolders(policy, cells, (run.folder / GENERATE).absolute())
    with CountProgress(console, "generate") as progress:
        generate.run(run.generate, folders, _engines(run, policy), on_progress=progress.update)
    show_generation(run)


def show_embedding(run: RunConfig) -> None:
    """Print where the vectors of a finished embedding are, and FOSCTTM if it was asked for."""
    from c2s_rl.pipeline.embed import INTEGRATION, INTEGRATION_PAGE
    from c2s_rl.pipeline.integration import IntegrationResult

    console = Console()
    folder = run.folder / EMBED
    if (folder / INTEGRATION).is_file():
        text = (folder / INTEGRATION).read_text(encoding="utf-8")
        found = IntegrationResult.model_validate_json(text)
        console.print(
            f"FOSCTTM {found.foscttm:.4f} (0 best, 0.5 random): {found.num_samples} pseudobulks "
            f"against {found.second_view}"
        )
        console.print(f"page: {folder / INTEGRATION_PAGE}", soft_wrap=True)
    console.print(f"vectors: {folder}", soft_wrap=True)


def show_annotation(run: RunConfig) -> None:
    """Print the scores of a finished annotation, where labels are known."""
    from c2s_rl.evaluation.votes import AnnotationScore
    from c2s_rl.pipeline.annotate import ANNOTATIONS, SCORES

    console = Console()
    folder = run.folder / ANNOTATE
    if (folder / SCORES).is_file():
        text = (folder / SCORES).read_text(encoding="utf-8")
        score = AnnotationScore.model_validate_json(text)
        table = Table("cell type", "cells", "given", "precision", "recall", "F1", box=None)
        for label, one in score.labels.items():
            precision = "n/a" if one.precision is None else f"{one.precision:.3f}"
            counts = (str(one.num_cells), str(one.num_predicted))
            table.add_row(label, *counts, precision, f"{one.recall:.3f}", f"{one.f1:.3f}")
        console.print(table)
        console.print(
            f"accuracy {score.accuracy:.3f} of {score.num_cells} cells (always the commonest: "
            f"{score.majority_baseline:.3f}), macro F1 {score.macro_f1:.3f}, "
            f"{score.num_unknown} unknown"
        )
    console.print(f"annotations: {folder / ANNOTATIONS}", soft_wrap=True)


def show_generation(run: RunConfig) -> None:
    """Print what the cells of a finished generation are like."""
    from c2s_rl.pipeline.generate_output import GENERATED, GenerateCounts

    console = Console()
    folder = run.folder / GENERATE
    table = Table(
        "condition", "cells", "distinct", "genes", "repeated", "unknown", "cut off", box=None
    )
    for name, one in GenerateCounts.read(folder).conditions.items():
        table.add_row(
            name,
            str(one.num_cells),
            str(one.num_distinct),
            f"{one.genes_mean:.1f}",
            f"{one.duplicate_rate:.1%}",
            f"{one.unknown_rate:.1%}",
            str(one.num_truncated),
        )
    console.print(table)
    console.print(f"cells: {folder / GENERATED}", soft_wrap=True)


SHOWN: dict[str, Callable[[RunConfig], None]] = {
    "embed": show_embedding,
    "annotate": show_annotation,
    "generate": show_generation,
}


def _generate_policy(run: RunConfig) -> str | None:
    """The policy that generates: an aligned one where there is one."""
    assert run.generate is not None
    return run.generate.policy or ("align" if run.align else None)


def _makers(named: str | None) -> tuple[str, ...]:
    """Stages that may make a policy."""
    if named is None:
        return ("base_model", "pretrain", "sft")
    return (RUN_POLICIES[named][0],) if named in RUN_POLICIES else ()


def _cells(run: RunConfig, named: Path | None) -> Path:
    folder = run.folder / CELLS if named is None else Path(expand_variables(str(named)))
    return folder.absolute()


def _engines(run: RunConfig, policy: Path) -> StartEngines:
    """Start Ray and engines only when a stage has something to ask."""
    from actors.launch import rollout_pool
    from actors.session import ray_session

    @contextmanager
    def start(vocabulary: Vocabulary, sampling: SamplingConfig) -> Iterator[Engines]:
        num_cpus = run.rollout.num_workers * run.rollout.num_cpus
        with (
            ray_session(run.ray, num_cpus=num_cpus),
            rollout_pool(policy, vocabulary, sampling, run.rollout) as pool,
        ):
            yield pool

    return start
