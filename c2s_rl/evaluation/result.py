"""What an evaluation found, as data: the content of evaluation.json, and how numbers are written.

Everything that is printed, drawn or put into the report is read from an `Evaluation`; nothing is
computed here.

A metric is named by a text: a `Metric` of single answers, or the key of a metric of populations,
'scfid | expression of 94 genes'. What it means stands beside the numbers, in `metric_info`.
"""

import json
import math
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from c2s_rl.errors import DataError, MissingFileError
from c2s_rl.evaluation.bootstrap import Interval
from c2s_rl.evaluation.metrics import METRICS, Metric, MetricInfo
from c2s_rl.evaluation.rank import TauVariant

SCHEMA_VERSION = 2
PRIMARY = Metric.PROGRAM_TAU
ABSENT = "-"
NOT_APPLICABLE = "n/a"
MOST_DECIMALS = 6
NO_BREAK = "\N{NO-BREAK SPACE}"  # keeps a number and its unit on one line


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MethodKind(StrEnum):
    """What a column of the table stands for."""

    NULL = "null"
    """Needs no model; a policy must beat it."""
    POLICY = "policy"
    CEILING = "ceiling"
    """Real against real; no policy can be asked for more."""


class MethodResult(_Frozen):
    """One column of the table."""

    name: str = Field(description="Heading, for example 'SFT' or 'copy control'.")
    kind: MethodKind = Field(description="Null baseline, policy or ceiling.")
    definition: str = Field(description="How its answers are made, in one sentence.")
    absent_reason: str = Field(default="", description="Why it has no answers; '' when it has.")
    metrics: dict[str, Interval] = Field(
        default_factory=dict, description="Mean over conditions with its 95 % interval."
    )
    per_tier: dict[str, dict[str, Interval]] = Field(
        default_factory=dict, description="The same within each held-out tier."
    )
    per_condition: dict[str, dict[str, Interval]] = Field(
        default_factory=dict, description="The same within each condition."
    )
    not_applicable: dict[str, str] = Field(
        default_factory=dict, description="Metric to the reason why it has no meaning here."
    )
    num_answers: int = Field(default=0, description="Answers scored, over all prompts.")
    num_flat: dict[Metric, int] = Field(
        default_factory=dict,
        description="Answers that ordered nothing of the genes in question; they count as 0.",
    )


class Difference(_Frozen):
    """Candidate minus baseline on the same prompts."""

    candidate: str = Field(description="Name of the policy that should be better.")
    baseline: str = Field(description="Name of the policy that it is compared with.")
    metrics: dict[str, Interval] = Field(description="Paired difference over all conditions.")
    gains: dict[str, float] = Field(
        default_factory=dict,
        description="Difference over the baseline's mean; only where that is above 0.",
    )
    per_tier: dict[str, dict[str, Interval]] = Field(
        default_factory=dict, description="Paired difference within each held-out tier."
    )
    per_condition: dict[str, dict[str, Interval]] = Field(
        description="Paired difference within each condition."
    )


class Outcome(StrEnum):
    """What the paired difference of the primary metric says."""

    BETTER = "better"
    WORSE = "worse"
    UNDECIDED = "undecided"
    NOT_COMPARED = "not_compared"


class Verdict(_Frozen):
    """The result in words."""

    outcome: Outcome = Field(description="What the paired 95 % interval says.")
    headline: str = Field(description="One sentence with the numbers.")
    is_at_a_price: bool = Field(default=False, description="A guard metric became worse.")
    price: str = Field(description="What became worse beside it, or that nothing did.")
    scale: str = Field(description="Where null baselines and ceiling lie.")


class PopulationSetting(_Frozen):
    """Which cells the distances between populations are of."""

    embeddings: tuple[str, ...] = Field(description="How cells become vectors, one line each.")
    num_cells: dict[str, int] = Field(
        description="Condition to the cells of every method; the reference has at least as many."
    )
    skipped: dict[str, int] = Field(
        description="Condition with too few cells to the most that all could have given."
    )
    min_cells: int = Field(description="Cells of each method that a condition needs.")
    draws: int = Field(description="Bootstrap draws behind their intervals.")


