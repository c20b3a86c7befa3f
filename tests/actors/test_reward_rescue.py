"""Which completions are scored, and at what cost, when some fail every call that holds them."""

import pytest

from actors.reward_messages import Cut
from actors.reward_rescue import Rescue, Try
from rewards.base import CheckedResult, FailureKind, RewardFailure

HANG, RAISE = FailureKind.DEADLINE, FailureKind.RAISED


class Calls:
    """Scores a completion 10 x group + its place; calls with a bad one fail in their own way."""

    def __init__(self, bad, kind, *, fails=None):
        self._bad = set(bad)
        self._kind = kind
        self._fails = fails  # calls until which the bad ones fail; None: for ever
        self.cuts = []
        self.seconds = []

    def __call__(self, cuts, seconds):
        self.cuts.append(cuts)
        asked = [(cut.group, i) for cut in cuts for i in cut.completions]
        is_failing = self._fails is None or len(self.cuts) <= self._fails
        if is_failing and self._bad.intersection(asked):
            spent = seconds if self._kind is HANG else min(0.01, seconds)
            self.seconds.append(spent)
            return Try(RewardFailure(self._kind, f"call {len(self.cuts)}"), spent)
        self.seconds.append(min(0.01, seconds))
        return Try(CheckedResult(tuple(10.0 * g + i for g, i in asked)), self.seconds[-1])


def rescue(calls, sizes, *, deadline_s=100.0, max_retries=2):
    return Rescue(sizes, calls, deadline_s=deadline_s, max_retries=max_retries)


def test_a_call_without_failures_is_made_once():
    calls = Calls((), RAISE)
    result = rescue(calls, [2, 2]).by_group()
    assert result == CheckedResult((0.0, 1.0, 10.0, 11.0))
    assert len(calls.cuts) == 1


@pytest.mark.parametrize("sizes", [[0], [], [0, 0]])
def test_no_completions_are_no_call(sizes):
    calls = Calls((), RAISE)
    assert rescue(calls, sizes).by_group() == CheckedResult(())
    assert rescue(calls, sizes).by_condition() == CheckedResult(())
    assert calls.cuts == []


@pytest.mark.parametrize("kind", [HANG, RAISE])
def test_good_completions_beside_a_bad_one_keep_their_scores(kind):
    calls = Calls({(1, 2)}, kind)
    result = rescue(calls, [3, 3, 3]).by_group()
    assert result.scores == (0.0, 1.0, 2.0, 10.0, 11.0, None, 20.0, 21.0, 22.0)
    assert list(result.failures) == [5]
    assert result.failures[5].kind is kind
    # together, three groups alone, the bad one again unless its process is lost, three singles
    assert len(calls.cuts) == 1 + 3 + (kind is RAISE) + 3
    # what is left is asked again; the group that was good is not
    assert calls.cuts[1:4] == [(Cut(g, (0, 1, 2)),) for g in range(3)]


def test_a_group_comes_to_the_same_alone_and_beside_others():
    together = rescue(Calls({(0, 1)}, RAISE), [3, 2]).by_group()
    alone = rescue(Calls({(0, 1)}, RAISE), [3]).by_group()
    assert together.scores[:3] == alone.scores
    assert set(together.failures) == set(alone.failures) == {1}


def test_all_tries_fit_in_the_deadline_however_many_hang():
    calls = Calls({(0, i) for i in range(0, 64, 6)}, HANG)
    result = rescue(calls, [64], deadline_s=8.0).by_group()
    assert sum(calls.seconds) <= 8.0
    assert calls.seconds[0] == 4.0
    assert set(result.failures) == set(range(0, 64, 6))
    assert sum(score is not None for score in result.scores) == 53


def test_one_that_hangs_costs_two_tries_of_its_group():
    calls = Calls({(0, 7)}, HANG)
    result = rescue(calls, [64], deadline_s=8.0).by_group()
    assert set(result.failures) == {7}
    # half the deadline for all, then a quarter of what 7 quick ones left
    assert sorted(calls.seconds)[-2:] == [pytest.approx((4.0 - 0.07) / 4), 4.0]


def test_without_retries_groups_are_taken_apart_and_nothing_else():
    calls = Calls({(0, 0)}, RAISE)
    result = rescue(calls, [2, 2], max_retries=0).by_group()
    assert result.scores == (None, None, 10.0, 11.0)
    assert len(calls.cuts) == 3


def test_a_passing_failure_is_healed_with_the_whole_group():
    calls = Calls({(0, 0)}, RAISE, fails=1)
    assert rescue(calls, [3]).by_group() == CheckedResult((0.0, 1.0, 2.0))
    assert calls.cuts == [(Cut(0, (0, 1, 2)),)] * 2


def test_scores_that_are_there_are_kept_and_only_the_others_tried_again():
    answers = iter(
        [
            CheckedResult((1.0, None), {"d": (5.0, 6.0)}, {1: RewardFailure(RAISE, "one")}),
            CheckedResult((2.0, 3.0), {"d": (7.0, 8.0)}),
        ]
    )
    result = rescue(lambda _cuts, _s: Try(next(answers), 0.0), [2]).by_group()
    assert result == CheckedResult((1.0, 3.0), {"d": (5.0, 8.0)}, {})


def test_where_no_process_starts_the_rest_is_not_tried():
    calls = []

    def fail(cuts, _seconds):
        calls.append(cuts)
        return Try(RewardFailure(FailureKind.CRASHED, "gone"), 0.0, can_go_on=False)

    result = rescue(fail, [2, 2]).by_group()
    assert len(calls) == 1
    assert [failure.message for failure in result.failures.values()] == ["gone"] * 4


class Population(Calls):
    """Scores every completion with the size of its call."""

    def __call__(self, cuts, seconds):
        made = super().__call__(cuts, seconds)
        if isinstance(made.result, RewardFailure):
            return made
        num = len(made.result.scores)
        return Try(CheckedResult((float(num),) * num), made.seconds)


@pytest.mark.parametrize("kind", [HANG, RAISE])
def test_a_population_is_scored_without_those_that_make_it_fail(kind):
    calls = Population({(1, 0)}, kind)
    result = rescue(calls, [2, 2, 2]).by_condition()
    # all five others together: no score of a part of the population
    assert result.scores == (5.0, 5.0, None, 5.0, 5.0, 5.0)
    assert set(result.failures) == {2}
    assert sum(calls.seconds) <= 100.0


def test_a_population_that_fails_only_together_stays_failed():
    def fail(cuts, _seconds):
        num = sum(len(cut.completions) for cut in cuts)
        if num > 2:
            return Try(RewardFailure(RAISE, "too many"), 0.01)
        return Try(CheckedResult((1.0,) * num), 0.01)

    result = rescue(fail, [2, 2]).by_condition()
    assert result.scores == (None,) * 4
    assert {failure.message for failure in result.failures.values()} == {"too many"}


def test_a_population_with_single_failures_keeps_its_other_scores():
    answer = CheckedResult((3.0, None), {}, {1: RewardFailure(FailureKind.NOT_FINITE, "nan")})
    result = rescue(lambda _cuts, _s: Try(answer, 0.01), [2]).by_condition()
    assert result == answer
