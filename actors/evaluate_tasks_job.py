"""Evaluation by task as a job: every policy answers held-out prompts of all tasks on one engine.

Left out: what is measured (`c2s_rl/pipeline/evaluate_tasks.py`). Losses of right answers are found
in a process of their own: vLLM changes Hugging Face classes in its.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import ray
from rich.console import Console

from actors.calls import wait_all
from actors.engine_env import learner_env, num_cores
from actors.evaluate_job import run_info, show_task_evaluation
from actors.launch import rollout_pool
from actors.rollout import RolloutConfig
from actors.run_config import RunConfig
from actors.run_files import CORPUS, trained_policies
from actors.session import ray_session
from c2s_rl.cells.sentence import stable_hash
from c2s_rl.data.prompt_set import PromptSet, read_prompts
from c2s_rl.decoding.constraint import GeneConstraint, GeneMode
from c2s_rl.errors import StageError
from c2s_rl.grpo.roles import RolloutRequest
from c2s_rl.grpo.sampling import SamplingConfig
from c2s_rl.types import Group, PromptRecord, Split, Task

if TYPE_CHECKING:
    from c2s_rl.evaluation.task_summary import Answered

TOO_LONG = "prompt and answer are longer than the model's context"


def evaluate_task_answers(run: RunConfig, console: Console) -> None:
    """Have all policies of a run answer, and write what was found.

    Raises:
        StageError: If no prompt fits the model.
        C2SError: As sampling and scoring raise it.
    """
    from c2s_rl.pipeline import evaluate_tasks

    config = run.evaluate_tasks
    assert config is not None
    prompt_set = read_prompts(run.folder / CORPUS, split=Split.TEST)
    policies = trained_policies(run)
    selected = evaluate_tasks.select_task_prompts(config, prompt_set)
    asked = _Asked(next(iter(policies.values())), selected, run.rollout.max_model_len)
    answers: dict[str, dict[Task, Answered]] = {}
    with ray_session(run.ray, num_cpus=run.rollout.num_workers * run.rollout.num_cpus):
        for name, policy in policies.items():
            with console.status(f"{name} answers {asked.num_prompts} held-out prompts"):
                groups = _sample(run, policy, prompt_set, asked)
            losses = None
            if config.has_loss:
                with console.status(f"{name} reads the right answers"):
                    losses = _losses(policy, asked.records, run.rollout)
            answers[name] = _by_task(asked, groups, losses)
    evaluate_tasks.run(
        config,
        prompts=asked.prompts,
        answers=answers,
        prompt_set=prompt_set,
        skipped=asked.skipped,
        run_info=run_info(run, prompt_set),
        output=run.folder,
    )
    show_task_evaluation(run)


class _Asked:
    """The prompts that fit the model, and how long the answers to each may get."""

    def __init__(
        self,
        policy: Path,
        selected: Mapping[Task, Sequence[PromptRecord]],
        max_model_len: int | None,
    ) -> None:
        from transformers import AutoConfig, AutoTokenizer

        from c2s_rl.pipeline.evaluate_tasks import TaskPrompts

        tokenizer = AutoTokenizer.from_pretrained(policy, local_files_only=True)
        model = AutoConfig.from_pretrained(policy, local_files_only=True)
        context = int(max_model_len or model.max_position_embeddings)
        self.prompts: dict[Task, TaskPrompts] = {}
        self.max_tokens: dict[str, int] = {}
        num_too_long = 0
        for task, records in selected.items():
            prompts, targets = (
                [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
                for texts in ([r.prompt for r in records], [r.target for r in records])
            )
            sizes = list(zip(records, prompts, targets, strict=True))
            kept = [size for size in sizes if size[1] + size[2] + 1 <= context]
            num_too_long += len(sizes) - len(kept)
            if not kept:
                continue
            longest = max(target for _, _, target in kept) + 1
            self.prompts[task] = TaskPrompts(tuple(record for record, _, _ in kept), longest)
            for record, prompt, _ in kept:
                self.max_tokens[record.prompt_id] = min(longest, context - prompt)
        self.skipped = {TOO_LONG: num_too_long} if num_too_long else {}
        if not self.prompts:
            raise StageError(
                f"held-out prompts must fit the model's context of {context} tokens with their "
                f"answers, got {num_too_long} and none that does"
            )

    @property
    def records(self) -> list[PromptRecord]:
        """Prompts of all tasks, task by task."""
        return [record for asked in self.prompts.values() for record in asked.records_P]

    @property
    def num_prompts(self) -> int:
        return len(self.max_tokens)


def _sample(run: RunConfig, policy: Path, prompt_set: PromptSet, asked: _Asked) -> list[Group]:
    """Have one policy answer all prompts; all policies draw from the same random numbers."""
    config = run.evaluate_tasks
    assert config is not None
    sampling = SamplingConfig(
        max_tokens=max(asked.max_tokens.values()),
        temperature=config.temperature,
        genes=GeneConstraint(mode=GeneMode.OFF),
    )
    requests = [
        RolloutRequest(
            record,
            # halved twice: vLLM takes seeds of 62 bits
            stable_hash(f"evaluate_tasks/{record.prompt_id}", config.seed) >> 2,
            num_samples=config.samples_per_prompt,
            max_tokens=asked.max_tokens[record.prompt_id],
        )
        for record in asked.records
    ]
    with rollout_pool(policy, prompt_set.vocabulary, sampling, run.rollout) as pool:
        return pool.generate(requests)


def _losses(policy: Path, records: Sequence[PromptRecord], config: RolloutConfig) -> list[float]:
    """Find the loss of every right answer with the resources of one rollout worker."""
    is_cpu = config.num_gpus == 0
    remote = ray.remote(_answer_losses).options(
        num_cpus=config.num_cpus,
        num_gpus=config.num_gpus,
        runtime_env={"env_vars": learner_env(config.num_threads or num_cores(), is_cpu=is_cpu)},
    )
    call = remote.remote(policy.absolute(), records, config.dtype, "cpu" if is_cpu else "cuda")
    peer = f"the process that finds the loss of {len(records)} right answers"
    return wait_all([call], deadline_s=config.deadline_s, peer=peer)[0]


def _answer_losses(
    policy: Path, records: Sequence[PromptRecord], dtype: str, device: str
) -> list[float]:
    from c2s_rl.models.answer_loss import answer_losses

    return answer_losses(policy, records, dtype=dtype, device=device)


def _by_task(
    asked: _Asked, groups: Sequence[Group], losses: Sequence[float] | None
) -> "dict[Task, Answered]":
    """Cut what came back, which is in the order of `asked.records`, into tasks."""
    from c2s_rl.evaluation.task_summary import Answered
    from c2s_rl.evaluation.text_methods import Answer

    answered: dict[Task, Answered] = {}
    start = 0
    for task, prompts in asked.prompts.items():
        stop = start + len(prompts.records_P)
        answered[task] = Answered(
            answers_P=[
                [Answer(c.text, c.is_truncated) for c in group.completions_G]
                for group in groups[start:stop]
            ],
            losses_P=None if losses is None else losses[start:stop],
        )
        start = stop
    return answered
