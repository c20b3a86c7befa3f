"""From answers of several policies to task_evaluation.json and task_report.html."""

from pathlib import Path

import pytest

from c2s_rl.data.prompt_set import PromptManifest, PromptSet
from c2s_rl.errors import ConfigError, MissingFileError, StageError
from c2s_rl.evaluation.report import RunInfo
from c2s_rl.evaluation.task_metrics import TaskFigure
from c2s_rl.evaluation.task_result import TaskEvaluation
from c2s_rl.evaluation.task_summary import Answered
from c2s_rl.evaluation.task_table import task_table
from c2s_rl.evaluation.text_methods import SHUFFLED, Answer
from c2s_rl.models.text_encoder import TextEncoderConfig
from c2s_rl.pipeline.evaluate_tasks import (
    EvaluateTasksConfig,
    TaskPrompts,
    run,
    select_task_prompts,
)
from c2s_rl.types import PromptRecord, Split, Task
from tests.sft_fixtures import SYMBOLS, record
from tests.text_encoders import write_bert

RUN = RunInfo("toy <b>", "Toy cells.", 0, "2026-01-31", {}, "name: toy")
CELLS, TYPES = Task.CELL_GENERATION, Task.CELL_TYPE_ANNOTATION
TEXTS = ("blood", "kill", "tumour", "b", "t", "of")


def held_out(task: Task, number: int) -> list[PromptRecord]:
    """Cells of four genes of their own, or labels."""
    made = []
    for i in range(number):
        genes = " ".join(SYMBOLS[4 * i : 4 * i + 4])
        target = f" {genes}" if task is CELLS else f" {TEXTS[i % len(TEXTS)]}"
        index = i + 100 * (task is TYPES)
        made.append(record(index, target, split=Split.TEST, task=task))
    return made


@pytest.fixture
def prompt_set() -> PromptSet:
    records = (*held_out(CELLS, 6), *held_out(TYPES, 6), record(999, " G1"))
    manifest = PromptManifest.model_construct(symbols=SYMBOLS, original=SYMBOLS)
    return PromptSet(records, manifest)


def config(**changes: object) -> EvaluateTasksConfig:
    return EvaluateTasksConfig.model_validate({"bootstrap_draws": 200, **changes})


def answered(prompts: dict[Task, TaskPrompts], text: str | None, loss: float) -> dict:
    """Every prompt answered by `text`, or by the right answer."""
    return {
        task: Answered(
            [[Answer(r.target if text is None else text)] for r in asked.records_P],
            [loss] * len(asked.records_P),
        )
        for task, asked in prompts.items()
    }


@pytest.fixture
def bert(tmp_path: Path) -> TextEncoderConfig:
    return TextEncoderConfig(encoder=str(write_bert(tmp_path / "bert")))


@pytest.fixture
def prompts(prompt_set: PromptSet, bert: TextEncoderConfig) -> dict[Task, TaskPrompts]:
    selected = select_task_prompts(config(encoder=bert), prompt_set)
    return {task: TaskPrompts(records, 5) for task, records in selected.items()}


def test_held_out_prompts_are_chosen_by_task_whatever_their_order(
    prompt_set: PromptSet, bert: TextEncoderConfig
) -> None:
    few = config(num_prompts=3, encoder=bert)
    chosen = select_task_prompts(few, prompt_set)
    turned = PromptSet(prompt_set.records[::-1], prompt_set.manifest)
    again = select_task_prompts(few, turned)
    assert {task: len(records) for task, records in chosen.items()} == {TYPES: 3, CELLS: 3}
    for task in chosen:
        assert [r.prompt_id for r in chosen[task]] == [r.prompt_id for r in again[task]]
    assert list(select_task_prompts(config(tasks=[CELLS]), prompt_set)) == [CELLS]


def test_a_task_without_held_out_prompts_is_an_error(prompt_set: PromptSet) -> None:
    wanted = config(tasks=["gene_set_naming"])
    message = "the held-out cell_generation, cell_type_annotation, got 'gene_set_naming'"
    with pytest.raises(ConfigError, match=message):
        select_task_prompts(wanted, prompt_set)
    trained = PromptSet(prompt_set.records[-1:], prompt_set.manifest)
    with pytest.raises(StageError, match="needs held-out prompts, got none"):
        select_task_prompts(config(), trained)


