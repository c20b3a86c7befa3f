"""The sections of a corpus config that belong to one family of tasks.

Each says which obs columns it reads (`columns`). Rules that need cells or files are checked when
those are read.
"""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Protocol, Self

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue, model_validator

from c2s_rl.config import FrozenConfig
from c2s_rl.data.downstream_sections import (
    INTERACTION_TASKS,
    SPATIAL_TASKS,
    CaptionConfig,
    GeneInteractionConfig,
    InterpretationConfig,
    SpatialConfig,
)
from c2s_rl.data.split_config import SplitConfig
from c2s_rl.types import Task

SAMPLE_TASKS = (
    Task.MULTI_CELL_LANGUAGE_MODELLING,
    Task.TISSUE_ANNOTATION,
    Task.SAMPLE_CELL_TYPE_ANNOTATION,
    Task.TISSUE_SAMPLE_GENERATION,
    Task.CELL_TYPE_SAMPLE_GENERATION,
    Task.ABSTRACT_SAMPLE_GENERATION,
    Task.NATURAL_LANGUAGE_INTERPRETATION,
)
TISSUE_TASKS = (Task.TISSUE_ANNOTATION, Task.TISSUE_SAMPLE_GENERATION)
ABSTRACT_TASKS = (Task.ABSTRACT_SAMPLE_GENERATION, Task.NATURAL_LANGUAGE_INTERPRETATION)

SECTION_TASKS: Mapping[str, tuple[Task, ...]] = MappingProxyType(
    {
        "qa": (Task.QUESTION_ANSWERING,),
        "multi_cell": (*SAMPLE_TASKS, Task.DATASET_INTERPRETATION),
        "gene_sets": (Task.GENE_SET_ENUMERATION, Task.GENE_SET_NAMING),
        "spatial": SPATIAL_TASKS,
        "gene_interactions": INTERACTION_TASKS,
        "captions": (Task.CLUSTER_CAPTIONING,),
        "interpretations": (Task.DATASET_INTERPRETATION,),
    }
)
"""Section of the config to the tasks that it is for."""


class Section(Protocol):
    """What a corpus needs to know of every section."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Obs columns that it reads."""


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

    @property
    def columns(self) -> tuple[str, ...]:
        """Obs columns that it reads: none of its own."""
        return ()


def _as_range(value: JsonValue) -> JsonValue:
    return [value, value] if isinstance(value, int) and not isinstance(value, bool) else value


def _check_range(value: tuple[int, int]) -> tuple[int, int]:
    low, high = value
    if not 2 <= low <= high:
        raise ValueError(
            f"cells_per_sample must be a number >= 2 or [least, most], got {list(value)}"
        )
    return value


CellRange = Annotated[tuple[int, int], BeforeValidator(_as_range), AfterValidator(_check_range)]


class MultiCellConfig(FrozenConfig):
    """Samples of several cells: of one donor, tissue, data set, treatment and side of the split."""

    cells_per_sample: CellRange = Field(
        (5, 20), description="[least, most] cells of a sample, each number as likely; or a number."
    )
    samples_per_group: int = Field(
        10, ge=1, description="Samples drawn from the cells of each donor and tissue, per task."
    )
    tissue_column: str | None = Field(
        None, description="obs column with the tissue; needed by the tasks that name it."
    )
    donor_column: str | None = Field(
        None, description="obs column with the donor; null: donor_column of the corpus."
    )
    dataset_column: str | None = Field(
        None, description="obs column with the study of a cell; key of `abstracts`."
    )
    abstract_column: str | None = Field(
        None, description="obs column with the abstract of a cell's study."
    )
    abstracts: Path | None = Field(
        None,
        description="Table of study and abstract (.tsv, .jsonl, .parquet); without dataset_column "
        "it must hold the one study that all cells are of.",
    )

    @property
    def columns(self) -> tuple[str, ...]:
        """Obs columns that it reads."""
        named = (self.tissue_column, self.donor_column, self.dataset_column, self.abstract_column)
        return tuple(column for column in named if column is not None)

    @property
    def has_abstracts(self) -> bool:
        """Whether cells have an abstract, from either place."""
        return self.abstract_column is not None or self.abstracts is not None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.abstract_column is not None and self.abstracts is not None:
            raise ValueError(
                "abstracts must come from abstract_column or a file, not both, "
                f"got {self.abstract_column!r} and {self.abstracts}"
            )
        return self


