"""Which groups a step gets, in which order: synchronous, ahead, refilled."""

from contextlib import contextmanager

import pytest

from c2s_rl.grpo.roles import PublishedWeights
from c2s_rl.grpo.staleness import Cursor, OnExcess, OnSync, StalenessConfig
from c2s_rl.pipeline.align_data import PromptStream
from c2s_rl.pipeline.group_source import GroupSource, SourcePlan
from c2s_rl.pipeline.group_stream import GroupStream
from c2s_rl.pipeline.timeline import Timeline
from c2s_rl.types import ScoredGroup
from tests.fakes import FakeReward, FakeRollout, make_record

RECORDS = [make_record(f"p{i}") for i in range(40)]


class FlatReward(FakeReward):
    """Gives the prompts at some places of a step equal rewards."""

    def __init__(self, flat):
        super().__init__()
        self._flat = flat

    def _scored(self, group):
        if group.record.prompt_id in self._flat:
            return ScoredGroup(group, (1.0,) * len(group.completions_G), {}, {})
        return super()._scored(group)


@contextmanager
def make_source(rollout, reward, *, staleness=None, max_extra=0, is_streaming=True, num_steps=4):
    plan = SourcePlan(
        per_step=3, num_steps=num_steps, max_extra=max_extra, staleness=staleness, seed=1
    )
    prompts = PromptStream(RECORDS, per_step=3, seed=1)
    with GroupStream(rollout, reward, Timeline(), is_streaming=is_streaming) as stream:
        yield GroupSource(stream, prompts, plan, Cursor()), prompts


def take_step(source, step, *, is_in_step=False):
    source.update(lambda: PublishedWeights(step, "1.0"))
    return [o for part in source.groups(step, is_in_step=is_in_step) for o in part]


def names(outcomes):
    return [outcome.group.record.prompt_id for outcome in outcomes]


@pytest.mark.parametrize("is_streaming", [True, False])
def test_synchronous_groups_come_in_order_from_the_weights_of_their_step(is_streaming):
    rollout = FakeRollout(is_backwards=True)
    with make_source(rollout, FakeReward(), is_streaming=is_streaming) as (source, prompts):
        for step in range(2):
            outcomes = take_step(source, step)
            planned = [prompts.at(3 * step + i).prompt_id for i in range(3)]
            assert names(outcomes) == planned
            assert [outcome.version for outcome in outcomes] == [step] * 3
            assert source.cursor == Cursor(3 * step + 3)
    assert rollout.collected == [2, 1, 0, 5, 4, 3]


@pytest.mark.parametrize("on_sync", OnSync)
def test_an_asynchronous_step_starts_the_next_but_lags_no_more_than_allowed(on_sync):
    rollout = FakeRollout()
    staleness = StalenessConfig(max_versions=2, on_sync=on_sync)
    with make_source(rollout, FakeReward(), staleness=staleness) as (source, prompts):
        lags = []
        for step in range(4):
            outcomes = take_step(source, step)
            assert names(outcomes) == [prompts.at(3 * step + i).prompt_id for i in range(3)]
            lags += [step - outcome.version for outcome in outcomes]
    # step 0 starts steps 0 to 2, steps 1 starts step 3: lags of 0, 1, 2 and 2 versions
    assert lags == [0] * 3 + [1] * 3 + [2] * 3 + [2] * 3
    assert [len(seen) for seen in rollout.seen] == [9, 3]


def test_a_step_taken_alone_runs_nothing_ahead():
    rollout = FakeRollout()
    with make_source(rollout, FakeReward(), staleness=StalenessConfig()) as (source, _):
        take_step(source, 0, is_in_step=True)
        assert [len(seen) for seen in rollout.seen] == [3]
        assert [o.version for o in take_step(source, 1)] == [1, 1, 1]


class StragglingRollout(FakeRollout):
    """Takes until version 2 to finish what it was asked for first."""

    def collect(self, *, timeout_s):
        if self._sampling[0][0] == 0 and 0 not in self.collected and self.version < 2:
            if len(self._sampling) == 1:
                return []
            self._sampling.append(self._sampling.pop(0))
        return super().collect(timeout_s=timeout_s)


def test_late_groups_are_dropped_counted_and_sampled_again():
    rollout = StragglingRollout()
    staleness = StalenessConfig(max_versions=1, on_excess=OnExcess.DROP)
    with make_source(rollout, FakeReward(), staleness=staleness, num_steps=3) as (source, prompts):
        outcomes = [take_step(source, step) for step in range(3)]
        counts = source.counts()
        assert source.cursor == Cursor(9)
    learned = sorted(name for step in outcomes for name in names(step))
    assert learned == sorted(prompts.at(i).prompt_id for i in range(9))
    lags = [step - o.version for step, part in enumerate(outcomes) for o in part]
    assert max(lags) <= 1
    # position 0 was started by version 0 and came at step 2
    assert counts["dropped_stale"] == 1.0
    assert rollout.collected.count(0) == 2


@pytest.mark.parametrize("is_streaming", [True, False])
def test_groups_with_equal_rewards_are_replaced_within_the_budget(is_streaming):
    prompts = PromptStream(RECORDS, per_step=3, seed=1)
    first, second, third = (prompts.at(i).prompt_id for i in range(3))
    extra = [prompts.extra(0, number).prompt_id for number in range(3)]
    # two of the step and the first further prompt are flat: waves of 3, 2 and 1 prompts
    reward = FlatReward({first, third, extra[0]})
    rollout = FakeRollout(is_backwards=True)
    with make_source(rollout, reward, max_extra=3, is_streaming=is_streaming) as (source, _):
        assert names(take_step(source, 0)) == [second, extra[1], extra[2]]
        assert source.counts()["replaced_groups"] == 3.0
        assert source.counts()["replaced_groups"] == 0.0
        assert source.cursor == Cursor(3)
    assert rollout.seen == [[first, second, third], extra[:2], extra[2:]]


def test_a_spent_budget_lets_groups_with_equal_rewards_through():
    prompts = PromptStream(RECORDS, per_step=3, seed=1)
    step = [prompts.at(i).prompt_id for i in range(3)]
    with make_source(FakeRollout(), FlatReward(set(step)), max_extra=1) as (source, _):
        assert names(take_step(source, 0)) == [*step[1:], prompts.extra(0, 0).prompt_id]
