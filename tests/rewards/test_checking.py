"""What a plug-in gives back, judged completion by completion."""

import math

import numpy as np
import pytest

from c2s_rl.errors import RewardError
from rewards.base import CheckedResult, FailureKind, RewardBatch, RewardFailure, RewardResult
from rewards.checking import join_results, raise_failures, score_checked, split_result
from tests.moody_rewards import AsyncMoody, Moody, MoodyOptions
from tests.reward_cases import VOCABULARY, make_group

GROUPS = (make_group(["A", "B B"], prompt="p"), make_group(["BAD"], prompt="q"))
BATCH = RewardBatch(GROUPS, VOCABULARY)


def checked(trouble, plugin=Moody, batch=BATCH):
    return score_checked(plugin(MoodyOptions(trouble=trouble)), batch, "mine")


@pytest.mark.parametrize(
    ("trouble", "kind", "message"),
    [
        ("raise", "raised", "must not raise, got ZeroDivisionError: division by zero"),
        ("none", "wrong_length", "must return a RewardResult, got None"),
        ("list", "wrong_length", r"must return a RewardResult, got \[1.0, 2.0\]"),
        ("short", "wrong_length", "one value per completion, got 1 scores for 3"),
        ("no_scores", "wrong_length", "must give scores as a tuple, got None"),
        ("no_names", "wrong_length", "must give diagnostics by name, got 3"),
    ],
)
def test_an_answer_of_the_wrong_shape_fails_every_completion(trouble, kind, message):
    result = checked(trouble)
    assert result.scores == (None, None, None)
    assert set(result.failures) == {0, 1, 2}
    assert {failure.kind for failure in result.failures.values()} == {FailureKind(kind)}
    with pytest.raises(RewardError, match=rf"{message}.*'mine'.*'p', 'q'.*3 of 3 completions"):
        raise_failures(result)


@pytest.mark.parametrize(
    ("trouble", "kind", "shown"),
    [
        ("nan", "not_finite", "nan"),
        ("inf", "not_finite", "-inf"),
        ("huge", "not_finite", "1000"),
        ("text", "not_a_number", "'2.0'"),
    ],
)
def test_a_bad_number_fails_its_completion_and_no_other(trouble, kind, shown):
    result = checked(trouble)
    assert result.scores == (1.0, 2.0, None)
    (failure,) = result.failures.values()
    assert failure.kind == kind
    assert f"finite numbers, got {shown}" in failure.message
    assert "on prompt 'q'" in failure.message
    assert len(failure.message) < 500
    lengths = result.diagnostics["length"]
    assert lengths[:2] == (1.0, 3.0)
    assert math.isnan(lengths[2])


class Fixed:
    def __init__(self, result):
        self._result = result

    def score(self, _batch):
        return self._result


def test_numbers_of_numpy_and_booleans_become_floats():
    given = RewardResult((np.float32(0.5), np.int64(2), True))
    result = score_checked(Fixed(given), BATCH, "mine")
    assert result.scores == (0.5, 2.0, 1.0)
    assert {type(score) for score in result.scores} == {float}
    array = score_checked(Fixed(RewardResult(np.array([1.0, 2.0, 3.0]))), BATCH, "mine")
    assert array.scores == (1.0, 2.0, 3.0)


def test_a_diagnostic_that_is_no_number_fails_its_completion_and_nan_means_none():
    given = RewardResult((1.0, 2.0, 3.0), {"d": (0.5, math.nan, "x"), "e": (1, math.inf, 3)})
    result = score_checked(Fixed(given), BATCH, "mine")
    assert result.scores == (1.0, 2.0, None)
    assert "a diagnostic must be a number, got 'x' as 'd'" in result.failures[2].message
    assert result.diagnostics["d"][0] == 0.5
    assert np.isnan(result.diagnostics["d"][1:]).all()
    assert np.isnan(result.diagnostics["e"]).tolist() == [False, True, True]


def test_abstaining_is_no_failure():
    result = score_checked(Fixed(RewardResult((None, 1.0, None))), BATCH, "mine")
    assert result.scores == (None, 1.0, None)
    assert result.failures == {}
    assert raise_failures(result) is result


def test_an_async_score_is_awaited():
    batch = RewardBatch(BATCH.groups[:1], VOCABULARY)
    assert checked("raise", AsyncMoody, batch).scores == (1.0, 2.0)
    failures = checked("raise", AsyncMoody).failures
    assert {failure.kind for failure in failures.values()} == {FailureKind.RAISED}


class Unreadable(Exception):
    def __str__(self):
        raise ValueError("not even that")


def test_an_exception_without_a_message_is_named():
    class Raising:
        def score(self, _batch):
            raise Unreadable

    result = score_checked(Raising(), BATCH, "mine")
    assert "got Unreadable: (its message cannot be read)" in result.failures[0].message


def test_what_was_split_is_joined_again():
    failure = RewardFailure(FailureKind.CRASHED, "gone")
    whole = CheckedResult((1.0, None, 3.0), {"d": (4.0, 5.0, 6.0)}, {1: failure})
    parts = split_result(whole, [1, 2])
    assert parts[0] == CheckedResult((1.0,), {"d": (4.0,)}, {})
    assert parts[1] == CheckedResult((None, 3.0), {"d": (5.0, 6.0)}, {0: failure})
    assert join_results(parts) == whole
    other = join_results([parts[0], CheckedResult((2.0,), {"e": (7.0,)})])
    assert other.scores == (1.0, 2.0)
    assert np.isnan(other.diagnostics["d"]).tolist() == [False, True]
    assert np.isnan(other.diagnostics["e"]).tolist() == [True, False]
