"""Which obs columns say what a cell is: its type, what was done to it, whom it is from.

Rules that need the cells (does the column exist, does the control occur) are checked when the cells
are read, not here.
"""

from typing import Self

from pydantic import Field, model_validator

from c2s_rl.config import FrozenConfig
from c2s_rl.data.split_config import LabelColumns


class CellColumns(FrozenConfig):
    """The obs columns that make a cell's labels."""

    cell_type_column: str = Field("cell_type", description="obs column with the cell type.")
    condition_column: str | None = Field(
        None, description="obs column with the perturbation; needed for the perturbation tasks."
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
    control_match: tuple[str, ...] = Field(
        (),
        description="obs columns that a cell and its control share beside cell type and donor: "
        "[plate, cell_line, time] for L1000.",
    )

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
    def _check_control_match(self) -> Self:
        if self.control_match and self.condition_column is None:
            raise ValueError(
                f"control_match needs condition_column, got {list(self.control_match)} alone"
            )
        # Treated and untreated cells differ in these by definition: nothing would match.
        treatment = (self.condition_column, self.exposure_column)
        wrong = [column for column in self.control_match if column in treatment]
        if wrong:
            raise ValueError(
                f"control_match must not name what makes the treatment, got {wrong[0]!r}"
            )
        return self
