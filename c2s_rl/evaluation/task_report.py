"""task_report.html: one file with what every policy reaches in every task, and sample answers.

Everything that comes from data or config is escaped (jinja2 autoescape); the only markup passed
through is the SVG that `plots.py` made. Nothing is computed here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from c2s_rl.evaluation.bootstrap import Interval
from c2s_rl.evaluation.report import NumberCell, RunInfo, TableRow, report_environment
from c2s_rl.evaluation.result import ABSENT
from c2s_rl.evaluation.samples import shorten
from c2s_rl.evaluation.task_metrics import TASK_FIGURES, TaskFigure
from c2s_rl.evaluation.task_plot import task_picture
from c2s_rl.evaluation.task_result import (
    TaskEvaluation,
    TaskMethod,
    TaskResult,
    figure_range,
    figure_value,
    look_of,
)
from c2s_rl.evaluation.task_summary import Answered
from c2s_rl.types import PromptRecord, Task

# The looks of differences have the words of the other reports' style sheet.
LOOKS = {"better": "good", "worse": "bad", "open": "open"}


@dataclass(frozen=True)
class TaskTable:
    """The figures of one task."""

    name: str
    """The task, in words."""
    note: str
    """Prompts and the answers' limit."""
    rows: tuple[TableRow, ...]
    """One a figure, the task's own metric first."""


@dataclass(frozen=True)
class TaskSample:
    """A held-out prompt with the right answer and one answer a policy."""

    task: str
    prompt: str
    """Shortened in its middle."""
    answers: tuple[tuple[str, str], ...]
    """(whose, text) of the right answer, then of each policy."""


def task_samples(
    records: Mapping[Task, Sequence[PromptRecord]],
    answers: Mapping[str, Mapping[Task, Answered]],
    num_a_task: int,
) -> list[TaskSample]:
    """Take the first prompts of every task and the first answers to them; nothing is picked."""
    return [
        TaskSample(
            task.replace("_", " "),
            shorten(record.prompt),
            (
                ("right answer", shorten(record.target.strip())),
                *(
                    (name, shorten(by_task[task].answers_P[place][0].text.strip()))
                    for name, by_task in answers.items()
                ),
            ),
        )
        for task, records_P in records.items()
        for place, record in enumerate(records_P[:num_a_task])
    ]


def render_task_report(
    evaluation: TaskEvaluation, run: RunInfo, samples: Sequence[TaskSample]
) -> str:
    """Lay out the report.

    Returns:
        A whole HTML document that refers to nothing outside itself.
    """
    return (
        report_environment()
        .get_template("task_report.html")
        .render(
            run=run,
            evaluation=evaluation,
            methods=evaluation.methods,
            picture=task_picture(evaluation),
            overview=[_overview(task, r, evaluation) for task, r in evaluation.tasks.items()],
            tables=[_table(task, r, evaluation) for task, r in evaluation.tasks.items()],
            samples=samples,
        )
    )


def _overview(task: Task, result: TaskResult, evaluation: TaskEvaluation) -> TableRow:
    label = TASK_FIGURES[result.metric].label
    note = f"{label}, {result.num_prompts} prompt{'' if result.num_prompts == 1 else 's'}"
    return _row(task.replace("_", " "), note, result.metric, result, evaluation)


def _table(task: Task, result: TaskResult, evaluation: TaskEvaluation) -> TaskTable:
    present = {figure for figures in result.figures.values() for figure in figures}
    order = sorted(
        present, key=lambda figure: (figure is not result.metric, [*TaskFigure].index(figure))
    )
    rows = tuple(
        _row(TASK_FIGURES[figure].label, TASK_FIGURES[figure].meaning, figure, result, evaluation)
        for figure in order
    )
    note = f"{result.num_prompts} prompts; answers end at {result.num_tokens} tokens at the latest."
    return TaskTable(task.replace("_", " "), note, rows)


def _row(
    label: str, note: str, figure: TaskFigure, result: TaskResult, evaluation: TaskEvaluation
) -> TableRow:
    cells = [_number(figure, result.figures[m.name].get(figure), m) for m in evaluation.methods]
    if len(evaluation.policies) > 1:
        cells.append(_change(figure, None if result.gain is None else result.gain.get(figure)))
    return TableRow(label=label, note=note, cells=tuple(cells))


def _number(figure: TaskFigure, interval: Interval | None, method: TaskMethod) -> NumberCell:
    if interval is None or interval.mean is None:
        return NumberCell(ABSENT, "", method.kind)
    return NumberCell(
        figure_value(figure, interval.mean), figure_range(figure, interval), method.kind
    )


def _change(figure: TaskFigure, interval: Interval | None) -> NumberCell:
    if interval is None or interval.mean is None:
        return NumberCell(ABSENT, "", "open")
    return NumberCell(
        figure_value(figure, interval.mean, is_signed=True),
        figure_range(figure, interval, is_signed=True),
        LOOKS[look_of(figure, interval)],
    )
