"""What is learnt from a corpus, and how its samples are laid out as token rows: the config section.

Left out: the work itself (`token_samples.py`, `token_mixture.py`, `token_packing.py`), and chat
templates.
"""

import math
from collections.abc import Collection
from enum import StrEnum
from typing import Self

from pydantic import Field, model_validator

from c2s_rl.config import FrozenConfig
from c2s_rl.types import Task


class TooLong(StrEnum):
    """What becomes of a sample that has more tokens than `max_length`."""

    ERROR = "error"
    DROP = "drop"
    CUT = "cut"
    """Answers made of genes end after a whole gene; what cannot be cut is dropped."""


class Learn(StrEnum):
    """Which tokens of a sample the loss counts."""

    COMPLETION = "completion"
    """The answer and the end token, as supervised fine-tuning does."""
    ALL = "all"
    """Every token but the first, which nothing predicts: next-token pretraining."""


class SftDataConfig(FrozenConfig):
    """Which prompts are learnt from, and how they are laid out in rows."""

    tasks: tuple[Task, ...] | None = Field(
        None, min_length=1, description="Tasks to learn; default: all of the corpus"
    )
    learn: Learn = Field(
        Learn.COMPLETION, description="Tokens that are learnt: completion, or all (next token)"
    )
    max_length: int = Field(
        1024,
        ge=2,
        le=2**22,  # rows are stored with 32-bit offsets, 256 of them at a time
        description="Most tokens of a row; no sample may be longer (see too_long)",
    )
    too_long: TooLong = Field(
        TooLong.ERROR,
        description="A sample longer than max_length: error, drop, or cut after a whole gene "
        "(answers that are no genes are dropped); drops and cuts are counted",
    )
    packing: bool = Field(
        default=False, description="Lay several samples into each row, up to max_length tokens"
    )
    eval_fraction: float = Field(
        0.0, ge=0, lt=1, description="Share of the training cells kept out for the eval loss"
    )
    mixture: dict[Task, float] | None = Field(
        None,
        min_length=1,
        description="Task to its share of the samples of an epoch; default: as the corpus has them",
    )
    max_repeats: int = Field(
        10, ge=1, description="Most times that `mixture` may show a sample in one epoch"
    )

    @model_validator(mode="after")
    def _check_mixture(self) -> Self:
        for task, share in (self.mixture or {}).items():
            if not (math.isfinite(share) and share > 0):
                raise ValueError(
                    f"a share of mixture must be a number above 0, got {share} for {task.value!r}; "
                    "to leave a task out, name the others in tasks"
                )
        if self.mixture is not None and self.tasks is not None:
            check_mixed(self.mixture, self.tasks, "tasks")
        return self


def check_mixed(mixed: Collection[Task], learnt: Collection[Task], source: str) -> None:
    """Check that a mixture gives a share to every task that is learnt and to no other.

    Args:
        mixed: Tasks of the mixture.
        learnt: Tasks that are learnt.
        source: What names them, for the message.

    Raises:
        ValueError: If the two differ.
    """
    for rule, wrong in (
        ("only tasks of", set(mixed) - set(learnt)),
        ("every task of", set(learnt) - set(mixed)),
    ):
        if wrong:
            raise ValueError(
                f"mixture must name {rule} {source} ({_names(learnt)}), "
                f"got {_names(mixed)}; see {_names(wrong)}"
            )


def _names(tasks: Collection[Task]) -> str:
    return ", ".join(sorted(task.value for task in tasks))
