"""Slides divided by coordinates: blocks of cells, and the strip between the sides.

Neighbouring cells resemble each other, so a line drawn through random cells would leak. Source:
C2S-Scale, section 4.6 (the train/test split is by coordinates). Left out: neighbourhoods.

Shape suffix: C cells.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from c2s_rl.cells.rank import stable_hash
from c2s_rl.data.coordinates import PositionArray, TextArray, read_positions, rows_by_slide
from c2s_rl.data.split_config import SpatialBlocks
from c2s_rl.errors import DataError
from c2s_rl.types import BoolArray

# A neighbour search and this one may round a distance differently in its last bit.
ROUNDING = 1 + 1e-9


@dataclass(frozen=True, eq=False)
class BlockSplit:
    """Where the blocks put each cell."""

    block_C: TextArray
    """[C] name of the cell's block; '' for cells without coordinates and for held-out ones."""
    is_test_C: BoolArray
    """[C] in a tested block."""
    is_buffer_C: BoolArray
    """[C] not in one, but as near to one of its cells as the buffer is wide."""


def split_blocks(
    cell_ids: Sequence[str],
    obs: Mapping[str, TextArray],
    config: SpatialBlocks,
    *,
    held_out_C: BoolArray,
    seed: int,
) -> BlockSplit:
    """Draw the tested blocks by a hash of (seed, block name), and the strip around them.

    Args:
        cell_ids: [C], for messages.
        obs: Column name to [C] labels; holds the columns that `config` names.
        config: Blocks, share and width of the strip.
        held_out_C: [C] cells that another rule holds out; a block that has no others is not drawn
            in vain, and they are no part of a block.
        seed: Seed of the corpus; the order of the cells has no influence.

    Raises:
        DataError: If coordinates are no numbers, or the cells stand in fewer than two blocks.
    """
    positions = read_positions(obs, config.x, config.y, cell_ids)
    slide = None if config.sample_column is None else obs[config.sample_column]
    slides = rows_by_slide(slide, positions)
    block_C = np.full(len(cell_ids), "", dtype=object)
    for name, rows in slides.items():
        corners = _blocks(positions[rows], config)
        of_slide = f" of {name}" if name else ""
        unique, inverse = np.unique(corners, axis=0, return_inverse=True)
        names = np.array([f"block {i},{j}{of_slide}" for i, j in unique.tolist()], dtype=object)
        block_C[rows] = names[inverse.reshape(-1)]
    block_C[held_out_C] = ""
    is_test = np.isin(block_C, _drawn(block_C, config, seed))
    is_buffer = np.zeros(len(cell_ids), dtype=bool)
    for rows in slides.values():
        is_buffer[rows] = _near(positions[rows], is_test[rows], config.buffer)
    return BlockSplit(block_C.astype(np.str_), is_test, is_buffer)


def _blocks(positions_C: PositionArray, config: SpatialBlocks) -> npt.NDArray[np.int64]:
    """Return [C, 2] column and row of each cell's block within its slide."""
    if config.size is not None:
        # From 0 on, not from the slide's corner: blocks stay where they are when cells are added.
        return np.floor(positions_C / config.size).astype(np.int64)
    low, high = positions_C.min(axis=0), positions_C.max(axis=0)
    extent = np.where(high > low, high - low, 1.0)
    num = np.array(config.num, dtype=np.int64)
    share: PositionArray = (positions_C - low) / extent * num
    # The cell at the far edge belongs to the last block, not to one behind it.
    return np.minimum(share, num - 1).astype(np.int64)


def _drawn(block_C: npt.NDArray[np.object_], config: SpatialBlocks, seed: int) -> list[str]:
    """The nearest whole number of blocks to the fraction, at least one on each side."""
    blocks = sorted(set(block_C.tolist()) - {""})
    if len(blocks) < 2:
        raise DataError(
            f"spatial blocks must divide the cells into 2 or more, got {len(blocks)} with "
            f"num={config.num} and size={config.size}"
        )
    num_test = min(max(1, round(config.fraction * len(blocks))), len(blocks) - 1)
    order = sorted(blocks, key=lambda block: stable_hash(f"split|{block}", seed))
    return order[:num_test]


def _near(positions_C: PositionArray, is_test_C: BoolArray, buffer: float) -> BoolArray:
    """Find the cells of the other blocks that lie within `buffer` of a tested cell."""
    from scipy.spatial import cKDTree

    is_near = np.zeros(len(positions_C), dtype=bool)
    others = np.flatnonzero(~is_test_C)
    if buffer and is_test_C.any() and len(others):
        distances, _ = cKDTree(positions_C[is_test_C]).query(positions_C[others])
        is_near[others] = distances <= buffer * ROUNDING
    return is_near
