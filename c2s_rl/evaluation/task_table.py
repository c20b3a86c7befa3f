"""The result of an evaluation by task as a terminal table: tasks by rows, methods by columns."""

from rich.table import Table
from rich.text import Text

from c2s_rl.evaluation.result import ABSENT
from c2s_rl.evaluation.table import ARROW, HEADING_STYLE, framed
from c2s_rl.evaluation.task_metrics import TASK_FIGURES, TaskFigure
from c2s_rl.evaluation.task_result import TaskEvaluation, TaskResult, figure_range, figure_value


def task_table(evaluation: TaskEvaluation) -> Table:
    """Lay out each task's own metric and its loss; the caption is the result in a sentence."""
    table = framed(
        f"{len(evaluation.tasks)} tasks, {evaluation.num_prompts} held-out prompts; mean over "
        "prompts, 95 % interval of the difference",
        _caption(evaluation),
    )
    table.add_column("")
    for method in evaluation.methods:
        table.add_column(Text(method.name, style=HEADING_STYLE[method.kind]), justify="right")
    if len(evaluation.policies) > 1:
        table.add_column(f"{evaluation.candidate} - {evaluation.baseline}", justify="right")
    for name, task in evaluation.tasks.items():
        for figure in (task.metric, TaskFigure.LOSS):
            if any(figure in figures for figures in task.figures.values()):
                _add_row(table, name, figure, task, evaluation)
    return table


def _add_row(
    table: Table, name: str, figure: TaskFigure, task: TaskResult, evaluation: TaskEvaluation
) -> None:
    info = TASK_FIGURES[figure]
    is_own = figure is task.metric
    title = f"{name.replace('_', ' ')}\n" if is_own else ""
    label = Text(f"{title}  {info.label}{ARROW[info.better]}", style="" if is_own else "dim")
    cells = []
    for method in evaluation.methods:
        interval = task.figures[method.name].get(figure)
        value = ABSENT if interval is None else figure_value(figure, interval.mean)
        cells.append(Text(f"\n{value}" if is_own else value, style="" if is_own else "dim"))
    if len(evaluation.policies) > 1:
        cells.append(Text(("\n" if is_own else "") + _change(figure, task)))
    table.add_row(label, *cells)


def _change(figure: TaskFigure, task: TaskResult) -> str:
    interval = None if task.gain is None else task.gain.get(figure)
    return ABSENT if interval is None else figure_range(figure, interval, is_signed=True)


def _caption(evaluation: TaskEvaluation) -> list[str]:
    lines = [evaluation.headline]
    if evaluation.encoder:
        lines.append(f"BERTScore by {evaluation.encoder}.")
    lines += [f"{num} prompts left out: {reason}." for reason, num in evaluation.skipped.items()]
    return lines
