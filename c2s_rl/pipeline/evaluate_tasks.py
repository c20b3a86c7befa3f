"""Evaluation by task: policies on held-out prompts of every task, by the paper's metrics.

Command: `c2s-rl evaluate-tasks --config FILE` (section `evaluate_tasks`). The stage does not
sample: whoever runs it gets the prompts from `select_task_prompts`, has every policy answer them,
and hands answers and losses to `run`, which writes task_evaluation.json and task_report.html.

Genes are not forced here (no trie): whether a model has learnt to write genes is part of what is
measured. Shape suffix: P prompts of one task.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from c2s_rl.cells.rank import stable_hash
from c2s_rl.checkpoint import replace_text
from c2s_rl.config import FrozenConfig
from c2s_rl.data.prompt_set import PromptSet
from c2s_rl.errors import ConfigError, StageError
from c2s_rl.evaluation.bertscore import BertScorer
from c2s_rl.evaluation.report import RunInfo
from c2s_rl.evaluation.result import MethodKind
from c2s_rl.evaluation.summary import Resampling
from c2s_rl.evaluation.task_nulls import shuffled_answers
from c2s_rl.evaluation.task_result import TaskEvaluation, TaskMethod, TaskResult
from c2s_rl.evaluation.task_summary import (
    FIGURE_OF_METRIC,
    Answered,
    Figures,
    gains,
    means,
    score_answers,
)
from c2s_rl.evaluation.text_methods import SHUFFLED
from c2s_rl.models.encoding_cache import EncodingCache
from c2s_rl.models.text_encoder import TextEncoder, TextEncoderConfig, require_encoder
from c2s_rl.prompts.tasks import TASK_RULES, TaskMetric
from c2s_rl.types import PromptRecord, Split, Task

TASK_EVALUATION = "task_evaluation.json"
TASK_REPORT = "task_report.html"
MAX_REFERENCES = 4096

logger = logging.getLogger(__name__)


class EvaluateTasksConfig(FrozenConfig):
    """Settings of the stage `evaluate_tasks`."""

    tasks: tuple[Task, ...] = Field((), description="Held-out tasks to evaluate; empty takes all.")
    num_prompts: int = Field(32, ge=1, description="Held-out prompts of each task.")
    samples_per_prompt: int = Field(1, ge=1, description="Answers of each policy to each prompt.")
    temperature: float = Field(1.0, gt=0, description="Divides the logits when answers are drawn.")
    has_loss: bool = Field(
        default=True, description="Also the loss of the right answers, which needs no sampling."
    )
    encoder: TextEncoderConfig = Field(
        default_factory=TextEncoderConfig, description="What BERTScore compares texts with."
    )
    baseline: str = Field("Base", description="Policy that the candidate is compared with.")
    candidate: str | None = Field(
        None, description="Policy that should be better; null takes the last one trained."
    )
    bootstrap_draws: int = Field(2000, ge=100, description="Draws behind every 95 % interval.")
    num_samples_shown: int = Field(1, ge=0, description="Prompts a task with answers in the report")
    seed: int = Field(0, ge=0, description="Seeds prompts, answers and bootstrap.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.baseline == self.candidate:
            raise ValueError(f"baseline and candidate must differ, got {self.baseline!r} twice")
        return self


@dataclass(frozen=True, eq=False)
class TaskPrompts:
    """The held-out prompts of one task."""

    records_P: tuple[PromptRecord, ...]
    """[P] in the order of a hash of their ids."""
    num_tokens: int
    """Longest right answer with its end token, in tokens."""


def select_task_prompts(
    config: EvaluateTasksConfig, prompt_set: PromptSet
) -> dict[Task, tuple[PromptRecord, ...]]:
    """Choose held-out prompts of every task, by a hash of their ids.

    Args:
        config: Which tasks, and how many prompts.
        prompt_set: The test side of a corpus.

    Raises:
        ConfigError: If a task is not held out, or the encoder does not fit.
        StageError: If no prompt is held out.
        MissingFileError: If a task needs an encoder that is not on this machine.
    """
    by_task: defaultdict[Task, list[PromptRecord]] = defaultdict(list)
    for record in prompt_set.records:
        if record.split is Split.TEST:
            by_task[record.task].append(record)
    if not by_task:
        raise StageError("an evaluation by task needs held-out prompts, got none; see corpus.split")
    for task in config.tasks:
        if task not in by_task:
            raise ConfigError(
                f"evaluate_tasks.tasks must be of the held-out {', '.join(sorted(by_task))}, "
                f"got {task.value!r}"
            )
    wanted = [task for task in Task if task in (config.tasks or by_task)]
    if _needs_encoder(wanted):
        require_encoder(config.encoder)  # found out now, not after hours of sampling
    return {
        task: tuple(
            sorted(by_task[task], key=lambda r: stable_hash(f"tasks|{r.prompt_id}", config.seed))[
                : config.num_prompts
            ]
        )
        for task in wanted
    }


def _needs_encoder(tasks: Iterable[Task]) -> bool:
    return any(TASK_RULES[task].metric is TaskMetric.BERTSCORE for task in tasks)


def run(
    config: EvaluateTasksConfig,
    *,
    prompts: Mapping[Task, TaskPrompts],
    answers: Mapping[str, Mapping[Task, Answered]],
    prompt_set: PromptSet,
    skipped: Mapping[str, int],
    run_info: RunInfo,
    output: Path,
) -> TaskEvaluation:
    """Score policies and shuffled answers, and write task_evaluation.json and task_report.html.

    Args:
        config: Settings.
        prompts: What was asked.
        answers: Policy to its answers by task, prompts in the same order.
        prompt_set: For its vocabulary.
        skipped: Reason to the number of held-out prompts that were not asked.
        run_info: What the report says about the run.
        output: Folder for both files; created.

    Raises:
        ConfigError: If baseline or candidate was not sampled, or the encoder does not fit.
        MissingFileError: If the encoder is not on this machine.
    """
    from c2s_rl.evaluation.task_report import render_task_report, task_samples

    names = list(answers)
    candidate = config.candidate or names[-1]
    for name in {config.baseline, candidate} if len(names) > 1 else ():
        if name not in names:
            raise ConfigError(f"a compared policy must be one of {names}, got {name!r}")
    encoder = TextEncoder(config.encoder) if _needs_encoder(prompts) else None
    scorer = BertScorer(encoder, EncodingCache(MAX_REFERENCES)) if encoder else None
    evaluation = TaskEvaluation(
        encoder=str(encoder.facts) if encoder else "",
        samples_per_prompt=config.samples_per_prompt,
        baseline=config.baseline if len(names) > 1 else names[0],
        candidate=candidate,
        bootstrap_draws=config.bootstrap_draws,
        seed=config.seed,
        skipped=dict(skipped),
        methods=_methods(names),
        tasks={
            task: _evaluate(task, asked, config, answers, prompt_set, scorer)
            for task, asked in prompts.items()
        },
    )
    records = {task: asked.records_P for task, asked in prompts.items()}
    html = render_task_report(
        evaluation, run_info, task_samples(records, answers, config.num_samples_shown)
    )
    output.mkdir(parents=True, exist_ok=True)
    replace_text(output / TASK_EVALUATION, evaluation.model_dump_json(indent=1) + "\n")
    replace_text(output / TASK_REPORT, html)
    logger.info("wrote %s and %s to %s", TASK_EVALUATION, TASK_REPORT, output)
    return evaluation


def _methods(names: Sequence[str]) -> tuple[TaskMethod, ...]:
    shuffled = TaskMethod(
        name=SHUFFLED,
        kind=MethodKind.NULL,
        definition="Right answers to other held-out prompts of the same task, drawn by chance.",
    )
    policies = [
        TaskMethod(
            name=name,
            kind=MethodKind.POLICY,
            definition="The untrained model." if name == "Base" else f"Sampled from {name}.",
        )
        for name in names
    ]
    return (shuffled, *policies)


def _evaluate(
    task: Task,
    asked: TaskPrompts,
    config: EvaluateTasksConfig,
    answers: Mapping[str, Mapping[Task, Answered]],
    prompt_set: PromptSet,
    scorer: BertScorer | None,
) -> TaskResult:
    """Score all methods on the prompts of one task."""
    shuffled_P = shuffled_answers(
        asked.records_P, num_draws=config.samples_per_prompt, seed=config.seed
    )
    answered = {SHUFFLED: Answered(shuffled_P)} | {
        name: by_task[task] for name, by_task in answers.items()
    }
    scored: dict[str, Figures] = {
        name: score_answers(
            task, asked.records_P, one, vocabulary=prompt_set.vocabulary, scorer=scorer
        )
        for name, one in answered.items()
    }
    resampling = Resampling(config.bootstrap_draws, config.seed)
    names = list(answers)
    gain = None
    if len(names) > 1:
        candidate = config.candidate or names[-1]
        gain = gains(scored[candidate], scored[config.baseline], resampling)
    return TaskResult(
        metric=FIGURE_OF_METRIC[TASK_RULES[task].metric],
        num_prompts=len(asked.records_P),
        num_tokens=asked.num_tokens,
        figures={name: means(figures, resampling) for name, figures in scored.items()},
        gain=gain,
    )
