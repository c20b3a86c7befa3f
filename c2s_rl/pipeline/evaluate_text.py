"""Evaluation of text answers: policies on held-out questions beside null baselines, and the report.

Command: `c2s-rl evaluate-text --config FILE` (section `evaluate_text`). Like `evaluate`, which does
the same for cells, the stage does not sample: whoever runs it gets the prompts from
`select_text_prompts`, has every policy answer them, and hands the groups to `run`, which writes
text_evaluation.json and text_report.html.

Shape suffix: P prompts.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from c2s_rl.cells.rank import stable_hash
from c2s_rl.cells.vocabulary import unknown_name
from c2s_rl.checkpoint import replace_text
from c2s_rl.data.prompt_set import PromptSet
from c2s_rl.errors import ConfigError, StageError
from c2s_rl.evaluation.bertscore import BertScorer
from c2s_rl.evaluation.report import RunInfo
from c2s_rl.evaluation.summary import Resampling
from c2s_rl.evaluation.text_methods import policy_answers, right_answers, text_baselines
from c2s_rl.evaluation.text_result import TextEvaluation
from c2s_rl.evaluation.text_summary import compare_texts, score_texts, summarise_texts
from c2s_rl.evaluation.text_verdict import give_text_verdict
from c2s_rl.models.encoding_cache import EncodingCache
from c2s_rl.models.text_encoder import TextEncoder, TextEncoderConfig
from c2s_rl.pipeline.evaluate import Selection
from c2s_rl.pipeline.sampled_answers import AnswersConfig, check_names, in_order
from c2s_rl.prompts.tasks import TASK_RULES
from c2s_rl.runlog import read_metrics
from c2s_rl.types import Group, PromptRecord, Split

TEXT_EVALUATION = "text_evaluation.json"
TEXT_REPORT = "text_report.html"
MAX_REFERENCES = 4096

logger = logging.getLogger(__name__)


class EvaluateTextConfig(AnswersConfig):
    """Settings of the stage `evaluate_text`."""

    encoder: TextEncoderConfig = Field(
        default_factory=TextEncoderConfig, description="What BERTScore compares texts with."
    )
    bootstrap_draws: int = Field(2000, ge=100, description="Draws behind every 95 % interval.")
    num_samples_shown: int = Field(5, ge=0, description="Conditions with answers in the report.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.task is not None and TASK_RULES[self.task].is_cell_sentence:
            raise ValueError(
                f"task must be one whose answers are text, got {self.task.value!r}; "
                "evaluate is the section for cells"
            )
        return self


def select_text_prompts(config: EvaluateTextConfig, prompt_set: PromptSet) -> Selection:
    """Choose held-out prompts, spread evenly over conditions, by a hash of their ids.

    Raises:
        ConfigError: If a condition or the task is not held out, or more than one task could be
            meant.
        StageError: If no prompt can be evaluated.
    """
    held_out = [
        record
        for record in prompt_set.records
        if record.split is Split.TEST and not TASK_RULES[record.task].is_cell_sentence
    ]
    if not held_out:
        raise StageError("an evaluation of text needs held-out prompts for text, got none")
    tasks = sorted({record.task for record in held_out})
    if config.task is None and len(tasks) > 1:
        raise ConfigError(f"task must be named when several are held out, got {tasks}")
    if config.task is not None and config.task not in tasks:
        raise ConfigError(f"task must be one of the held-out {tasks}, got {config.task.value!r}")
    records = [record for record in held_out if config.task in {None, record.task}]
    known = sorted({record.condition for record in records})
    for condition in config.conditions:
        if condition not in known:
            raise ConfigError(unknown_name("a held-out condition", condition, known, "the corpus"))
    wanted = [r for r in records if r.condition in (config.conditions or known)]
    by_condition: defaultdict[str, list[PromptRecord]] = defaultdict(list)
    for record in sorted(wanted, key=lambda r: stable_hash(f"eval|{r.prompt_id}", config.seed)):
        by_condition[record.condition].append(record)
    rounds = zip_longest(*(by_condition[name] for name in sorted(by_condition)))
    in_turn = [record for group in rounds for record in group if record is not None]
    skipped = {
        "of other conditions": len(records) - len(wanted),
        "more than num_prompts": max(0, len(in_turn) - config.num_prompts),
    }
    return Selection(
        tuple(in_turn[: config.num_prompts]),
        {reason: number for reason, number in skipped.items() if number},
    )


def run(
    config: EvaluateTextConfig,
    *,
    prompt_set: PromptSet,
    groups_by_policy: Mapping[str, Sequence[Group]],
    metrics: Path | None,
    run_info: RunInfo,
    output: Path,
) -> TextEvaluation:
    """Score policies and baselines, and write text_evaluation.json and text_report.html.

    Args:
        config: Settings.
        prompt_set: The whole corpus, both sides: training answers make the most common one.
        groups_by_policy: Policy name to one group for each prompt of `select_text_prompts`, in any
            order, each with `samples_per_prompt` answers; the order of policies is the columns'.
        metrics: metrics.jsonl of the alignment, for the curves; None draws none.
        run_info: What the report says about the run.
        output: Folder for both files; created.

    Raises:
        StageError: If a policy did not answer exactly the selected prompts.
        ConfigError: If two policies or more were sampled, but not those to compare, or the encoder
            does not fit its config.
        MissingFileError: If the encoder is not on this machine.
    """
    selection = select_text_prompts(config, prompt_set)
    groups = {
        name: in_order(name, answers, selection.records_P, config.samples_per_prompt)
        for name, answers in groups_by_policy.items()
    }
    check_names(list(groups), baseline=config.baseline, candidate=config.candidate)
    evaluation = _evaluate(config, selection, groups, prompt_set)
    from c2s_rl.evaluation.text_report import render_text_report, text_samples
    from c2s_rl.evaluation.training_plot import training_curves  # matplotlib: 0.5 s

    html = render_text_report(
        evaluation,
        run_info,
        training_curves([] if metrics is None else read_metrics(metrics)),
        text_samples(groups, config.num_samples_shown),
    )
    output.mkdir(parents=True, exist_ok=True)
    replace_text(output / TEXT_EVALUATION, evaluation.model_dump_json(indent=1) + "\n")
    replace_text(output / TEXT_REPORT, html)
    logger.info("wrote %s and %s to %s", TEXT_EVALUATION, TEXT_REPORT, output)
    return evaluation


def _evaluate(
    config: EvaluateTextConfig,
    selection: Selection,
    groups: Mapping[str, Sequence[Group]],
    prompt_set: PromptSet,
) -> TextEvaluation:
    """Score all methods and put the numbers together."""
    records_P = selection.records_P
    task = records_P[0].task
    train = [r for r in prompt_set.records if r.split is Split.TRAIN and r.task is task]
    encoder = TextEncoder(config.encoder)
    scorer = BertScorer(encoder, EncodingCache(MAX_REFERENCES))
    methods = [
        *text_baselines(records_P, train, num_draws=config.samples_per_prompt, seed=config.seed),
        *(policy_answers(name, answers) for name, answers in groups.items()),
        right_answers(records_P),
    ]
    scored = {method.name: score_texts(method, records_P, scorer) for method in methods}
    resampling = Resampling(config.bootstrap_draws, config.seed)
    results = tuple(summarise_texts(one, records_P, resampling) for one in scored.values())
    difference = None
    if len(groups) > 1:
        pair = scored[config.candidate], scored[config.baseline]
        difference = compare_texts(*pair, records_P, resampling)
    counts = Counter(record.condition for record in records_P)
    taught = {record.target for record in train}
    return TextEvaluation(
        task=task,
        encoder=str(encoder.facts),
        samples_per_prompt=config.samples_per_prompt,
        conditions=dict(sorted(counts.items())),
        unseen_conditions=tuple(sorted(counts.keys() - {r.condition for r in train})),
        num_unseen_answers=sum(record.target not in taught for record in records_P),
        bootstrap_draws=config.bootstrap_draws,
        seed=config.seed,
        skipped=dict(selection.skipped),
        methods=results,
        difference=difference,
        verdict=give_text_verdict(results, difference),
    )
