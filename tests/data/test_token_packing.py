import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from trl.data_utils import pack_dataset

from c2s_rl.data.token_packing import best_fit


def test_longest_comes_first_and_goes_where_it_fits_most_tightly() -> None:
    # By length: 6 and 5 open rows with 4 and 5 left; 4 fits both and fills the first; 3 goes to
    # the second, where 2 are left; 2 fills it. Rows go by their first place.
    assert best_fit([2, 6, 3, 5, 4], 10) == [[0, 2, 3], [1, 4]]


def test_rows_keep_the_order_of_the_samples() -> None:
    assert best_fit([4, 4, 4], 4) == [[0], [1], [2]]


def test_no_samples_give_no_rows() -> None:
    assert best_fit([], 4) == []


@pytest.mark.parametrize("length", [0, 5])
def test_sample_that_no_row_holds_is_an_error(length: int) -> None:
    with pytest.raises(ValueError, match=f"must have 1 to 4 tokens, got {length}"):
        best_fit([2, length], 4)


@given(st.lists(st.integers(1, 50), max_size=200), st.integers(50, 90))
def test_every_sample_is_in_exactly_one_row_that_holds_it(lengths: list[int], room: int) -> None:
    rows = best_fit(lengths, room)
    assert sorted(place for row in rows for place in row) == list(range(len(lengths)))
    assert all(sum(lengths[place] for place in row) <= room for row in rows)
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)
    # Two rows that fit into one would have become one.
    sizes = sorted(sum(lengths[place] for place in row) for row in rows)
    assert len(sizes) < 2 or sizes[0] + sizes[1] > room


@pytest.mark.parametrize("seed", range(3))
def test_as_tight_as_that_of_trl(seed: int) -> None:
    lengths = np.random.default_rng(seed).integers(1, 100, size=300).tolist()
    theirs = pack_dataset(
        Dataset.from_dict({"input_ids": [[7] * n for n in lengths]}),
        100,
        "bfd",
        {"batch_size": len(lengths)},
    )
    # Where several rows have equally little room, it takes the oldest and we the newest.
    assert len(best_fit(lengths, 100)) == len(theirs)
