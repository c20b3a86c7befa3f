"""Which cells a policy shall write, and how they are sampled: the section `generate`."""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from c2s_rl.config import FrozenConfig
from c2s_rl.decoding.constraint import GeneConstraint
from c2s_rl.types import Task


class ConditionConfig(FrozenConfig):
    """Cells of one kind; neither type nor perturbation asks for any cell."""

    cell_type: str | None = Field(None, min_length=1, description="As prompts name it")
    perturbation: str | None = Field(
        None,
        min_length=1,
        description="As prompts name it, with exposure ('IFN-beta', 'IFN-beta, acute'); control "
        "cells of the type are shown",
    )
    num_cells: int = Field(100, ge=1, description="Cells to write")

    @model_validator(mode="after")
    def _perturbs_a_type(self) -> Self:
        if self.perturbation is not None and self.cell_type is None:
            raise ValueError(
                f"a perturbation needs the cell_type that it acts on, got {self.perturbation!r} "
                "without"
            )
        return self

    @property
    def task(self) -> Task:
        """What the prompts ask for."""
        if self.perturbation is not None:
            return Task.PERTURBATION_RESPONSE
        if self.cell_type is not None:
            return Task.CELL_GENERATION
        return Task.SINGLE_CELL_LANGUAGE_MODELLING

    @property
    def name(self) -> str:
        """Name of the condition, as corpora and reports write it; 'any cell' without a type."""
        parts = (self.cell_type, self.perturbation)
        return " | ".join(part for part in parts if part) or "any cell"


class ControlConfig(FrozenConfig):
    """Which cells of the folder are controls; default: what the corpus says."""

    cell_type_column: str = Field("cell_type", description="obs column with the cell type")
    condition_column: str = Field(description="obs column with the perturbation")
    control: str = Field(description="Its value of untreated cells")
    where: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="Only controls with one of these labels, by obs column"
    )


class GenerateConfig(FrozenConfig):
    """Settings of the stage `generate`."""

    policy: str | None = Field(
        None,
        description="sft, pretrain, base, align or best (the run's own) or a folder; default: the "
        "aligned one where the run aligns, else what alignment would start from",
    )
    cells: Path | None = Field(
        None, description="Cells folder: vocabulary, rank model, controls; default: the run's own"
    )
    conditions: tuple[ConditionConfig, ...] = Field(min_length=1, description="What to write")
    controls: ControlConfig | None = Field(None, description="Cells shown before perturbations")
    num_genes: int | None = Field(
        None, ge=1, description="Genes of a cell sentence; default: the corpus'"
    )
    temperature: float = Field(
        1.0, ge=0, description="0 takes the likeliest token: every cell of a prompt is the same"
    )
    max_tokens: int | None = Field(
        None, ge=1, description="Longest answer, in tokens; default: that of align.sampling"
    )
    genes: GeneConstraint = Field(
        default_factory=GeneConstraint,
        description="Which genes a cell may hold; max_genes is num_genes where it is not given",
    )
    templates: dict[Task, Path] = Field(
        default_factory=dict, description="Own phrasings by task; default: the corpus' or shipped"
    )
    seed: int = Field(0, ge=0, lt=2**32, description="Seeds phrasing, control and cell")

    @model_validator(mode="after")
    def _conditions_differ(self) -> Self:
        names = [condition.name for condition in self.conditions]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"conditions must differ, got {twice[0]!r} twice")
        return self
