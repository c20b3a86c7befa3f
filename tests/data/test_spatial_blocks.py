"""Coordinates, blocks and the strip between the two sides."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from c2s_rl.data.coordinates import read_positions, rows_by_slide
from c2s_rl.data.spatial_blocks import BlockSplit, split_blocks
from c2s_rl.data.split_config import SpatialBlocks
from c2s_rl.errors import DataError

Cell = tuple[str, int, int, str]


def split(cells: list[Cell], config: SpatialBlocks, seed: int = 0) -> BlockSplit:
    ids, x, y, slides = (list(column) for column in zip(*cells, strict=True))
    obs = {"x": np.array(x, dtype=str), "y": np.array(y, dtype=str), "slide": np.array(slides)}
    nobody = np.zeros(len(ids), dtype=bool)
    return split_blocks(ids, obs, config, held_out_C=nobody, seed=seed)


# 10 x 10 cells at whole coordinates on each of two slides.
GRID = [(f"{s}/{x},{y}", x, y, s) for s in ("s1", "s2") for x in range(10) for y in range(10)]


def test_blocks_cover_each_slide_evenly_and_the_nearest_number_is_tested() -> None:
    config = SpatialBlocks(sample_column="slide", num=(5, 2), fraction=0.3, buffer=0)
    blocks = split(GRID, config)
    names, counts = np.unique(blocks.block_C, return_counts=True)
    # 5 x 2 blocks on 2 slides, each of 2 columns and 5 rows of cells (extent 9: cuts at 1.8, 4.5).
    assert len(names) == 20
    assert set(counts.tolist()) == {10}
    # 0.3 x 20 blocks.
    assert len(set(blocks.block_C[blocks.is_test_C].tolist())) == 6
    assert blocks.is_test_C.sum() == 60
    assert not blocks.is_buffer_C.any()


def test_square_blocks_stay_where_they_are_when_cells_are_added() -> None:
    config = SpatialBlocks(sample_column="slide", size=4.0, fraction=0.5)
    before = split(GRID, config).block_C
    after = split([*GRID, ("far", -7, 12, "s1")], config).block_C
    assert after[:-1].tolist() == before.tolist()
    # -7 / 4 and 12 / 4, rounded down.
    assert after[-1] == "block -2,3 of s1"


@settings(deadline=None, max_examples=30)
@given(st.permutations(GRID), st.integers(0, 99), st.sampled_from([0.0, 1.0, 1.5, 2.0]))
def test_no_training_cell_is_within_the_buffer_of_a_tested_one(
    cells: list[Cell], seed: int, buffer: float
) -> None:
    config = SpatialBlocks(sample_column="slide", num=(2, 2), fraction=0.25, buffer=buffer)
    blocks = split(cells, config, seed)
    train = [c for c, b, t in zip(cells, blocks.is_buffer_C, blocks.is_test_C, strict=True)
             if not b and not t]  # fmt: skip
    test = [c for c, t in zip(cells, blocks.is_test_C, strict=True) if t]
    left_out = [c for c, b in zip(cells, blocks.is_buffer_C, strict=True) if b]
    assert not (blocks.is_buffer_C & blocks.is_test_C).any()

    def is_near(cell: Cell) -> bool:
        return any(
            slide == cell[3] and (x - cell[1]) ** 2 + (y - cell[2]) ** 2 <= buffer**2
            for _, x, y, slide in test
        )

    assert not any(map(is_near, train))
    # Nothing is left out for nothing.
    assert all(map(is_near, left_out))
    assert bool(left_out) == (buffer > 0)
    # The order of the cells changes nothing.
    again = split(GRID, config, seed)
    tested = {c[0] for c in test}
    assert {c[0] for c, t in zip(GRID, again.is_test_C, strict=True) if t} == tested


def test_held_out_cells_and_cells_without_place_are_in_no_block() -> None:
    cells = ["a", "b", "c", "d"]
    obs = {"x": np.array(["0", "0.5", "9", ""]), "y": np.array(["0", "0.5", "9", ""])}
    config = SpatialBlocks(num=(2, 2), fraction=0.5)
    held_out = np.array([True, False, False, False])
    blocks = split_blocks(cells, obs, config, held_out_C=held_out, seed=0)
    assert blocks.block_C.tolist() == ["", "block 0,0", "block 1,1", ""]
    assert blocks.is_test_C.sum() == 1
    # What remains is one block.
    held_out[1] = True
    with pytest.raises(DataError, match=r"2 or more, got 1 with num=\(2, 2\)"):
        split_blocks(cells, obs, config, held_out_C=held_out, seed=0)


def test_a_line_of_cells_can_be_cut_across_only() -> None:
    cells = [(f"c{i}", i, 5, "s") for i in range(4)]
    blocks = split(cells, SpatialBlocks(sample_column="slide", num=(2, 2), fraction=0.5))
    assert blocks.block_C.tolist() == ["block 0,0 of s"] * 2 + ["block 1,0 of s"] * 2


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (
            ["1", "a"],
            ["1", "2"],
            "a coordinate must be a finite number, got 'a' in 'x' of cell 'q'",
        ),
        (["1", "2"], ["inf", "2"], "a finite number, got 'inf' in 'y' of cell 'p'"),
        (["1", "nan"], ["1", "2"], "a finite number, got 'nan' in 'x' of cell 'q'"),
        (["1", ""], ["1", "2"], "both coordinates or neither, got no 'x' for cell 'q' and 0 more"),
        (["", ""], ["", ""], "some cells must have coordinates, got none in 'x' and 'y'"),
    ],
)
def test_places_that_are_no_numbers_are_refused(x: list[str], y: list[str], message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        read_positions({"x": np.array(x), "y": np.array(y)}, "x", "y", ["p", "q"])


def test_cells_are_grouped_by_slide_without_those_that_have_no_place() -> None:
    positions = np.array([[0, 0], [1, 1], [np.nan, np.nan], [2, 2]])
    slides = rows_by_slide(np.array(["b", "a", "a", "b"]), positions)
    assert {name: rows.tolist() for name, rows in slides.items()} == {"a": [1], "b": [0, 3]}
    assert rows_by_slide(None, positions)[""].tolist() == [0, 1, 3]
