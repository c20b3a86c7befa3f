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
from c2s_rl.data.downstream_sections import check_spatial
from c2s_rl.data.split_config import SplitConfig, check_rules
from c2s_rl.types import PRETRAINING_TASKS, Task

__all__ = ["CorpusConfig", "PromptLimits", "PromptStyle", "QaConfig", "TargetForm"]

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


class PromptStyle(StrEnum):
    """Whose words prompts are written in."""

    C2S_RL = "c2s_rl"
    """This project's templates, or the user's own."""
    CELL2SENTENCE = "cell2sentence"
    """The installed cell2sentence package's, for models that were trained with it."""


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
    style: PromptStyle = Field(
        PromptStyle.C2S_RL, description="Words of the prompts: c2s_rl or cell2sentence."
    )
    seed: int = Field(0, ge=0, description="Seeds the split, the pairing, wording and order.")

    @property
    def obs_columns(self) -> tuple[str, ...]:
        """All obs columns that the corpus reads, each once."""
        cells = (*self.label_columns, self.donor_column, *self.control_match)
        named = (*cells, *self.section_columns, *self.split.columns)
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
        if self.templates and self.style is not PromptStyle.C2S_RL:
            raise ValueError(
                f"templates of one's own need style c2s_rl, got {self.style} with a file for "
                f"{next(iter(self.templates))}"
            )
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
    def _check_split(self) -> Self:
        check_rules(self.split, self.labels)
        if self.spatial is not None:
            check_spatial(self.spatial, self.tasks, self.split)
        return self
