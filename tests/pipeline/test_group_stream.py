"""Sampling and scoring in the background, over fake workers."""

import threading

import pytest

from c2s_rl.errors import DeadlineError
from c2s_rl.grpo.roles import PublishedWeights, RolloutRequest
from c2s_rl.pipeline.group_stream import GroupStream
from c2s_rl.pipeline.timeline import Timeline
from tests.fakes import FakeReward, FakeRollout, make_record


def weights(version):
    return lambda: PublishedWeights(version, "1.0")


def requests(*tickets, condition="c"):
    return [RolloutRequest(make_record(f"p{t}", condition), seed=t, ticket=t) for t in tickets]


def take(stream, number):
    outcomes = []
    while len(outcomes) < number:
        outcomes += stream.take()
    return {outcome.ticket: outcome for outcome in outcomes}


@pytest.fixture
def open_stream():
    """Opens streams and closes them after the test."""
    streams = []

    def start(rollout, reward, *, is_streaming=True):
        stream = GroupStream(rollout, reward, Timeline(), is_streaming=is_streaming)
        streams.append(stream)
        stream.__enter__()
        stream.update(weights(0), should_wait=True)
        return stream

    yield start
    for stream in streams:
        stream.__exit__(None, None, None)


class PausedRollout(FakeRollout):
    """Finishes a request when the test allows one more."""

    def __init__(self):
        super().__init__()
        self.allowed = threading.Semaphore(0)

    def collect(self, *, timeout_s):
        if not self.allowed.acquire(timeout=timeout_s):
            return []
        return super().collect(timeout_s=timeout_s)


def test_every_request_comes_back_scored_or_marked_as_failed(open_stream):
    stream = open_stream(FakeRollout(), FakeReward({"p1"}))
    stream.submit(requests(0, 1, 2))
    outcomes = take(stream, 3)
    assert outcomes[1].scored.rewards_G == (None, None)
    assert outcomes[1].scored.failures["tokens"][0].startswith("raised: a reward must not raise")
    for ticket in (0, 2):
        group = outcomes[ticket].group
        assert group.record.prompt_id == f"p{ticket}"
        tokens = tuple(float(sum(c.token_ids_T)) for c in group.completions_G)
        assert outcomes[ticket].scored.rewards_G == tokens


def test_a_group_is_scored_while_others_are_being_sampled(open_stream):
    rollout = PausedRollout()
    stream = open_stream(rollout, FakeReward())
    stream.submit(requests(0, 1))
    rollout.allowed.release()
    assert list(take(stream, 1)) == [0]
    rollout.allowed.release()
    assert list(take(stream, 1)) == [1]


def test_without_streaming_nothing_is_scored_before_all_is_sampled(open_stream):
    rollout, reward = PausedRollout(), FakeReward()
    stream = open_stream(rollout, reward, is_streaming=False)
    stream.submit(requests(0, 1))
    rollout.allowed.release()
    while len(rollout.collected) < 1:
        threading.Event().wait(0.01)
    assert reward.calls == []
    rollout.allowed.release()
    assert len(take(stream, 2)) == 2


@pytest.mark.parametrize("is_streaming", [True, False])
def test_groups_of_a_condition_are_scored_in_one_call_where_the_reward_asks(
    open_stream, is_streaming
):
    reward = FakeReward(is_per_condition=True)
    stream = open_stream(FakeRollout(is_backwards=True), reward, is_streaming=is_streaming)
    a, b = requests(0, 2, 4, condition="a"), requests(1, 3, condition="b")
    stream.submit([a[0], b[0], a[1], b[1], a[2]])
    take(stream, 5)
    # in the order of the requests, though they were finished backwards
    assert sorted(reward.calls) == [["p0", "p2", "p4"], ["p1", "p3"]]


def test_new_weights_come_before_what_is_submitted_after_them(open_stream):
    stream = open_stream(FakeRollout(), FakeReward())
    stream.submit(requests(0))
    stream.update(weights(1), should_wait=True)
    stream.submit(requests(1))
    outcomes = take(stream, 2)
    assert (outcomes[0].version, outcomes[1].version) == (0, 1)


def test_weights_that_wait_are_loaded_when_nothing_is_being_sampled(open_stream):
    rollout = PausedRollout()
    stream = open_stream(rollout, FakeReward())
    stream.submit(requests(0))
    seen = []

    def publish():
        seen.append((rollout.version, list(rollout.collected)))
        return weights(1)()

    threading.Timer(0.3, rollout.allowed.release).start()
    stream.update(publish, should_wait=True)
    assert seen == [(0, [0])]
    assert rollout.version == 1


def test_weights_that_do_not_wait_are_loaded_beside_what_is_being_sampled(open_stream):
    rollout = PausedRollout()
    stream = open_stream(rollout, FakeReward())
    stream.submit(requests(0))
    stream.update(weights(1), should_wait=False)
    assert (rollout.version, rollout.collected) == (1, [])


class DeadRollout(FakeRollout):
    def collect(self, *, timeout_s):
        raise DeadlineError("rollout worker 0 must answer within 1 s, got no answer")


def test_what_stops_the_engines_reaches_whoever_waits(open_stream):
    stream = open_stream(DeadRollout(), FakeReward())
    stream.submit(requests(0))
    with pytest.raises(DeadlineError, match="rollout worker 0 must answer"):
        stream.take()
    with pytest.raises(DeadlineError, match="rollout worker 0 must answer"):
        stream.update(weights(1), should_wait=True)


class RefusingReward(FakeReward):
    def score(self, groups):
        raise DeadlineError("reward workers (start) must answer within 1 s, got no answer")


def test_what_stops_the_rewards_reaches_whoever_waits(open_stream):
    stream = open_stream(FakeRollout(), RefusingReward())
    stream.submit(requests(0))
    with pytest.raises(DeadlineError, match="reward workers"):
        stream.take()
