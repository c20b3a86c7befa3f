"""Which cells of a slide lie near each other: neighbourhoods of a radius, by a k-d tree.

A neighbourhood is all cells within a radius of one cell (C2S-Scale, section 4.6: 0.02 in the
coordinates of CosMx, about 20 um); slides never mix. Left out: prompts (`spatial_drafts.py`).

Shape suffixes: C cells, Z neighbours of all cells.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from c2s_rl.cells.rank import IndexArray
from c2s_rl.data.coordinates import PositionArray
from c2s_rl.errors import DataError

# Tissue has 5 to 50 cells within 20 to 50 um of one. So many on average mean that radius and
# coordinates are in different units, and would fill the memory with pairs.
MOST_NEIGHBOURS = 1000


@dataclass(frozen=True, eq=False)
class Neighbourhoods:
    """The neighbours of every cell, itself not among them."""

    indptr: IndexArray
    """[C + 1] cell i has entries indptr[i] to indptr[i + 1]."""
    neighbours: IndexArray
    """[Z] rows of cells, rising for each cell."""

    def of(self, cell: int) -> IndexArray:
        """Return the rows of one cell's neighbours, rising."""
        return self.neighbours[self.indptr[cell] : self.indptr[cell + 1]]

    @property
    def num_C(self) -> IndexArray:
        """[C] neighbours of each cell."""
        return np.diff(self.indptr)


def find_neighbours(
    positions_C: PositionArray, slides: Mapping[str, IndexArray], radius: float
) -> Neighbourhoods:
    """Find all pairs of cells of one slide that are no farther apart than the radius.

    Args:
        positions_C: [C, 2] coordinates.
        slides: Name of each slide to the rows of its cells (`rows_by_slide`).
        radius: In the unit of the coordinates.

    Raises:
        DataError: If cells have more than MOST_NEIGHBOURS neighbours on average, or none has any.
    """
    from scipy.spatial import cKDTree

    sources: list[IndexArray] = []
    targets: list[IndexArray] = []
    for name, rows in slides.items():
        tree = cKDTree(positions_C[rows])
        mean = int(tree.count_neighbors(tree, radius)) / len(rows) - 1
        if mean > MOST_NEIGHBOURS:
            raise DataError(
                f"a radius must reach {MOST_NEIGHBOURS} neighbours at most, got {mean:.0f} on "
                f"average within {radius} on slide {name!r}; is it in the unit of the coordinates?"
            )
        pairs = rows[tree.query_pairs(radius, output_type="ndarray")]
        sources += [pairs[:, 0], pairs[:, 1]]
        targets += [pairs[:, 1], pairs[:, 0]]
    source = np.concatenate(sources) if sources else np.zeros(0, dtype=np.int64)
    target = np.concatenate(targets) if targets else np.zeros(0, dtype=np.int64)
    if not len(source):
        raise DataError(
            f"some cells must have neighbours, got none within {radius} on {len(slides)} slides; "
            f"the nearest two are {_nearest(positions_C, slides):.4g} apart"
        )
    order = np.lexsort((target, source))
    counts = np.bincount(source, minlength=len(positions_C))
    return Neighbourhoods(np.concatenate([[0], np.cumsum(counts)]), target[order])


def kept_neighbours(hoods: Neighbourhoods, side_C: npt.NDArray[np.bool_]) -> Neighbourhoods:
    """Keep the neighbours that are on the same side of the split as the cell.

    Args:
        hoods: Neighbours of every cell.
        side_C: [C] True on the test side.
    """
    source = np.repeat(np.arange(len(side_C)), hoods.num_C)
    is_kept = side_C[source] == side_C[hoods.neighbours]
    counts = np.bincount(source[is_kept], minlength=len(side_C))
    return Neighbourhoods(np.concatenate([[0], np.cumsum(counts)]), hoods.neighbours[is_kept])


def _nearest(positions_C: PositionArray, slides: Mapping[str, IndexArray]) -> float:
    """Return the shortest distance between two cells of one slide; inf where there is no pair."""
    from scipy.spatial import cKDTree

    shortest = np.inf
    for rows in slides.values():
        if len(rows) > 1:
            # The nearest of all is the cell itself; the list asks for the second only.
            distances, _ = cKDTree(positions_C[rows]).query(positions_C[rows], k=[2])
            shortest = min(shortest, float(np.min(distances)))
    return shortest
