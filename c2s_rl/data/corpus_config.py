"""What a corpus is made of: tasks, obs columns, targets and the held-out line, as a config.

Rules that need the cells themselves (does the column exist, does the control value occur) are
checked when the cells are read, not here.
"""

from enum import StrEnum
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from c2s_rl.config import FrozenConfig
from c2s_rl.data.split_config import LabelColumns, SplitConfig, check_rules
from c2s_rl.types import Task


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


class QaConfig(FrozenConfig):
    """Questions about cells; `c2s_rl/data/qa_file.py` has the file's columns."""

    path: Path = Field(description=".jsonl or .parquet with questions and answers.")
    cells_per_question: int = Field(
        2, ge=1, description="Cells drawn for a question that names a cell type."
    )
    draws: int = Field(
        1, ge=1, description="Prompts made of such a question, each with cells of its own draw."
    )
    split: SplitConfig = Field(
        default_factory=SplitConfig,
        description="Which questions are held out, by columns of the file (study, question, ...); "
        "without a rule those with named cells follow their cells, and the others train.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        rules = self.split
        cell_rules = {
            "tiers": bool(rules.tiers),
            "per_perturbation": rules.per_perturbation is not None,
            "spatial_blocks": rules.spatial_blocks is not None,
            "control_fraction": rules.control_fraction is not None,
        }
        for name, is_given in cell_rules.items():
            if is_given:
                raise ValueError(
                    f"questions must be divided by holdout or test_fraction, got qa.split.{name}"
                )
        return self


class CorpusConfig(FrozenConfig):
    """Settings of the stage `corpus`."""

    tasks: tuple[Task, ...] = Field(
        (Task.CELL_GENERATION,), min_length=1, description="Tasks to make prompts for."
    )
    cell_type_column: str = Field("cell_type", description="obs column with the cell type.")
    condition_column: str | None = Field(
        None, description="obs column with the perturbation; needed for perturbation_response."
    )
    control: str | None = Field(
        None, description="Value of condition_column that marks untreated cells."
    )
    exposure_column: str | None = Field(
        None, description="obs column that tells forms of a perturbation apart: dose, hours, course"
    )
    donor_column: str | None = Field(
        None, description="obs column; a cell and its control then come from the same donor."
    )
    pairs_per_cell: int = Field(
        1, ge=1, description="Control cells drawn for each perturbed cell, one prompt each."
    )
    num_genes: int = Field(100, ge=1, description="Length of cell sentences, in genes.")
    target: TargetForm = Field(
        TargetForm.CELL, description="What the target text (what SFT trains on) is written from."
    )
    reward_target: TargetForm = Field(
        TargetForm.CELL, description="What target_genes (what rewards compare with) ranks."
    )
    split: SplitConfig = Field(default_factory=SplitConfig, description="Training and test side.")
    limits: PromptLimits = Field(default_factory=PromptLimits, description="Number of prompts.")
    templates: dict[Task, Path] = Field(
        default_factory=dict, description="Own template file per task, instead of the shipped one."
    )
    qa: QaConfig | None = Field(None, description="Questions; for question_answering.")
    seed: int = Field(0, ge=0, description="Seeds the split, the pairing, wording and order.")

    @property
    def obs_columns(self) -> tuple[str, ...]:
        """All obs columns that the corpus reads, each once."""
        named = (*self.label_columns, self.donor_column, *self.split.columns)
        return tuple(dict.fromkeys(c for c in named if c is not None))

    @property
    def labels(self) -> LabelColumns:
        """What makes a condition: cell type, perturbation and exposure."""
        return LabelColumns(
            self.cell_type_column, self.condition_column, self.exposure_column, self.control
        )

    @property
    def label_columns(self) -> tuple[str, ...]:
        """Columns that make a condition."""
        return self.labels.names

    @model_validator(mode="after")
    def _check_tasks(self) -> Self:
        if len(set(self.tasks)) != len(self.tasks):
            raise ValueError(f"tasks must differ, got {[str(t) for t in self.tasks]}")
        if Task.PERTURBATION_RESPONSE in self.tasks and self.condition_column is None:
            raise ValueError("perturbation_response needs condition_column, got None")
        if (Task.QUESTION_ANSWERING in self.tasks) != (self.qa is not None):
            raise ValueError(
                "qa must be given for task question_answering and only then, "
                f"got tasks {[str(t) for t in self.tasks]} and qa={self.qa}"
            )
        unused = [task for task in self.templates if task not in self.tasks]
        if unused:
            raise ValueError(f"templates must be for one of the tasks, got {unused[0]}")
        return self

    @model_validator(mode="after")
    def _check_columns(self) -> Self:
        if (self.condition_column is None) != (self.control is None):
            raise ValueError(
                "condition_column and control must be given together, "
                f"got {self.condition_column!r} and {self.control!r}"
            )
        if self.exposure_column is not None and self.condition_column is None:
            raise ValueError(
                f"exposure_column needs condition_column, got {self.exposure_column!r} alone"
            )
        labels = self.label_columns
        twice = [column for column in labels if labels.count(column) > 1]
        if twice:
            raise ValueError(
                "cell_type_column, condition_column and exposure_column must differ, "
                f"got {twice[0]!r} twice"
            )
        return self

    @model_validator(mode="after")
    def _check_split(self) -> Self:
        check_rules(self.split, self.labels)
        return self
