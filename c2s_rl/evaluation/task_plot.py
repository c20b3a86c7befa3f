"""Every task's own metric and loss: policies beside each other, shuffled answers in grey."""

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from c2s_rl.evaluation.bootstrap import Interval
from c2s_rl.evaluation.plots import (
    REAL_COLOUR,
    Picture,
    colours_of,
    light_grid,
    marks_of,
    style,
    to_svg,
)
from c2s_rl.evaluation.result import MethodKind
from c2s_rl.evaluation.task_metrics import TASK_FIGURES, TaskFigure
from c2s_rl.evaluation.task_result import TaskEvaluation
from c2s_rl.types import Task

ROW_HEIGHT = 0.46  # inches: room for four policies below each other
CAPTION = (
    "Left: the metric that the paper gives each task, on held-out prompts (number in brackets); "
    "further right is better. Right: loss of the right answers; further left is better. Coloured "
    "marks with bars: policies with 95 % bootstrap intervals. Grey: right answers to other prompts."
)


def task_picture(evaluation: TaskEvaluation) -> Picture:
    """Draw one row a task: its metric on the left, losses on the right where they were taken."""
    tasks = sorted(evaluation.tasks, key=lambda name: (evaluation.tasks[name].metric, name))
    has_loss = any(
        TaskFigure.LOSS in figures
        for task in evaluation.tasks.values()
        for figures in task.figures.values()
    )
    with mpl.rc_context(style()):
        figure = Figure(figsize=(10, 1.5 + ROW_HEIGHT * len(tasks)), layout="constrained")
        axes = figure.subplots(1, 1 + has_loss, sharey=True, squeeze=False)[0]
        _draw(axes[0], evaluation, tasks, None)
        axes[0].set_xlim(-0.02, 1.02)
        axes[0].set_xlabel("the task's metric, 0 to 1")
        labels = [
            f"{name.replace('_', ' ')} ({evaluation.tasks[name].num_prompts})\n"
            f"{TASK_FIGURES[evaluation.tasks[name].metric].label}"
            for name in tasks
        ]
        axes[0].set_yticks(range(len(tasks)), labels, fontsize=8)
        axes[0].set_ylim(len(tasks) - 0.5, -0.5)
        if has_loss:
            _draw(axes[1], evaluation, tasks, TaskFigure.LOSS)
            axes[1].set_xlabel("loss a token of the right answer")
        handles, names = axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper left", ncols=5, fontsize=8.5)
        return Picture(to_svg(figure), CAPTION)


def _draw(
    axes: Axes, evaluation: TaskEvaluation, tasks: list[Task], figure: TaskFigure | None
) -> None:
    policies = evaluation.policies
    colours, marks = colours_of(policies), marks_of(policies)
    for method in evaluation.methods:
        is_policy = method.kind is MethodKind.POLICY
        place = policies.index(method.name) - (len(policies) - 1) / 2 if is_policy else 0.0
        label = method.name
        for row, name in enumerate(tasks):
            task = evaluation.tasks[name]
            interval = task.figures[method.name].get(figure or task.metric)
            if interval is None or interval.mean is None:
                continue
            _mark(
                axes,
                interval.mean,
                interval,
                row + 0.2 * place,
                colour=colours[method.name] if is_policy else REAL_COLOUR,
                mark=marks[method.name] if is_policy else "|",
                label=label,
            )
            label = "_nolegend_"
    light_grid(axes)


def _mark(
    axes: Axes, mean: float, interval: Interval, y: float, *, colour: str, mark: str, label: str
) -> None:
    if interval.low is not None and interval.high is not None:
        axes.plot([interval.low, interval.high], [y, y], color=colour, linewidth=1.8)
    axes.plot([mean], [y], color=colour, marker=mark, markersize=6, linestyle="", label=label)
