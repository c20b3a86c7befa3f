"""What an evaluation by task found, as data: the content of task_evaluation.json.

Tables, picture and report read from a `TaskEvaluation`; nothing is computed here but the counts of
its verdict.
"""

from pydantic import BaseModel, ConfigDict, Field

from c2s_rl.evaluation.bootstrap import Interval
from c2s_rl.evaluation.cell_metrics import Better
from c2s_rl.evaluation.result import MethodKind
from c2s_rl.evaluation.task_metrics import TASK_FIGURES, TaskFigure
from c2s_rl.evaluation.text_result import written_range, written_value
from c2s_rl.types import Task

SCHEMA_VERSION = 1


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TaskMethod(_Frozen):
    """One column of the table."""

    name: str = Field(description="Heading, for example 'SFT' or 'shuffled'.")
    kind: MethodKind = Field(description="Null baseline or policy.")
    definition: str = Field(description="How its answers are made, in one sentence.")


class TaskResult(_Frozen):
    """One task: what every method reaches on its held-out prompts."""

    metric: TaskFigure = Field(description="The paper's metric of the task.")
    num_prompts: int = Field(description="Held-out prompts.")
    num_tokens: int = Field(description="Longest right answer, in tokens: the answers' limit.")
    figures: dict[str, dict[TaskFigure, Interval]] = Field(
        description="Method to figure to mean over prompts with its 95 % interval."
    )
    gain: dict[TaskFigure, Interval] | None = Field(
        description="Paired difference, candidate less baseline; null with one policy."
    )


class TaskEvaluation(_Frozen):
    """Everything that one evaluation by task found."""

    schema_version: int = Field(SCHEMA_VERSION, description="Format of this file.")
    encoder: str = Field(description="Encoder of BERTScore; '' where no task needs it.")
    samples_per_prompt: int = Field(description="Answers of a policy to each prompt.")
    baseline: str = Field(description="Policy that the candidate is compared with.")
    candidate: str = Field(description="Policy that should be better.")
    bootstrap_draws: int = Field(description="Draws behind every interval.")
    seed: int = Field(description="Seed of prompts, answers and bootstrap.")
    skipped: dict[str, int] = Field(description="Reason to the held-out prompts not evaluated.")
    methods: tuple[TaskMethod, ...] = Field(description="Columns of the table, in order.")
    tasks: dict[Task, TaskResult] = Field(description="One a task.")

    @property
    def num_prompts(self) -> int:
        """Held-out prompts evaluated, over all tasks."""
        return sum(task.num_prompts for task in self.tasks.values())

    @property
    def policies(self) -> list[str]:
        """Names of the policies, in order."""
        return [m.name for m in self.methods if m.kind is MethodKind.POLICY]

    @property
    def difference(self) -> "TaskEvaluation | None":
        """Whose `candidate` and `baseline` the last column compares; None with one policy."""
        return self if len(self.policies) > 1 else None

    def tasks_by_gain(self, figure: TaskFigure | None = None) -> dict[str, list[Task]]:
        """Tasks in which the candidate is 'better', 'worse' or 'open' (interval around 0).

        Args:
            figure: The figure to compare; None takes each task's own metric.
        """
        sides: dict[str, list[Task]] = {"better": [], "worse": [], "open": []}
        for name, task in self.tasks.items():
            wanted = figure or task.metric
            side = "open" if task.gain is None else look_of(wanted, task.gain[wanted])
            sides[side].append(name)
        return sides

    @property
    def is_better(self) -> bool:
        """Whether the candidate is better in most tasks and worse in none, by their own metrics."""
        sides = self.tasks_by_gain()
        return 2 * len(sides["better"]) > len(self.tasks) and not sides["worse"]

    @property
    def headline(self) -> str:
        """The result in one sentence."""
        if self.difference is None:
            return f"{self.policies[0]} alone was evaluated, in {len(self.tasks)} tasks."
        own, loss = self.tasks_by_gain(), self.tasks_by_gain(TaskFigure.LOSS)
        worse = f", worse in {', '.join(own['worse'])}" if own["worse"] else ""
        return (
            f"{self.candidate} is better than {self.baseline} in {len(own['better'])} of "
            f"{len(self.tasks)} tasks by the task's metric{worse}; its loss on right answers is "
            f"lower in {len(loss['better'])} (95 % intervals of the paired differences)."
        )


def look_of(figure: TaskFigure, difference: Interval) -> str:
    """Tell whether a difference is 'better', 'worse', or 'open' because its interval holds 0.

    Without an interval (a single prompt) it is open.
    """
    if difference.low is None or difference.high is None:
        return "open"
    if difference.low <= 0 <= difference.high:
        return "open"
    is_higher_better = TASK_FIGURES[figure].better is Better.HIGHER
    return "better" if (difference.low > 0) is is_higher_better else "worse"


def figure_value(figure: TaskFigure, value: float | None, *, is_signed: bool = False) -> str:
    """Write a value in the unit and precision of its figure; '-' when there is none."""
    return written_value(TASK_FIGURES[figure], value, is_signed=is_signed)


def figure_range(figure: TaskFigure, interval: Interval, *, is_signed: bool = False) -> str:
    """Write the ends of an interval as 'low to high' without unit; '' when it has none."""
    return written_range(TASK_FIGURES[figure], interval, is_signed=is_signed)
