"""How the line between training and test is described: rules, as a config.

Rules add up: a cell that any of them takes is on the test side. Left out: applying them
(`splits.py`, `tier_draws.py`, `spatial_blocks.py`), and rules that need the names of the corpus's
columns, which `corpus_config.py` checks.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from pydantic import Field, model_validator

from c2s_rl.config import FrozenConfig

# The paper's neighbourhood, in the coordinate unit of its CosMx slides: about 20 um.
NEIGHBOURHOOD_RADIUS = 0.02


class DrawKind(StrEnum):
    """The held-out tiers of the Dong et al. data in C2S-Scale, section 4.5."""

    COMBINATION = "combination"
    """Combinations of agents ('A + B') that no cell type is trained under."""
    PER_CELL_TYPE = "per_cell_type"
    """For each cell type, perturbations it is not trained under, in no exposure; others are."""
    EXPOSURE = "exposure"
    """For each cell type, perturbations it is not trained under in one exposure only."""


class TierDraw(FrozenConfig):
    """Conditions to hold out, drawn by the seed of the corpus instead of being named."""

    kind: DrawKind = Field(description="What the drawn conditions have in common.")
    num: int = Field(
        1, ge=1, description="Perturbations drawn: combinations in all, otherwise per cell type."
    )


class TierConfig(FrozenConfig):
    """Conditions to hold out together; entries of one name are one tier."""

    name: str | None = Field(
        None,
        min_length=1,
        description="What tables call it; null: named after what training lacks of it.",
    )
    where: dict[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description="obs column -> values; a cell is held out when all columns have one of theirs.",
    )
    draw: TierDraw | None = Field(None, description="Draw the conditions, instead of `where`.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if bool(self.where) == (self.draw is not None):
            raise ValueError(
                "a tier must be made by exactly one of where and draw, "
                f"got {'both' if self.where else 'neither'}"
            )
        empty = [column for column, values in self.where.items() if not values]
        if empty:
            raise ValueError(f"a column of a tier must name values, got none for {empty[0]!r}")
        return self


class PerPerturbation(FrozenConfig):
    """For each perturbation, the share of its cell lines that is held out under it.

    Source: C2S-Scale, section 4.5 (L1000): half the cell lines of each perturbation.
    """

    column: str = Field("cell_line", description="obs column with the cell line, or a like group.")
    fraction: float = Field(
        0.5, gt=0, lt=1, description="Share of a perturbation's lines; at least one on each side."
    )


class SpatialBlocks(FrozenConfig):
    """Slides cut into rectangles by coordinates; whole rectangles go to the test side."""

    x: str = Field("x", description="obs column with the first coordinate.")
    y: str = Field("y", description="obs column with the second coordinate.")
    sample_column: str | None = Field(
        None, description="obs column that tells slides apart; null: all cells are of one."
    )
    num: tuple[int, int] | None = Field(
        None, description="Blocks along x and y, over the extent of each slide."
    )
    size: float | None = Field(
        None, gt=0, description="Side of square blocks instead, in the unit of the coordinates."
    )
    fraction: float = Field(0.2, gt=0, lt=1, description="Share of the blocks that is tested.")
    buffer: float = Field(
        NEIGHBOURHOOD_RADIUS,
        ge=0,
        description="Training cells as near as this to a tested block's cell are left out, in the "
        "unit of the coordinates; no smaller than the radius of neighbourhoods.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.num is None) == (self.size is None):
            raise ValueError(
                "spatial blocks must be made by exactly one of num and size, "
                f"got num={self.num} and size={self.size}"
            )
        if self.num is not None and (min(self.num) < 1 or max(self.num) < 2):
            raise ValueError(
                f"num must be 1 or more along both axes and 2 or more along one, got {self.num}"
            )
        return self


class SplitConfig(FrozenConfig):
    """How cells are divided into training and test; without any rule all cells train."""

    holdout: dict[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description="obs column -> values whose cells all go to the test side, controls included.",
    )
    tiers: tuple[TierConfig, ...] = Field(
        (),
        description="Combinations of cell type, perturbation and exposure that go to the test side",
    )
    per_perturbation: PerPerturbation | None = Field(
        None, description="Hold a share of the cell lines out under each perturbation."
    )
    spatial_blocks: SpatialBlocks | None = Field(
        None, description="Hold parts of slides out, by coordinates."
    )
    test_fraction: float = Field(
        0.0, ge=0, lt=1, description="Share of the other cells that goes to the test side too."
    )
    control_fraction: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Share of the control cells that does; null: test_fraction. The test prompts "
        "of a held-out perturbation show controls of the test side.",
    )
    group_column: str | None = Field(
        None, description="obs column (donor) whose groups test_fraction keeps together."
    )

    @property
    def has_rules(self) -> bool:
        """Whether any cell is asked to be on the test side."""
        named = self.holdout or self.tiers or self.per_perturbation or self.spatial_blocks
        return bool(named) or self.test_fraction > 0 or self.control_fraction is not None

    @property
    def columns(self) -> tuple[str, ...]:
        """The obs columns that the rules name, each once; drawn tiers read the labels besides."""
        blocks = self.spatial_blocks
        named = (
            *self.holdout,
            *(column for tier in self.tiers for column in tier.where),
            None if self.per_perturbation is None else self.per_perturbation.column,
            *(() if blocks is None else (blocks.x, blocks.y, blocks.sample_column)),
            self.group_column,
        )
        return tuple(dict.fromkeys(column for column in named if column is not None))

    @property
    def divides_controls(self) -> bool:
        """Whether the test side gets control cells of its own."""
        return self.test_fraction > 0 or self.control_fraction is not None

    @model_validator(mode="after")
    def _check(self) -> Self:
        empty = [column for column, values in self.holdout.items() if not values]
        if empty:
            raise ValueError(f"a held-out column must name values, got none for {empty[0]!r}")
        if self.group_column is not None and not self.test_fraction:
            raise ValueError(
                f"group_column needs test_fraction > 0 to divide, got {self.group_column!r} with 0"
            )
        return self

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.group_column is not None and self.control_fraction is not None:
            raise ValueError(
                "control_fraction must not stand beside group_column, which keeps the controls of "
                f"a group with it, got {self.control_fraction} and {self.group_column!r}"
            )
        if self.spatial_blocks is not None and self.test_fraction and self.group_column is None:
            raise ValueError(
                "spatial_blocks must not stand beside a test_fraction of single cells, whose "
                f"neighbours would train, got test_fraction {self.test_fraction}"
            )
        return self


@dataclass(frozen=True)
class LabelColumns:
    """Which obs columns make a condition; rules about perturbations need them."""

    cell_type: str
    """Column of the cell type."""
    perturbation: str | None
    """Column of the perturbation; None where there are none."""
    exposure: str | None
    """Column that tells forms of a perturbation apart; None where none does."""
    control: str | None
    """Value of `perturbation` that marks untreated cells."""

    @property
    def names(self) -> tuple[str, ...]:
        """The columns there are, in this order."""
        named = (self.cell_type, self.perturbation, self.exposure)
        return tuple(column for column in named if column is not None)


def check_rules(split: SplitConfig, labels: LabelColumns) -> None:
    """Check the rules that name or draw perturbations against the columns of the corpus.

    Raises:
        ValueError: If a tier is made of other columns, there are no perturbations or exposures to
            draw, the control is held out, or the test side would have no control cells.
    """
    _check_tiers(split, labels)
    needs = {
        "per_perturbation": split.per_perturbation is not None,
        "control_fraction": split.control_fraction is not None,
    }
    for name, is_given in needs.items():
        if is_given and labels.perturbation is None:
            raise ValueError(f"split.{name} needs condition_column and control, got None")
    column = labels.perturbation
    if column is None:
        return
    if split.per_perturbation is not None and split.per_perturbation.column == column:
        raise ValueError(
            f"per_perturbation must divide each perturbation by another column, got {column!r}"
        )
    rules = (split.holdout, *(tier.where for tier in split.tiers))
    held_out = [value for rule in rules for value in rule.get(column, ())]
    if labels.control in held_out:
        raise ValueError(
            f"held-out values of {column} must be perturbations, got the control {labels.control!r}"
        )
    is_drawn = split.per_perturbation is not None or any(tier.draw for tier in split.tiers)
    if (held_out or is_drawn) and not split.divides_controls:
        # A held-out perturbation has no control cells of its own, and those of the training
        # side must not be shown in test prompts.
        raise ValueError(
            f"holding out values of {column} needs test_fraction > 0 or a control_fraction, so "
            "that the test side has control cells, got 0"
        )


def _check_tiers(split: SplitConfig, labels: LabelColumns) -> None:
    for tier in split.tiers:
        other = [column for column in tier.where if column not in labels.names]
        if other:
            raise ValueError(
                f"a tier must be made of {', '.join(labels.names)}, got {other[0]!r}; "
                "use split.holdout for donors and other columns"
            )
        if tier.draw is not None and labels.perturbation is None:
            raise ValueError("a drawn tier needs condition_column and control, got None")
        if tier.draw is not None and tier.draw.kind is DrawKind.EXPOSURE and not labels.exposure:
            raise ValueError("a tier drawn exposure needs exposure_column, got None")
