"""What an evaluation asks of the answers that it is given, cells or text.

Shape suffix: P prompts.
"""

from collections.abc import Sequence
from typing import Self

from pydantic import Field, model_validator

from c2s_rl.cells.vocabulary import unknown_name
from c2s_rl.config import FrozenConfig
from c2s_rl.errors import ConfigError, StageError
from c2s_rl.types import Group, PromptRecord, Task


class AnswersConfig(FrozenConfig):
    """Which prompts an evaluation puts to which policies."""

    task: Task | None = Field(
        None, description="Which prompts; null takes the one held-out task of the stage's kind."
    )
    conditions: tuple[str, ...] = Field(
        (), description="Held-out conditions to evaluate; empty takes all."
    )
    num_prompts: int = Field(
        64, ge=1, description="Held-out prompts, spread evenly over conditions."
    )
    samples_per_prompt: int = Field(8, ge=1, description="Answers of each policy to each prompt.")
    baseline: str = Field("SFT", description="Policy that the candidate is compared with.")
    candidate: str = Field("GRPO", description="Policy that should be better.")
    seed: int = Field(0, ge=0, description="Seeds prompts, baselines, bootstrap and map.")

    @model_validator(mode="after")
    def _check_policies(self) -> Self:
        if self.baseline == self.candidate:
            raise ValueError(f"baseline and candidate must differ, got {self.candidate!r} twice")
        return self


def in_order(
    name: str, groups: Sequence[Group], records_P: Sequence[PromptRecord], num_samples: int
) -> list[Group]:
    """Put a policy's groups into the order of the prompts; each exactly once, whole.

    Args:
        name: The policy's, for messages.
        groups: Its answers, in any order.
        records_P: [P] prompts that were selected.
        num_samples: Answers to each.

    Raises:
        StageError: If a prompt is not answered, or not by so many.
    """
    by_id = {group.record.prompt_id: group for group in groups}
    wanted = [record.prompt_id for record in records_P]
    if len(groups) != len(wanted) or set(by_id) != set(wanted):
        raise StageError(
            f"{name} must answer each of the {len(wanted)} selected prompts once, got "
            f"{len(groups)} groups for {len(set(by_id) & set(wanted))} of them"
        )
    for group in groups:
        if len(group.completions_G) != num_samples:
            raise StageError(
                f"{name} must give samples_per_prompt={num_samples} answers, got "
                f"{len(group.completions_G)} to prompt {group.record.prompt_id!r}"
            )
    return [by_id[prompt_id] for prompt_id in wanted]


def check_names(names: Sequence[str], *, baseline: str, candidate: str) -> None:
    """One policy alone is only described; of several, the two to compare must be there.

    Raises:
        StageError: If there is none.
        ConfigError: If the baseline or the candidate is not among several.
    """
    if not names:
        raise StageError("an evaluation needs the answers of at least one policy, got none")
    for key, name in (("baseline", baseline), ("candidate", candidate)):
        if len(names) > 1 and name not in names:
            raise ConfigError(unknown_name(key, name, names, "the sampled policies"))
