"""Where cells lie: obs labels to coordinates, and the cells of each slide.

Cell shards hold obs columns as text, so coordinates are read from it once, here. The unit is the
one of the data set (CosMx: pixels or mm); a radius is given in the same.

Shape suffix: C cells.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from c2s_rl.cells.rank import IndexArray
from c2s_rl.errors import DataError

PositionArray = npt.NDArray[np.float64]
TextArray = npt.NDArray[np.str_]


def read_positions(
    obs: Mapping[str, TextArray], x: str, y: str, cell_ids: Sequence[str]
) -> PositionArray:
    """Read the coordinates of all cells.

    Args:
        obs: Column name to [C] labels; holds `x` and `y`.
        x: Column of the first coordinate.
        y: Column of the second.
        cell_ids: [C], for messages.

    Returns:
        [C, 2] coordinates; both are nan for a cell that has neither, such as one of a dissociated
        sample in the same corpus.

    Raises:
        DataError: If a coordinate is not a finite number, a cell has one of the two only, or no
            cell has any.
    """
    positions = np.column_stack([_numbers(obs[name], name, cell_ids) for name in (x, y)])
    is_missing = np.isnan(positions)
    half = np.flatnonzero(is_missing[:, 0] != is_missing[:, 1])
    if len(half):
        cell, axis = int(half[0]), int(np.argmax(is_missing[half[0]]))
        raise DataError(
            f"a cell must have both coordinates or neither, got no {(x, y)[axis]!r} for cell "
            f"{cell_ids[cell]!r} and {len(half) - 1} more"
        )
    if is_missing.all():
        raise DataError(f"some cells must have coordinates, got none in {x!r} and {y!r}")
    return positions


def rows_by_slide(slide_C: TextArray | None, positions_C: PositionArray) -> dict[str, IndexArray]:
    """Return the rows of the cells of each slide that have coordinates, slides sorted by name.

    Args:
        slide_C: [C] name of each cell's slide; None: all are of one, called ''.
        positions_C: [C, 2] coordinates, nan for cells without.
    """
    rows = np.flatnonzero(~np.isnan(positions_C[:, 0]))
    if slide_C is None:
        return {"": rows}
    names, inverse = np.unique(slide_C[rows], return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    ends = np.cumsum(np.bincount(inverse, minlength=len(names)))[:-1]
    return {str(n): part for n, part in zip(names, np.split(rows[order], ends), strict=True)}


def _numbers(labels_C: TextArray, column: str, cell_ids: Sequence[str]) -> PositionArray:
    """Turn one column into numbers; '' becomes nan."""
    texts, inverse = np.unique(labels_C, return_inverse=True)
    numbers = np.full(len(texts), np.nan)
    for i, text in enumerate(texts.tolist()):
        if not text:
            continue
        try:
            numbers[i] = float(text)
        except ValueError:
            numbers[i] = np.nan
        if not np.isfinite(numbers[i]):
            cell = int(np.flatnonzero(inverse == i)[0])
            raise DataError(
                f"a coordinate must be a finite number, got {text!r} in {column!r} of cell "
                f"{cell_ids[cell]!r}"
            )
    return numbers[inverse]
