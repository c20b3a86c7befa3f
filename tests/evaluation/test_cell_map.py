"""The map of real and generated cells."""

import numpy as np
import pytest

from c2s_rl.evaluation.cell_map import MIN_CELLS, LabelledCells, map_cells


@pytest.fixture
def two_types():
    """Thirty cells of each of two types that share no gene, in random orders of their genes."""
    rng = np.random.default_rng(0)
    first = [rng.permutation(4).astype(np.int32) for _ in range(30)]
    second = [rng.permutation([5, 6, 7, 8]).astype(np.int32) for _ in range(30)]
    conditions = ["A"] * 30 + ["B"] * 30
    mixed = LabelledCells(first + second, conditions)
    return {"real": mixed, "SFT": mixed}


def test_cells_lie_near_their_own_kind_every_time(two_types, yardstick):
    cell_map = map_cells(two_types, yardstick, max_cells=60, seed=1)
    assert cell_map.sources == ("real", "SFT")
    assert len(cell_map.xy_C_2) == 120
    is_first = np.array(cell_map.condition_C) == "A"
    centres = [cell_map.xy_C_2[is_first].mean(axis=0), cell_map.xy_C_2[~is_first].mean(axis=0)]
    distances = np.stack([np.linalg.norm(cell_map.xy_C_2 - c, axis=1) for c in centres])
    assert (distances.argmin(axis=0) == (~is_first).astype(int)).all()
    again = map_cells(two_types, yardstick, max_cells=60, seed=1)
    np.testing.assert_array_equal(cell_map.xy_C_2, again.xy_C_2)


def test_too_few_cells_give_no_map(two_types, yardstick, caplog):
    # 2 origins x 20 cells = 40 < 45.
    assert map_cells(two_types, yardstick, max_cells=20, seed=1) is None
    assert f"at least {MIN_CELLS} cells, got 40" in caplog.text
