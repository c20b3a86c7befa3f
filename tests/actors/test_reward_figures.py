"""Figures of one reward's workers, by hand."""

import logging
import math

import pytest

from actors.reward import HostAnswer
from actors.reward_figures import RewardFigures
from rewards.base import CheckedResult, FailureKind, RewardFailure

SLOW = RewardFailure(FailureKind.DEADLINE, "too slow")


def answer(*, seconds, failures=None, hits=0, misses=0, restarts=0):
    result = CheckedResult((1.0, None), {}, failures or {})
    return HostAnswer(result, seconds, restarts, hits, misses)


def test_calls_are_summed_until_the_next_lap():
    figures = RewardFigures("tau")
    figures.note(answer(seconds=1.0, hits=3, misses=1), [0.5])
    figures.note(answer(seconds=4.0, failures={1: SLOW}, restarts=2, hits=1), [0.0, 2.5])
    lap = {name.removeprefix("reward_worker/tau/"): v for name, v in figures.lap().items()}
    assert lap["calls"] == 2.0
    assert lap["completions"] == 4.0
    assert (lap["latency_s"], lap["latency_max_s"]) == (2.5, 4.0)
    assert (lap["queue_s"], lap["queue_max_s"]) == (pytest.approx(1.0), 2.5)
    assert (lap["cache_hits"], lap["cache_misses"], lap["restarts"]) == (4.0, 1.0, 2.0)
    assert {k: v for k, v in lap.items() if v and k.startswith("failures/")} == {
        "failures/deadline": 1.0
    }
    after = figures.lap()
    assert after["reward_worker/tau/calls"] == 0.0
    assert math.isnan(after["reward_worker/tau/latency_s"])
    assert after.keys() == {f"reward_worker/tau/{name}" for name in lap}


def test_a_message_is_logged_once(caplog):
    figures = RewardFigures("tau")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            figures.note(answer(seconds=1.0, failures={0: SLOW, 1: SLOW}), [0.0])
    assert [record.getMessage() for record in caplog.records] == [
        "deadline: too slow (2 completions)"
    ]
