"""A two-dimensional map (UMAP) of real and generated cells, all read from sentences.

Left out: any claim in numbers. A map is for looking; distances on it are no metric.

Shape suffixes: C cells, V vocabulary.
"""

import itertools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from c2s_rl.cells.sentence import sentence_to_expression
from c2s_rl.evaluation.cell_metrics import Yardstick
from c2s_rl.evaluation.rank import DoubleArray
from c2s_rl.types import FloatArray, IntArray

REAL = "real"
NUM_COMPONENTS = 30  # what scanpy-style pipelines keep for a few thousand cells
NUM_NEIGHBOURS = 15
# Fewer cells than this have no neighbourhoods to speak of.
MIN_CELLS = 3 * NUM_NEIGHBOURS

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class LabelledCells:
    """Cells of one origin."""

    genes: Sequence[IntArray]
    """Sentences as vocabulary indices."""
    conditions: Sequence[str]
    """Condition of each."""


@dataclass(frozen=True, eq=False)
class CellMap:
    """Where every cell lies."""

    xy_C_2: FloatArray
    """[C, 2] coordinates without unit."""
    source_C: tuple[str, ...]
    """[C] 'real' or the policy that wrote the cell."""
    condition_C: tuple[str, ...]
    """[C] condition, of the prompt for generated cells."""
    num_genes: int
    """Genes that a cell's sentence was cut to."""

    @property
    def sources(self) -> tuple[str, ...]:
        """Origins in the order given, each once."""
        return tuple(dict.fromkeys(self.source_C))


def map_cells(
    cells_by_source: Mapping[str, LabelledCells],
    yardstick: Yardstick,
    *,
    max_cells: int,
    seed: int,
) -> CellMap | None:
    """Lay cells out on a plane: sentence -> expression -> principal components -> UMAP.

    Args:
        cells_by_source: Origin to its cells; the first is drawn at the back.
        yardstick: Cut and rank model that all cells go through.
        max_cells: Most cells of one origin; the first ones are taken.
        seed: Seeds both steps; one thread, so that the map is the same every time.

    Returns:
        The map; None when there are fewer than MIN_CELLS cells.
    """
    taken = {
        name: list(itertools.islice(zip(c.genes, c.conditions, strict=True), max_cells))
        for name, c in cells_by_source.items()
    }
    labelled = [(name, genes, cond) for name, cells in taken.items() for genes, cond in cells]
    if len(labelled) < MIN_CELLS:
        log.warning("no UMAP: it needs at least %d cells, got %d", MIN_CELLS, len(labelled))
        return None
    expression_C_V = np.stack(
        [
            sentence_to_expression(
                genes[: yardstick.num_genes], yardstick.rank_model, yardstick.num_vocabulary
            )
            for _, genes, _ in labelled
        ]
    )
    return CellMap(
        xy_C_2=_umap(_principal_components(expression_C_V), seed),
        source_C=tuple(name for name, _, _ in labelled),
        condition_C=tuple(condition for _, _, condition in labelled),
        num_genes=yardstick.num_genes,
    )


def _principal_components(expression_C_V: FloatArray) -> DoubleArray:
    """[C, D] scores on the leading components; signs fixed, so that maps do not flip."""
    used_V = expression_C_V.any(axis=0)
    centred = expression_C_V[:, used_V].astype(np.float64)
    centred -= centred.mean(axis=0)
    left, singular, right = np.linalg.svd(centred, full_matrices=False)
    num = min(NUM_COMPONENTS, len(singular))
    leading = np.abs(right[:num]).argmax(axis=1)
    signs = np.sign(right[np.arange(num), leading])
    scores: DoubleArray = left[:, :num] * singular[:num] * np.where(signs == 0, 1, signs)
    return scores


def _umap(scores_C_D: DoubleArray, seed: int) -> FloatArray:
    import umap  # 15 s: it compiles on import

    reducer = umap.UMAP(
        n_neighbors=NUM_NEIGHBOURS,
        min_dist=0.3,
        random_state=seed % 2**31,
        n_jobs=1,
        # Identical sentences are common among generated cells and would break spectral start-up.
        init="pca",
    )
    return np.asarray(reducer.fit_transform(scores_C_D), dtype=np.float32)
