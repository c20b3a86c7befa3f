"""What a corpus is made of: tasks, obs columns, targets and the held-out line, as a config.

Obs columns are in `cell_columns.py`, what single families of tasks need in `corpus_sections.py`;
in a file their keys stand side by side. Rules that need the cells themselves (does the column
exist, does the control value occur) are checked when the cells are read, not here.
"""

from enum import StrEnum
from pathlib import Path
from typing import Self

from pydantic import Field, JsonValue, field_validator, model_validator

from c2s_rl.config import FrozenConfig
from c2s_rl.data.cell_columns import CellColumns
from c2s_rl.data.corpus_sections import (
    ABSTRACT_TASKS,
    SECTION_TASKS,
    TISSUE_TASKS,
    QaConfig,
    TaskSections,
    TokenBudget,
)
from c2s_rl.data.splits import SplitConfig
from c2s_rl.types import PRETRAINING_TASKS, Task

__all__ = ["CorpusConfig", "PromptLimits", "QaConfig", "TargetForm"]

PRETRAINING = "pretraining"

PERTURBATION_TASKS = (Task.PERTURBATION_RESPONSE, Task.PERTURBATION_ANNOTATION)


class TargetForm(StrEnum):
    """What stands for the right answer."""

    CELL = "cell"
    """One real cell of the condition."""
    PSEUDOBULK = "pseudobulk"
    """Mean log1p(CP10k) expression of the condition's cells on the same side of the split."""


class PromptLimits(FrozenConfig):
    """Most prompts of each task and condition; which ones stay is decided by a hash of their id."""

    train: int | None = Field(None, ge=1, description="Per condition, training side; null: all.")
    test: int | None = Field(None, ge=1, description="Per condition, test side; null: all.")


class CorpusConfig(CellColumns, TaskSections):
    """Settings of the stage `corpus`."""

    tasks: tuple[Task, ...] = Field(
        (Task.CELL_GENERATION,),
        min_length=1,
        description="Tasks to make prompts for; 'pretraining' stands for the paper's twelve.",
    )
    pairs_per_cell: int = Field(
        1, ge=1, description="Control cells drawn for each perturbed cell, one prompt each."
    )
    annotate_with_control: bool = Field(
        default=False,
        description="perturbation_annotation shows a control cell beside the treated one.",
    )
    num_genes: int = Field(100, ge=1, description="Length of cell sentences, in genes.")
    token_budget: TokenBudget | None = Field(
        None, description="Shortens sentences so that each sample fits; null: num_genes always."
    )
    target: TargetForm = Field(
        TargetForm.CELL,
        description="What the target text of one cell (what SFT trains on) is written from.",
    )
    reward_target: TargetForm = Field(
        TargetForm.CELL, description="What target_genes (what rewards compare with) ranks."
    )
    split: SplitConfig = Field(default_factory=SplitConfig, description="Training and test side.")
    limits: PromptLimits = Field(default_factory=PromptLimits, description="Number of prompts.")
    templates: dict[Task, Path] = Field(
        default_factory=dict, description="Own template file per task, instead of the shipped one."
    )
    seed: int = Field(0, ge=0, description="Seeds the split, the pairing, wording and order.")

    @property
    def obs_columns(self) -> tuple[str, ...]:
        """All obs columns that the corpus reads, each once."""
        tiers = (column for tier in self.split.tiers for column in tier.where)
        split = (*self.split.holdout, *tiers, self.split.group_column)
        cells = (*self.label_columns, self.donor_column, *self.control_match)
        named = (*cells, *self.section_columns, *split)
        return tuple(dict.fromkeys(c for c in named if c is not None))

    @field_validator("tasks", mode="before")
    @classmethod
    def _expand_pretraining(cls, tasks: JsonValue) -> JsonValue:
        """Put the twelve tasks in the place of the word that stands for them."""
        listed = [tasks] if isinstance(tasks, str) else tasks
        if not isinstance(listed, list | tuple):
            return listed
        expanded: list[JsonValue] = []
        for task in listed:
            expanded += [t.value for t in PRETRAINING_TASKS] if task == PRETRAINING else [task]
        return expanded

    @model_validator(mode="after")
    def _check_tasks(self) -> Self:
        names = [str(task) for task in self.tasks]
        if len(set(names)) != len(names):
            raise ValueError(f"tasks must differ, got {names}")
        for task in self.tasks:
            if task in PERTURBATION_TASKS and self.condition_column is None:
                raise ValueError(f"{task} needs condition_column, got None")
        unused = [task for task in self.templates if task not in self.tasks]
        if unused:
            raise ValueError(f"templates must be for one of the tasks, got {unused[0]}")
        return self

    @model_validator(mode="after")
    def _check_sections(self) -> Self:
        for name, section in self.sections.items():
            tasks = SECTION_TASKS[name]
            is_asked = any(task in tasks for task in self.tasks)
            if is_asked != (section is not None):
                several = "task" if len(tasks) == 1 else "one of the tasks"
                raise ValueError(
                    f"{name} must be given for {several} {', '.join(tasks)} and only then, "
                    f"got tasks {[str(t) for t in self.tasks]} and {name}={section}"
                )
        return self

    @model_validator(mode="after")
    def _check_samples(self) -> Self:
        if self.multi_cell is None:
            return self
        for task in self.tasks:
            if task in TISSUE_TASKS and self.multi_cell.tissue_column is None:
                raise ValueError(f"{task} needs multi_cell.tissue_column, got None")
            if task in ABSTRACT_TASKS and not self.multi_cell.has_abstracts:
                raise ValueError(
                    f"{task} needs multi_cell.abstracts or abstract_column, got neither"
                )
        return self

    @model_validator(mode="after")
    def _check_tiers(self) -> Self:
        for tier in self.split.tiers:
            other = [column for column in tier.where if column not in self.label_columns]
            if other:
                raise ValueError(
                    f"a tier must be made of {', '.join(self.label_columns)}, got {other[0]!r}; "
                    "use split.holdout for donors and other columns"
                )
        return self

    @model_validator(mode="after")
    def _check_holdout(self) -> Self:
        column = self.condition_column
        rules = (self.split.holdout, *(tier.where for tier in self.split.tiers))
        held_out = [value for rule in rules for value in rule.get(column or "", ())]
        if not held_out:
            return self
        if self.control in held_out:
            raise ValueError(
                f"held-out values of {self.condition_column} must be perturbations, "
                f"got the control {self.control!r}"
            )
        if not self.split.test_fraction:
            # A held-out perturbation has no control cells of its own, and those of the training
            # side must not be shown in test prompts.
            raise ValueError(
                f"holding out values of {self.condition_column} needs test_fraction > 0, so that "
                "the test side has control cells, got 0"
            )
        return self