def test_an_encoder_that_is_not_here_is_found_out_before_anything_is_asked(
    prompt_set: PromptSet, tmp_path: Path
) -> None:
    absent = TextEncoderConfig(encoder=str(tmp_path / "absent"))
    with pytest.raises(MissingFileError, match=r"an encoder's folder must exist, got .*absent"):
        select_task_prompts(config(encoder=absent), prompt_set)
    assert list(select_task_prompts(config(encoder=absent, tasks=[CELLS]), prompt_set)) == [CELLS]


def test_right_answers_reach_one_and_the_report_says_so(
    prompt_set: PromptSet,
    prompts: dict[Task, TaskPrompts],
    bert: TextEncoderConfig,
    tmp_path: Path,
) -> None:
    evaluation = run(
        config(encoder=bert),
        prompts=prompts,
        answers={
            "Base": answered(prompts, "nothing <i>", 5.0),
            "SFT": answered(prompts, None, 2.0),
        },
        prompt_set=prompt_set,
        skipped={"too long": 2},
        run_info=RUN,
        output=tmp_path / "run",
    )
    cells, types = evaluation.tasks[CELLS], evaluation.tasks[TYPES]
    assert cells.figures["SFT"][TaskFigure.OVERLAP].mean == 1.0
    assert cells.figures["Base"][TaskFigure.OVERLAP].mean == 0.0
    assert cells.figures[SHUFFLED][TaskFigure.OVERLAP].mean == 0.0  # no two cells share a gene
    assert types.figures["SFT"][TaskFigure.ACCURACY].mean == 1.0
    assert types.figures["SFT"][TaskFigure.BERTSCORE].mean == pytest.approx(1.0, abs=1e-5)
    assert cells.gain is not None
    loss = cells.gain[TaskFigure.LOSS]
    assert (loss.mean, loss.low, loss.high) == (-3.0, -3.0, -3.0)
    assert evaluation.headline.startswith("SFT is better than Base in 2 of 2 tasks")
    assert evaluation.is_better
    written = (tmp_path / "run" / "task_evaluation.json").read_text()
    assert TaskEvaluation.model_validate_json(written) == evaluation
    page = (tmp_path / "run" / "task_report.html").read_text()
    assert "<svg" in page
    assert "2 held-out prompts left out: too long" in page
    assert "nothing &lt;i&gt;" in page
    assert "toy &lt;b&gt;" in page


def test_a_worse_policy_is_called_worse(
    prompt_set: PromptSet, prompts: dict[Task, TaskPrompts], tmp_path: Path
) -> None:
    only = {CELLS: prompts[CELLS]}
    evaluation = run(
        config(),
        prompts=only,
        answers={"Base": answered(only, None, 1.0), "SFT": answered(only, "", 1.0)},
        prompt_set=prompt_set,
        skipped={},
        run_info=RUN,
        output=tmp_path,
    )
    assert evaluation.tasks_by_gain() == {"better": [], "worse": [CELLS], "open": []}
    # a difference of exactly 0 is no gain
    assert evaluation.tasks_by_gain(TaskFigure.LOSS)["open"] == [CELLS]
    assert "worse in cell_generation" in evaluation.headline
    assert not evaluation.is_better
    assert evaluation.encoder == ""
    assert len(task_table(evaluation).rows) == 2


def test_a_policy_to_compare_must_have_answered(
    prompt_set: PromptSet, prompts: dict[Task, TaskPrompts], tmp_path: Path
) -> None:
    only = {CELLS: prompts[CELLS]}
    answers = {name: answered(only, "", 1.0) for name in ("Base", "SFT")}
    with pytest.raises(ConfigError, match=r"must be one of \['Base', 'SFT'\], got 'GRPO'"):
        run(
            config(candidate="GRPO"),
            prompts=only,
            answers=answers,
            prompt_set=prompt_set,
            skipped={},
            run_info=RUN,
            output=tmp_path,
        )
    assert not (tmp_path / "task_report.html").exists()
