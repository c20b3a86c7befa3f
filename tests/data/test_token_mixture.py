from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2s_rl.data.token_mixture import (
    HashedSample,
    QuotaScan,
    TaskQuota,
    epoch_quotas,
    every_sample_once,
)
from c2s_rl.errors import DataError
from c2s_rl.types import Task

CELL, TYPE, QA = Task.CELL_GENERATION, Task.CELL_TYPE_ANNOTATION, Task.QUESTION_ANSWERING


def test_an_epoch_of_as_many_samples_is_divided_by_shares() -> None:
    # 100 samples at 3 : 1 are 75 and 25; shares need not sum to 1.
    assert epoch_quotas({CELL: 20, TYPE: 80}, {CELL: 3, TYPE: 1}, max_repeats=4) == {
        CELL: 75,
        TYPE: 25,
    }


def test_largest_remainders_are_rounded_up() -> None:
    # 10 samples at 1 : 1 : 1 are 3.33 each; the first by name gets the one that is left.
    quotas = epoch_quotas({CELL: 4, TYPE: 3, QA: 3}, {CELL: 1, TYPE: 1, QA: 1}, max_repeats=2)
    assert quotas == {CELL: 4, TYPE: 3, QA: 3}


def test_too_many_repeats_are_an_error_that_names_the_possible_share() -> None:
    # 90 of 100 samples out of 20 are 4.5 times each; at most 4 times 20 of 100 are a share of 0.8.
    message = (
        r"'cell_generation' more than data\.max_repeats = 4 times an epoch, got 4\.5 times "
        r"\(90 of 100 samples out of 20\): a share of at most 0\.8 of the sum is possible"
    )
    with pytest.raises(DataError, match=message):
        epoch_quotas({CELL: 20, TYPE: 80}, {CELL: 9, TYPE: 1}, max_repeats=4)


def test_share_that_shows_nothing_is_an_error() -> None:
    with pytest.raises(
        DataError, match=r"at least one sample of every task, got a share of 0\.001"
    ):
        epoch_quotas({CELL: 20, TYPE: 80}, {CELL: 1, TYPE: 999}, max_repeats=9)


def shown(quotas: dict[Task, TaskQuota], samples: list[HashedSample]) -> Counter[Task]:
    total: Counter[Task] = Counter()
    for task, sample_hash in samples:
        total[task] += quotas[task].copies(sample_hash)
    return total


def chosen(samples: list[HashedSample], wanted: dict[Task, int]) -> dict[Task, TaskQuota]:
    scan = QuotaScan()
    scan.add(samples)
    return scan.choose(wanted, samples)


@given(
    st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=60, unique=True),
    # Hashes with equal first bits share a bin, where the border must be found among them.
    st.lists(st.integers(2**60, 2**60 + 500), min_size=1, max_size=60, unique=True),
    st.integers(0, 200),
    st.integers(0, 200),
)
def test_exactly_the_quota_is_shown_whatever_the_order(
    wide: list[int], narrow: list[int], num_wide: int, num_narrow: int
) -> None:
    samples = [(CELL, h) for h in wide] + [(TYPE, h) for h in narrow]
    wanted = {CELL: num_wide, TYPE: num_narrow}
    quotas = chosen(samples, wanted)
    assert shown(quotas, samples) == Counter(wanted)
    assert chosen(samples[::-1], wanted) == quotas
    for task, hashes in ((CELL, wide), (TYPE, narrow)):
        copies = [quotas[task].copies(h) for h in sorted(hashes)]
        assert copies == sorted(copies, reverse=True)  # the smallest hashes are shown most
        assert copies[0] - copies[-1] <= 1


def test_without_a_mixture_every_sample_is_shown_once() -> None:
    quotas = every_sample_once({CELL: 3})
    assert quotas[CELL].num_shown == 3
    assert {quotas[CELL].copies(h) for h in (0, 1, 2**64 - 1)} == {1}
