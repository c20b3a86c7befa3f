"""Evaluation as a job: policies answer held-out prompts on engines, and the numbers are shown.

Left out: what is measured (`c2s_rl/pipeline/evaluate.py`, `evaluate_text.py`).
"""

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from actors.run_config import RunConfig
from actors.run_files import (
    ALIGN,
    CELLS,
    CORPUS,
    EVALUATION,
    REPORT,
    TASK_EVALUATION,
    TASK_REPORT,
    TEXT_EVALUATION,
    TEXT_REPORT,
    config_text,
    describe,
    evaluated_policies,
    own_embedder,
)
from c2s_rl.cells.sentence import stable_hash
from c2s_rl.data.prompt_set import PromptSet, read_prompts
from c2s_rl.grpo.roles import RolloutRequest
from c2s_rl.grpo.sampling import SamplingConfig
from c2s_rl.runlog import MAIN_PACKAGES, METRICS, package_versions
from c2s_rl.types import Group, PromptRecord

if TYPE_CHECKING:
    from c2s_rl.evaluation.report import RunInfo


def evaluate_cells(run: RunConfig, console: Console) -> None:
    """Evaluate policies whose answers are cells."""
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
        sources=evaluate.Sources(
            cells=run.folder / CELLS,
            metrics=run.folder / ALIGN / METRICS if run.align else None,
            embedder=own_embedder(run),
        ),
        groups_by_policy=groups,
        run_info=run_info(run, prompt_set),
        output=run.folder,
    )
    show_evaluation(run)


def evaluate_answers(run: RunConfig, console: Console) -> None:
    """Evaluate policies whose answers are text."""
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
        run_info=run_info(run, prompt_set),
        output=run.folder,
    )
    show_text_evaluation(run)


def run_info(run: RunConfig, prompt_set: PromptSet) -> "RunInfo":
    """What a report says about the run."""
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


def show_task_evaluation(run: RunConfig) -> None:
    """Print the table of a finished evaluation by task, and where its report is."""
    from c2s_rl.evaluation.task_result import TaskEvaluation
    from c2s_rl.evaluation.task_table import task_table

    text = (run.folder / TASK_EVALUATION).read_text(encoding="utf-8")
    console = Console()
    console.print(task_table(TaskEvaluation.model_validate_json(text)))
    console.print(f"report: {run.folder / TASK_REPORT}", soft_wrap=True)


SHOWN = {
    "evaluate": show_evaluation,
    "evaluate_tasks": show_task_evaluation,
    "evaluate_text": show_text_evaluation,
}