class Evaluation(_Frozen):
    """Everything that one evaluation found."""

    schema_version: int = Field(default=SCHEMA_VERSION, description="Format of this file.")
    program: str = Field(description="Name of the gene program.")
    program_source: str = Field(description="Where the gene program comes from.")
    program_genes: tuple[str, ...] = Field(description="Its genes that the data set has.")
    num_program_genes_absent: int = Field(description="Its genes that the data set lacks.")
    variant: TauVariant = Field(description="Kendall's tau a or b.")
    num_genes: int = Field(description="Genes that a sentence is asked for.")
    samples_per_prompt: int = Field(description="Answers that a policy gives to each prompt.")
    conditions: dict[str, int] = Field(description="Held-out condition to its number of prompts.")
    unseen_conditions: tuple[str, ...] = Field(
        description="Those of them that no training prompt asks for."
    )
    tiers: dict[str, int] = Field(
        default_factory=dict, description="Held-out tier to its number of prompts."
    )
    tier_of: dict[str, str] = Field(default_factory=dict, description="Condition to its tier.")
    bootstrap_draws: int = Field(description="Draws behind every interval.")
    bootstrap_unit: str = Field(
        default="prompt", description="What is drawn again: 'prompt', or an obs column (donor)."
    )
    bootstrap_note: str = Field(default="", description="Why that unit, where it needs saying.")
    metric_info: dict[str, MetricInfo] = Field(
        default_factory=lambda: {metric.value: info for metric, info in METRICS.items()},
        description="Every metric, in table order.",
    )
    population: PopulationSetting | None = Field(
        default=None, description="Cells behind the distances between populations, if asked for."
    )
    seed: int = Field(description="Seed of prompts, baselines and bootstrap.")
    skipped: dict[str, int] = Field(description="Reason to the held-out prompts not evaluated.")
    methods: tuple[MethodResult, ...] = Field(description="Columns of the table, in order.")
    difference: Difference | None = Field(description="The comparison of two policies, if asked.")
    verdict: Verdict = Field(description="The result in words.")

    @property
    def num_prompts(self) -> int:
        """Held-out prompts evaluated, over all conditions."""
        return sum(self.conditions.values())

    @property
    def present(self) -> list[MethodResult]:
        """Methods that have answers: the columns of tables and the marks of pictures."""
        return [method for method in self.methods if not method.absent_reason]


def read_evaluation(path: Path) -> Evaluation:
    """Read an evaluation.json.

    Raises:
        MissingFileError: If there is none.
        DataError: If it is not one of this schema version.
    """
    if not path.is_file():
        raise MissingFileError(f"an evaluation must be a file that exists, got {path}")
    text = path.read_text(encoding="utf-8")
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"an evaluation must be JSON, got {error} in {path}") from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise DataError(
            f"an evaluation must have schema_version {SCHEMA_VERSION}, got {version!r} in {path}; "
            "run `c2s-rl evaluate --overwrite`"
        )
    try:
        return Evaluation.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise DataError(
            f"an evaluation must follow its schema, got {first['msg']!r} at {place} in {path}"
        ) from error


def format_value(
    metric: Metric | MetricInfo, value: float | None, *, is_signed: bool = False
) -> str:
    """Write a value in the unit and precision of its metric; '-' when there is none."""
    if value is None:
        return ABSENT
    info = _info(metric)
    sign = "+" if is_signed else ""
    if info.is_share:
        points = " points" if is_signed else f"{NO_BREAK}%"
        return f"{100 * value:{sign}.{info.decimals}f}{points}"
    return f"{value:{sign}.{_decimals(info, value)}f}"


def format_range(
    metric: Metric | MetricInfo, interval: Interval, *, is_signed: bool = False
) -> str:
    """Write the ends of an interval as 'low to high' without unit; '' when it has none."""
    if interval.low is None or interval.high is None:
        return ""
    info = _info(metric)
    scale = 100 if info.is_share else 1
    sign = "+" if is_signed else ""
    ends = (scale * interval.low, scale * interval.high)
    decimals = _decimals(info, max(ends, key=abs))
    low, high = (f"{end:{sign}.{decimals}f}" for end in ends)
    return f"{low} to {high}"


def format_gain(gain: float | None) -> str:
    """Write a gain as a signed percentage; '-' when there is none."""
    return ABSENT if gain is None else f"{100 * gain:+.1f}{NO_BREAK}%"


def _decimals(info: MetricInfo, value: float) -> int:
    """Digits after the point; in the unit of an embedding, which has any size, four digits in all.

    scFID is some hundreds between expressions, and some thousandths between unit vectors.
    """
    if not info.unit.startswith("embedding") or not value or not math.isfinite(value):
        return info.decimals
    return min(max(3 - math.floor(math.log10(abs(value))), 0), MOST_DECIMALS)


def _info(metric: Metric | MetricInfo) -> MetricInfo:
    return metric if isinstance(metric, MetricInfo) else METRICS[metric]
