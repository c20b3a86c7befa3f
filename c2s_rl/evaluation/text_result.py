"""What an evaluation of text answers found, as data: the content of text_evaluation.json.

Tables and report read from a `TextEvaluation`; nothing is computed here.
"""

from pydantic import BaseModel, ConfigDict, Field

from c2s_rl.evaluation.bootstrap import Interval
from c2s_rl.evaluation.cell_metrics import MetricInfo
from c2s_rl.evaluation.result import ABSENT, NO_BREAK, MethodKind, Verdict
from c2s_rl.evaluation.text_metrics import TEXT_METRICS, TextMetric
from c2s_rl.types import Task

SCHEMA_VERSION = 1
PRIMARY = TextMetric.BERTSCORE


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TextMethodResult(_Frozen):
    """One column of the table."""

    name: str = Field(description="Heading, for example 'SFT' or 'shuffled'.")
    kind: MethodKind = Field(description="Null baseline, policy or ceiling.")
    definition: str = Field(description="How its answers are made, in one sentence.")
    absent_reason: str = Field(default="", description="Why it has no answers; '' when it has.")
    metrics: dict[TextMetric, Interval] = Field(
        description="Mean over conditions with its 95 % interval."
    )
    per_condition: dict[str, dict[TextMetric, Interval]] = Field(
        description="The same within each condition."
    )
    num_answers: int = Field(description="Answers scored, over all prompts.")


class TextDifference(_Frozen):
    """Candidate minus baseline on the same prompts."""

    candidate: str = Field(description="Name of the policy that should be better.")
    baseline: str = Field(description="Name of the policy that it is compared with.")
    metrics: dict[TextMetric, Interval] = Field(description="Paired difference, all conditions.")
    per_condition: dict[str, dict[TextMetric, Interval]] = Field(
        description="Paired difference within each condition."
    )


class TextEvaluation(_Frozen):
    """Everything that one evaluation of text answers found."""

    schema_version: int = Field(default=SCHEMA_VERSION, description="Format of this file.")
    task: Task = Field(description="What the prompts ask.")
    encoder: str = Field(description="Encoder of BERTScore: name, layer, longest text, precision.")
    samples_per_prompt: int = Field(description="Answers that a policy gives to each prompt.")
    conditions: dict[str, int] = Field(description="Held-out condition to its number of prompts.")
    unseen_conditions: tuple[str, ...] = Field(
        description="Those of them that no training prompt is about."
    )
    num_unseen_answers: int = Field(
        description="Prompts whose right answer is not an answer of any training prompt."
    )
    bootstrap_draws: int = Field(description="Draws behind every interval.")
    seed: int = Field(description="Seed of prompts, baselines and bootstrap.")
    skipped: dict[str, int] = Field(description="Reason to the held-out prompts not evaluated.")
    methods: tuple[TextMethodResult, ...] = Field(description="Columns of the table, in order.")
    difference: TextDifference | None = Field(description="The comparison of two policies.")
    verdict: Verdict = Field(description="The result in words.")

    @property
    def num_prompts(self) -> int:
        """Held-out prompts evaluated, over all conditions."""
        return sum(self.conditions.values())

    @property
    def present(self) -> list[TextMethodResult]:
        """Methods that have answers."""
        return [method for method in self.methods if not method.absent_reason]

    @property
    def shown_metrics(self) -> list[TextMetric]:
        """Metrics that a policy or a baseline has a value of, in table order."""
        return [
            metric
            for metric in TextMetric
            if any(method.metrics[metric].mean is not None for method in self.present)
        ]

    @property
    def absent_reasons(self) -> list[str]:
        """Why a column is empty, one sentence each."""
        return [f"No {m.name}: {m.absent_reason}." for m in self.methods if m.absent_reason]


def text_value(metric: TextMetric, value: float | None, *, is_signed: bool = False) -> str:
    """Write a value in the unit and precision of its metric; '-' when there is none."""
    return written_value(TEXT_METRICS[metric], value, is_signed=is_signed)


def text_range(metric: TextMetric, interval: Interval, *, is_signed: bool = False) -> str:
    """Write the ends of an interval as 'low to high' without unit; '' when it has none."""
    return written_range(TEXT_METRICS[metric], interval, is_signed=is_signed)


def written_value(info: MetricInfo, value: float | None, *, is_signed: bool = False) -> str:
    """Write a value as its metric's record says; '-' when there is none."""
    if value is None:
        return ABSENT
    sign = "+" if is_signed else ""
    if info.is_share:
        unit = " points" if is_signed else f"{NO_BREAK}%"
        return f"{100 * value:{sign}.{info.decimals}f}{unit}"
    return f"{value:{sign}.{info.decimals}f}"


def written_range(info: MetricInfo, interval: Interval, *, is_signed: bool = False) -> str:
    """Write the ends of an interval as its metric's record says; '' when it has none."""
    if interval.low is None or interval.high is None:
        return ""
    sign = "+" if is_signed else ""
    scale = 100 if info.is_share else 1
    ends = (f"{scale * end:{sign}.{info.decimals}f}" for end in (interval.low, interval.high))
    return " to ".join(ends)
