"""The sections of a corpus config for tasks on tissue, gene interactions and texts about cells.

Rules that need cells or files are checked when those are read. Left out: the sections of the
pretraining tasks and of questions (`corpus_sections.py`).
"""

from collections.abc import Collection
from pathlib import Path

from pydantic import Field

from c2s_rl.config import FrozenConfig
from c2s_rl.data.split_config import NEIGHBOURHOOD_RADIUS, SplitConfig
from c2s_rl.types import Task

SPATIAL_TASKS = (
    Task.NICHE_ANNOTATION,
    Task.NEIGHBOUR_GENERATION,
    Task.SAME_NEIGHBOURHOOD,
    Task.SAME_NICHE,
)
NICHE_TASKS = (Task.NICHE_ANNOTATION, Task.SAME_NICHE)
INTERACTION_TASKS = (Task.GENE_INTERACTION, Task.GENE_PARTNERS)


class SpatialConfig(FrozenConfig):
    """Cells of tissue with coordinates: which are neighbours, and what is asked about them."""

    x: str = Field("x", description="obs column with the first coordinate.")
    y: str = Field("y", description="obs column with the second coordinate.")
    sample_column: str | None = Field(
        None, description="obs column that tells slides apart; null: all cells are of one."
    )
    niche_column: str | None = Field(
        None, description="obs column with the niche; needed by the tasks that ask for it."
    )
    radius: float = Field(
        NEIGHBOURHOOD_RADIUS,
        gt=0,
        description="A cell's neighbourhood reaches so far, in the unit of the coordinates.",
    )
    num_neighbours: int = Field(
        4, ge=1, description="Most neighbours shown beside a cell whose niche is asked for."
    )
    cells_per_question: int = Field(
        3, ge=2, description="Cells shown when it is asked whether they belong together."
    )
    cells_per_slide: int | None = Field(
        None,
        ge=1,
        description="Most cells of each slide and side that a task asks about; null: all.",
    )

    @property
    def columns(self) -> tuple[str, ...]:
        """Obs columns that it reads."""
        named = (self.x, self.y, self.sample_column, self.niche_column)
        return tuple(column for column in named if column is not None)


class GeneInteractionConfig(FrozenConfig):
    """Pairs of genes that interact, as CellPhoneDB or BioGRID list them; no cells."""

    path: Path = Field(
        description="Two columns: a gene and another, .tsv, .txt or .csv with or without a header; "
        "or .jsonl or .parquet with gene_a and gene_b. ${VARIABLES} allowed."
    )
    max_partners: int = Field(
        50, ge=1, description="Longer lists of a gene's partners are sampled."
    )
    test_fraction: float = Field(
        0.0, ge=0, lt=1, description="Share of the pairs that is held out, whichever gene is first."
    )

    @property
    def columns(self) -> tuple[str, ...]:
        """Obs columns that it reads: none."""
        return ()


class CaptionConfig(FrozenConfig):
    """Texts about clusters of cells."""

    path: Path = Field(
        description="cluster and caption, a row each, several captions of a cluster allowed: .tsv, "
        ".txt, .csv, .jsonl or .parquet. ${VARIABLES} allowed."
    )
    cluster_column: str = Field(description="obs column with the cluster.")
    cells_per_caption: int = Field(2, ge=1, description="Cells shown; the paper shows two.")
    draws: int = Field(
        10, ge=1, description="Prompts of each cluster and side, each with cells of its own draw."
    )

    @property
    def columns(self) -> tuple[str, ...]:
        """Obs columns that it reads."""
        return (self.cluster_column,)


class InterpretationConfig(FrozenConfig):
    """Summaries of studies; the samples themselves are drawn as `multi_cell` says."""

    path: Path = Field(
        description="study and summary, a row each, several summaries of a study allowed: .tsv, "
        ".txt, .csv, .jsonl or .parquet. ${VARIABLES} allowed; cells name their study in "
        "multi_cell.dataset_column, or all are of the one that the file holds."
    )

    @property
    def columns(self) -> tuple[str, ...]:
        """Obs columns that it reads: those of `multi_cell`."""
        return ()


def check_spatial(spatial: SpatialConfig, tasks: Collection[Task], split: SplitConfig) -> None:
    """Check what tasks on tissue need of the niche column and of the split.

    Raises:
        ValueError: If a task asks for niches and there is no such column, or spatial blocks are cut
            by other coordinates, or so that neighbourhoods would cross between the sides.
    """
    for task in tasks:
        if task in NICHE_TASKS and spatial.niche_column is None:
            raise ValueError(f"{task} needs spatial.niche_column, got None")
    blocks = split.spatial_blocks
    if blocks is None:
        return
    for name, ours, theirs in (
        ("x", spatial.x, blocks.x),
        ("y", spatial.y, blocks.y),
        ("sample_column", spatial.sample_column, blocks.sample_column),
    ):
        if ours != theirs:
            raise ValueError(
                f"spatial and split.spatial_blocks must have the same {name}, "
                f"got {ours!r} and {theirs!r}"
            )
    if blocks.buffer < spatial.radius:
        raise ValueError(
            "split.spatial_blocks.buffer must be at least spatial.radius, or neighbourhoods cross "
            f"the line, got {blocks.buffer} < {spatial.radius}"
        )