class NameForm(StrEnum):
    """How the name of a gene set is written in prompts."""

    AS_IS = "as_is"
    """HALLMARK_INTERFERON_ALPHA_RESPONSE"""
    WORDS = "words"
    """hallmark interferon alpha response"""


class GeneSetConfig(FrozenConfig):
    """Named sets of genes, for the tasks that need no cells."""

    paths: tuple[Path, ...] = Field(
        (), description="GMT files, ${VARIABLES} allowed; empty: the sets that ship."
    )
    names: NameForm = Field(NameForm.WORDS, description="How names are written.")
    only_vocabulary: bool = Field(
        default=True, description="Leave out genes that the cells' vocabulary lacks under any name."
    )
    min_genes: int = Field(5, ge=1, description="Sets with fewer genes are left out.")
    max_genes: int = Field(200, ge=1, description="Longer sets are sampled, per draw.")
    draws: int = Field(1, ge=1, description="Prompts of each task per set, each in its own order.")
    test_fraction: float = Field(
        0.0, ge=0, lt=1, description="Share of the sets that is held out, in both directions."
    )

    @property
    def columns(self) -> tuple[str, ...]:
        """Obs columns that it reads: none."""
        return ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.max_genes < self.min_genes:
            raise ValueError(
                f"max_genes must be at least min_genes, got {self.max_genes} < {self.min_genes}"
            )
        return self


class TokenBudget(FrozenConfig):
    """Most tokens of a sample (prompt, target and end token); sentences are shortened to fit."""

    max_tokens: int = Field(ge=1, description="Most tokens of prompt + target + end token.")
    tokens_per_gene: float | None = Field(
        None, gt=0, description="Mean tokens of a gene, where no tokenizer is given; about 5."
    )
    tokenizer: Path | None = Field(
        None, description="Folder of a tokenizer: the true number of tokens of each gene."
    )
    min_genes: int = Field(
        20, ge=1, description="Sentences are not cut below it; then cells are left out of samples."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.tokens_per_gene is None) == (self.tokenizer is None):
            raise ValueError(
                "token_budget must have one of tokens_per_gene and tokenizer, "
                f"got {self.tokens_per_gene} and {self.tokenizer}"
            )
        least = self.min_genes * (self.tokens_per_gene or 1)
        if least > self.max_tokens:
            raise ValueError(
                f"max_tokens must hold a sentence of min_genes = {self.min_genes} genes, "
                f"about {least:.0f} tokens, got {self.max_tokens}"
            )
        return self


class TaskSections(FrozenConfig):
    """The sections that tasks need; each is given when one of its tasks is, and only then."""

    qa: QaConfig | None = Field(None, description="Questions; for question_answering.")
    multi_cell: MultiCellConfig | None = Field(None, description="Samples of several cells.")
    gene_sets: GeneSetConfig | None = Field(None, description="Gene sets.")
    spatial: SpatialConfig | None = Field(None, description="Cells of tissue with coordinates.")
    gene_interactions: GeneInteractionConfig | None = Field(
        None, description="Pairs of genes that interact."
    )
    captions: CaptionConfig | None = Field(None, description="Texts about clusters of cells.")
    interpretations: InterpretationConfig | None = Field(
        None, description="Summaries of studies; beside multi_cell."
    )

    @property
    def sections(self) -> dict[str, Section | None]:
        """Every section by its key; None where it is not given."""
        return {
            "qa": self.qa,
            "multi_cell": self.multi_cell,
            "gene_sets": self.gene_sets,
            "spatial": self.spatial,
            "gene_interactions": self.gene_interactions,
            "captions": self.captions,
            "interpretations": self.interpretations,
        }

    @property
    def section_columns(self) -> tuple[str, ...]:
        """Obs columns that the sections read."""
        return tuple(
            column for s in self.sections.values() if s is not None for column in s.columns
        )
