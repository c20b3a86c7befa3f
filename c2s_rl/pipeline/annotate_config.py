"""Which cells are annotated, how they are asked about and what counts: the section `annotate`."""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from c2s_rl.config import FrozenConfig
from c2s_rl.pipeline.convert import ConvertConfig
from c2s_rl.types import Split


class AnnotateConfig(FrozenConfig):
    """Settings of the stage `annotate`."""

    policy: str | None = Field(
        None,
        description="sft, pretrain, base, align or best (the run's own) or a folder; default: what "
        "alignment starts from",
    )
    cells: Path | None = Field(None, description="Cells folder; default: the run's own")
    source: ConvertConfig | None = Field(
        None, description="Instead of cells: a file to convert first, as section `convert` has it"
    )
    where: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="Only cells with one of these labels, by obs column"
    )
    side: Split | None = Field(
        None, description="Only cells on this side of the corpus' held-out line: train or test"
    )
    num_genes: int | None = Field(
        None, ge=1, description="Genes of a cell sentence; default: the corpus'"
    )
    templates: Path | None = Field(
        None, description="Phrasings of cell_type_annotation; default: the corpus' or shipped ones"
    )
    num_samples: int = Field(1, ge=1, description="Answers a cell, which vote")
    temperature: float = Field(0.0, ge=0, description="0 takes the likeliest token (greedy)")
    max_tokens: int = Field(24, ge=1, description="Longest answer, in tokens")
    classes: tuple[str, ...] = Field(
        (), description="Closed set of labels: any other answer is 'unknown'; empty: open"
    )
    classes_column: str | None = Field(
        None, description="obs column whose labels are the closed set"
    )
    known_column: str | None = Field(
        None, description="obs column with known cell types, for scores; default: the corpus'"
    )
    into: Path | None = Field(
        None, description=".h5ad of the same cells: a copy of it gets the results in obs"
    )
    seed: int = Field(0, ge=0, lt=2**32, description="Seeds phrasing and answers of every cell")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.side is not None and (self.cells is not None or self.source is not None):
            raise ValueError(f"side is known of the run's own cells only, got {self.side.value}")
        if self.cells is not None and self.source is not None:
            raise ValueError(f"cells must be given without source, got {self.cells} too")
        return self

    @model_validator(mode="after")
    def _greedy_answers_once(self) -> Self:
        if self.temperature == 0 and self.num_samples > 1:
            raise ValueError(
                "num_samples must be 1 with temperature 0, which gives the same answer every time, "
                f"got {self.num_samples}"
            )
        if self.classes and self.classes_column is not None:
            raise ValueError(
                f"classes must be given without classes_column, got {self.classes_column!r} too"
            )
        return self
