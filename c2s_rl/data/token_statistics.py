"""What was counted while a corpus was tokenised: per task and side, added up file by file.

Counts are of distinct samples, tokens of what the rows hold, repeats included. Left out: pictures
(`c2s_rl.evaluation.token_plot`).
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from c2s_rl.data.token_samples import EncodedSample, Fate
from c2s_rl.types import Task


class TokenSide(StrEnum):
    """What rows are for."""

    TRAIN = "train"
    EVAL = "eval"
    """Training cells kept out for the eval loss."""

    @property
    def is_train(self) -> bool:
        """Whether the rows are learnt from."""
        return self is TokenSide.TRAIN


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TaskCounts(_Frozen):
    """How many samples and tokens one task has on one side."""

    task: Task = Field(description="What the samples ask.")
    side: TokenSide = Field(description="Where they are.")
    num_samples: int = Field(0, description="Samples of the corpus on this side.")
    num_shared: int = Field(
        0, description="Samples beside these that hold a cell kept out for the eval loss."
    )
    num_thinned: int = Field(0, description="Of these, not shown: the mixture gives less.")
    num_repeats: int = Field(0, description="Times that samples are shown again in an epoch.")
    num_cut: int = Field(0, description="Samples cut after a whole gene to fit.")
    num_too_long: int = Field(0, description="Samples dropped for their length.")
    num_prompt_too_long: int = Field(0, description="Dropped: not one gene fits.")
    num_prompt_tokens: int = Field(0, description="Tokens of prompts in the rows.")
    num_target_tokens: int = Field(0, description="Tokens of answers and ends in the rows.")

    @property
    def num_in(self) -> int:
        """Distinct samples in the rows."""
        return self.num_samples - self.num_thinned - self.num_too_long - self.num_prompt_too_long

    @property
    def num_shown(self) -> int:
        """Samples in the rows, each time counted."""
        return self.num_in + self.num_repeats

    @property
    def num_tokens(self) -> int:
        """Tokens in the rows."""
        return self.num_prompt_tokens + self.num_target_tokens


class GeneTokens(_Frozen):
    """How finely the tokenizer cuts the genes of some samples; each time a gene is written."""

    num_genes: int = Field(0, description="Genes written.")
    num_tokens: int = Field(0, description="Tokens they take, with the space before them.")
    num_whole: int = Field(0, description="Genes that are a single token.")


class TokenExample(_Frozen):
    """One sample, as it is shown."""

    key: int = Field(description="Its place in the order; the first of a task is the example.")
    prompt_id: str = Field(description="Which sample it is.")
    prompt: str = Field(description="Its prompt, a long one without its middle.")
    target_pieces: tuple[str, ...] = Field(description="The first tokens of its answer, as text.")
    num_prompt_tokens: int = Field(description="Tokens of the prompt.")
    num_target_tokens: int = Field(description="Tokens of the answer and its end.")


class TaskTally(_Frozen):
    """Everything that was counted of one task on one side."""

    counts: TaskCounts = Field(description="Samples and tokens.")
    lengths: dict[int, int] = Field(
        default_factory=dict,
        description="Tokens of a sample with its end, before any cut, to number of samples; "
        "dropped ones too, thinned ones not.",
    )
    genes: GeneTokens = Field(GeneTokens(), description="Genes of some of the samples.")
    example: TokenExample | None = Field(None, description="First sample in order that is in.")


class TokenStatistics(_Frozen):
    """Everything that was counted of a folder of token shards: its statistics.json."""

    max_length: int = Field(description="Most tokens of a row.")
    num_rows: dict[TokenSide, int] = Field(description="Rows by side.")
    efficiency: dict[TokenSide, float] = Field(
        description="Share of rows of max_length that is tokens, by side, in [0, 1]."
    )
    is_packed: bool = Field(description="Whether a row holds several samples.")
    tallies: tuple[TaskTally, ...] = Field(description="By task and side.")

    def of_side(self, side: TokenSide) -> tuple[TaskTally, ...]:
        """Tallies of one side, by task."""
        return tuple(tally for tally in self.tallies if tally.counts.side is side)


class Tallier:
    """Counts the samples of one file."""

    def __init__(self) -> None:
        self._counts: dict[tuple[Task, TokenSide], Counter[str]] = defaultdict(Counter)
        self._lengths: dict[tuple[Task, TokenSide], Counter[int]] = defaultdict(Counter)
        self._genes: dict[tuple[Task, TokenSide], Counter[str]] = defaultdict(Counter)
        self._examples: dict[tuple[Task, TokenSide], TokenExample] = {}

    def shared(self, task: Task) -> None:
        """Count a sample that is left out because one of its cells is kept out of training."""
        self._counts[task, TokenSide.TRAIN].update(num_shared=1)

    def thinned(self, task: Task) -> None:
        """Count a training sample that the mixture leaves out."""
        self._counts[task, TokenSide.TRAIN].update(num_samples=1, num_thinned=1)

    def shown(self, task: Task, side: TokenSide, sample: EncodedSample, copies: int) -> None:
        """Count a sample that is shown `copies` times, unless its length leaves it out."""
        counts = self._counts[task, side]
        self._lengths[task, side][sample.num_tokens] += 1
        counts["num_samples"] += 1
        if not sample.is_in:
            counts[f"num_{sample.fate.value}"] += 1
            return
        counts["num_repeats"] += copies - 1
        counts["num_cut"] += sample.fate is Fate.CUT
        counts["num_prompt_tokens"] += copies * len(sample.prompt_ids)
        counts["num_target_tokens"] += copies * len(sample.target_ids)

    def genes(self, task: Task, side: TokenSide, tokens_of_genes: Sequence[int]) -> None:
        """Count genes by their numbers of tokens."""
        self._genes[task, side].update(
            num_genes=len(tokens_of_genes),
            num_tokens=sum(tokens_of_genes),
            num_whole=sum(num == 1 for num in tokens_of_genes),
        )

    def is_first(self, task: Task, side: TokenSide, key: int) -> bool:
        """Whether no sample of the task was offered yet that comes before `key`."""
        former = self._examples.get((task, side))
        return former is None or key < former.key

    def offer(self, task: Task, side: TokenSide, example: TokenExample) -> None:
        """Keep a sample as the example of its task."""
        self._examples[task, side] = example

    def tallies(self) -> tuple[TaskTally, ...]:
        """What was counted, by task and side."""
        return tuple(
            TaskTally(
                counts=TaskCounts(task=task, side=side, **self._counts[task, side]),
                lengths=dict(sorted(self._lengths[task, side].items())),
                genes=GeneTokens(**self._genes[task, side]),
                example=self._examples.get((task, side)),
            )
            for task, side in sorted(self._counts)
        )


def add_up(tallies: Iterable[TaskTally]) -> tuple[TaskTally, ...]:
    """Add the tallies of several files, by task and side; their order changes nothing."""
    grouped: dict[tuple[Task, TokenSide], list[TaskTally]] = defaultdict(list)
    for tally in tallies:
        grouped[tally.counts.task, tally.counts.side].append(tally)
    return tuple(_sum(grouped[place]) for place in sorted(grouped))


def _sum(parts: Sequence[TaskTally]) -> TaskTally:
    lengths: Counter[int] = Counter()
    for part in parts:
        lengths.update(part.lengths)
    examples = [part.example for part in parts if part.example is not None]
    first = parts[0].counts
    counts = _sum_fields([part.counts for part in parts], {"task", "side"})
    return TaskTally(
        counts=TaskCounts(task=first.task, side=first.side, **counts),
        lengths=dict(sorted(lengths.items())),
        genes=GeneTokens(**_sum_fields([part.genes for part in parts], set())),
        example=min(examples, key=lambda example: example.key, default=None),
    )


def _sum_fields(models: Sequence[BaseModel], left_out: set[str]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for model in models:
        total.update(model.model_dump(exclude=left_out))
    return dict(total)
