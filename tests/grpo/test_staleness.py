"""The ledger of prompts under way: bounds on staleness, nothing lost, nothing twice."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2s_rl.grpo.staleness import Cursor, Ledger, OnExcess, Start


def make_ledger(max_versions, on_excess, *, total=6, cursor=None):
    return Ledger(
        max_versions=max_versions,
        on_excess=on_excess,
        per_step=2,
        total=total,
        cursor=cursor or Cursor(),
    )


def positions(starts):
    return [start.position for start in starts]


def test_rollout_runs_ahead_by_the_lead_and_then_waits():
    ledger = make_ledger(1, OnExcess.WAIT)
    assert positions(ledger.admit(lead=1)) == [0, 1, 2, 3]  # 2 a step, this step and the next
    assert ledger.admit(lead=1) == []
    ledger.arrive(0, 0)
    ledger.arrive(1, 0)
    assert ledger.take(limit=2) == [0, 1]
    assert positions(ledger.admit(lead=1)) == [4, 5]
    assert ledger.cursor == Cursor(2)


def test_waiting_takes_prompts_in_the_order_they_were_started():
    ledger = make_ledger(1, OnExcess.WAIT)
    ledger.admit(lead=1)
    ledger.arrive(1, 0)
    ledger.arrive(2, 0)
    assert ledger.take(limit=2) == []
    ledger.arrive(0, 0)
    assert ledger.take(limit=2) == [0, 1]


def test_dropping_takes_what_is_there_and_samples_the_late_again():
    ledger = make_ledger(1, OnExcess.DROP)
    ledger.admit(lead=1)
    ledger.arrive(3, 0)
    ledger.arrive(1, 0)
    assert ledger.take(limit=2) == [3, 1]
    assert ledger.cursor == Cursor(0, (1, 3))
    ledger.arrive(0, 0)  # at step 2 two versions old, one too many
    ledger.arrive(2, 1)
    assert ledger.drop(step=2) == [Start(0, attempt=1)]
    assert ledger.take(limit=2) == [2]
    ledger.arrive(0, 2)
    assert ledger.take(limit=2) == [0]
    assert ledger.cursor == Cursor(4)


def test_a_resumed_ledger_starts_what_was_not_used():
    ledger = make_ledger(1, OnExcess.DROP, cursor=Cursor(1, (3,)))
    assert positions(ledger.admit(lead=1)) == [1, 2, 4, 5]


def test_learning_in_order_never_meets_a_stale_group():
    ledger = make_ledger(1, OnExcess.WAIT)
    ledger.admit(lead=1)
    ledger.arrive(0, 0)
    with pytest.raises(ValueError, match="by version 1 or later, got version 0 at position 0"):
        ledger.drop(step=2)


def test_a_group_arrives_once():
    ledger = make_ledger(0, OnExcess.WAIT)
    ledger.admit(lead=0)
    ledger.arrive(1, 0)
    for position in (1, 5):
        with pytest.raises(ValueError, match=f"under way, got position {position}"):
            ledger.arrive(position, 0)


@given(
    on_excess=st.sampled_from(OnExcess),
    max_versions=st.integers(0, 3),
    per_step=st.integers(1, 4),
    num_steps=st.integers(1, 6),
    killed_after=st.integers(0, 6),
    seed=st.integers(0, 2**16),
)
def test_every_prompt_is_used_once_and_never_too_stale(
    on_excess, max_versions, per_step, num_steps, killed_after, seed
):
    """Groups arrive at random times; a kill forgets what is under way but not the cursor."""
    rng = random.Random(seed)
    total = per_step * num_steps

    def start(cursor):
        return Ledger(
            max_versions=max_versions,
            on_excess=on_excess,
            per_step=per_step,
            total=total,
            cursor=cursor,
        )

    ledger, sampling, version_of, used = start(Cursor()), {}, {}, []
    for step in range(num_steps):
        if step == killed_after:
            ledger, sampling, version_of = start(ledger.cursor), {}, {}
        sampling |= {s.position: step for s in ledger.admit(lead=max_versions)}
        assert ledger.num_outstanding <= (1 + max_versions) * per_step
        missing = per_step
        while missing:
            sampling |= {s.position: step for s in ledger.drop(step=step)}
            taken = ledger.take(limit=missing)
            missing -= len(taken)
            used += taken
            assert all(0 <= step - version_of[p] <= max_versions for p in taken)
            if missing and not taken:
                position = rng.choice(sorted(sampling))
                version_of[position] = sampling.pop(position)
                ledger.arrive(position, version_of[position])
    assert sorted(used) == list(range(total))
    if on_excess is OnExcess.WAIT:
        assert used == sorted(used)
    assert ledger.cursor == Cursor(total)
