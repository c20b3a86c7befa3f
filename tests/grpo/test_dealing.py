"""Micro-batches by rank: every row once, in order, whatever comes when."""

from hypothesis import given
from hypothesis import strategies as st

from c2s_rl.grpo.batch import PaddedCutter, Row
from c2s_rl.grpo.dealing import Dealer


def make_rows(group, lengths):
    return [Row((group,), (index,) * length, (), 0.0) for index, length in enumerate(lengths)]


def names(passes):
    return [[[r.prompt_ids[0] for r in batch] for batch in rank] for rank in passes]


def test_a_rank_keeps_what_the_other_cannot_match():
    # every row has 1 + 3 = 4 tokens, two rows fill a micro-batch of 8; a group has 3 rows, so each
    # group leaves one full micro-batch and one open row
    dealer = Dealer(2, lambda: PaddedCutter(8))
    dealer.add(make_rows(0, (3, 3, 3)))
    assert names(dealer.ready()) == [[], []]
    dealer.add(make_rows(1, (3, 3, 3)))
    assert names(dealer.ready()) == [[[0, 0]], [[1, 1]]]
    dealer.add(make_rows(2, (3, 3, 3)))  # rank 0 again: rows 0 | 2 2 2
    assert names(dealer.ready()) == [[], []]
    assert names(dealer.rest()) == [[[0, 2], [2, 2]], [[1], []]]


def test_a_step_ends_with_one_pass_even_if_nothing_is_left():
    assert Dealer(2, lambda: PaddedCutter(8)).rest() == [[[]], [[]]]


@given(
    groups=st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=4), max_size=8),
    num_ranks=st.integers(1, 3),
    max_tokens=st.integers(1, 30),
    asks=st.lists(st.booleans(), min_size=8, max_size=8),
)
def test_what_a_rank_learns_from_does_not_depend_on_when_it_is_asked_for(
    groups, num_ranks, max_tokens, asks
):
    rows = [make_rows(i, lengths) for i, lengths in enumerate(groups)]
    streamed = Dealer(num_ranks, lambda: PaddedCutter(max_tokens))
    whole = Dealer(num_ranks, lambda: PaddedCutter(max_tokens))
    given_out = [[] for _ in range(num_ranks)]
    for group, should_ask in zip(rows, asks, strict=False):
        streamed.add(group)
        whole.add(group)
        if should_ask:
            given_out = [a + b for a, b in zip(given_out, streamed.ready(), strict=True)]
    streamed_passes = [a + b for a, b in zip(given_out, streamed.rest(), strict=True)]
    assert len({len(passes) for passes in streamed_passes}) == 1
    filled = [[batch for batch in rank if batch] for rank in streamed_passes]
    assert filled == [[batch for batch in rank if batch] for rank in whole.rest()]
    for rank, batches in enumerate(filled):
        assert [r for b in batches for r in b] == [r for g in rows[rank::num_ranks] for r in g]
        for batch in batches:
            padded = max(r.num_tokens for r in batch) * len(batch)
            assert padded <= max_tokens or len(batch) == 1
