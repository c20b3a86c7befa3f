"""Neighbours by the k-d tree are those that comparing all pairs finds."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from c2s_rl.data.coordinates import rows_by_slide
from c2s_rl.data.neighbourhoods import find_neighbours, kept_neighbours
from c2s_rl.errors import DataError

Place = tuple[int, int, str]
# Whole coordinates: distances compare exactly, and some are just the radius.
PLACES = st.lists(
    st.tuples(st.integers(0, 12), st.integers(0, 12), st.sampled_from("ab")), min_size=2
)


def arrays(places: list[Place]) -> tuple[np.ndarray, np.ndarray]:
    positions = np.array([(x, y) for x, y, _ in places], dtype=float)
    return positions, np.array([slide for *_, slide in places])


def brute_force(places: list[Place], radius: float) -> list[list[int]]:
    return [
        [
            j
            for j, (x2, y2, slide2) in enumerate(places)
            if j != i and slide2 == slide and (x - x2) ** 2 + (y - y2) ** 2 <= radius**2
        ]
        for i, (x, y, slide) in enumerate(places)
    ]


@settings(deadline=None)
@given(PLACES, st.sampled_from([1, 2, 5]))
def test_neighbours_are_all_cells_of_the_slide_within_the_radius(
    places: list[Place], radius: int
) -> None:
    positions, slides = arrays(places)
    expected = brute_force(places, radius)
    if not any(expected):
        with pytest.raises(DataError, match="some cells must have neighbours, got none within"):
            find_neighbours(positions, rows_by_slide(slides, positions), radius)
        return
    hoods = find_neighbours(positions, rows_by_slide(slides, positions), radius)
    assert [hoods.of(i).tolist() for i in range(len(places))] == expected
    assert hoods.num_C.tolist() == [len(neighbours) for neighbours in expected]


@settings(deadline=None)
@given(PLACES, st.data())
def test_neighbours_of_the_other_side_are_taken_out(
    places: list[Place], data: st.DataObject
) -> None:
    positions, slides = arrays([(0, 0, "a"), (0, 0, "a"), *places])
    side = np.array(data.draw(st.lists(st.booleans(), min_size=len(slides), max_size=len(slides))))
    hoods = find_neighbours(positions, rows_by_slide(slides, positions), 3)
    kept = kept_neighbours(hoods, side)
    for cell in range(len(slides)):
        same_side = [n for n in hoods.of(cell).tolist() if side[n] == side[cell]]
        assert kept.of(cell).tolist() == same_side


def test_cells_farther_apart_than_the_radius_name_how_far() -> None:
    positions = np.array([[0, 0], [3, 4], [100, 0]], dtype=float)
    message = "got none within 4.9 on 1 slides; the nearest two are 5 apart"
    with pytest.raises(DataError, match=re.escape(message)):
        find_neighbours(positions, {"": np.arange(3)}, 4.9)


def test_a_radius_of_another_unit_is_refused_before_pairs_are_made() -> None:
    positions = np.random.default_rng(0).random((1500, 2))
    message = "must reach 1000 neighbours at most, got 1499 on average within 20 on slide 's'"
    with pytest.raises(DataError, match=re.escape(message)):
        find_neighbours(positions, {"s": np.arange(1500)}, 20)
