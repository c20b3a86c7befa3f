"""The GRPO loop over fake workers: data order, resuming, budgets, the sync check."""

import json
import time
from collections import Counter
from itertools import chain

import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from c2s_rl.errors import BudgetError, WeightSyncError
from c2s_rl.grpo.sampling import SamplingConfig
from c2s_rl.pipeline.align import AlignConfig, AlignWorkers, run
from c2s_rl.runlog import read_metrics
from tests.fakes import FakeLearner, FakeReward, FakeRollout, make_record

OFF_POLICY = {"sampling_logprobs": "rollout"}
RECORDS = [make_record(f"p{i}") for i in range(5)]


def config(**changes):
    values = {
        "task": "cell_generation",
        "num_steps": 6,
        "prompts_per_step": 3,
        "save_every": 2,
        "sampling": SamplingConfig(group_size=2),
    }
    return AlignConfig(**(values | changes))


def align(folder, *, learner=None, rollout=None, reward=None, group_size=2, **changes):
    learner = learner or FakeLearner()
    rollout = rollout or FakeRollout(group_size=group_size)
    changes |= {"sampling": SamplingConfig(group_size=group_size)}
    workers = AlignWorkers(rollout, reward or FakeReward(), learner)
    run(config(**changes), workers, RECORDS, output=folder, seed=7)
    return learner


def test_a_run_leaves_policy_metrics_completions_and_newest_checkpoints(tmp_path):
    learner = align(tmp_path, keep_checkpoints=2)
    assert json.loads((tmp_path / "policy" / "weight.json").read_text()) == learner.weight
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["step-00004", "step-00006"]
    metrics = read_metrics(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in metrics] == list(range(6))
    # each fake completion writes 2 words, one of them a repeat
    assert metrics[0]["duplicate_rate"] == 0.5
    assert metrics[0]["unknown_rate"] == 0.0
    rows = pq.read_table(tmp_path / "completions" / "step-00003.parquet").to_pylist()
    assert len(rows) == 6  # 3 prompts x 2 completions
    assert {row["policy_version"] for row in rows} == {3}
    assert rows[0]["reward"] == rows[0]["reward/tokens"]


@pytest.mark.parametrize("stop_at", [1, 2, 3, 5])
def test_a_run_that_was_stopped_goes_on_and_ends_the_same(tmp_path, stop_at):
    whole = align(tmp_path / "whole")
    stopped = FakeLearner()
    stopped.stop_at = stop_at
    with pytest.raises(KeyboardInterrupt):
        align(tmp_path / "cut", learner=stopped)
    rollout = FakeRollout()
    resumed = align(tmp_path / "cut", rollout=rollout)
    assert resumed.weight == whole.weight
    # only what was not in a checkpoint (every 2 steps) was sampled again
    assert len(rollout.seen) == 6 - stop_at // 2 * 2
    lines = [
        (tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("whole", "cut")
    ]
    losses = [[json.loads(line)["loss"] for line in file] for file in lines]
    assert losses[0] == losses[1]


def test_a_finished_run_is_not_trained_further(tmp_path):
    weight = align(tmp_path).weight
    rollout = FakeRollout()
    assert align(tmp_path, rollout=rollout).weight == weight
    assert rollout.seen == []


def test_groups_whose_reward_failed_are_left_out_and_counted(tmp_path):
    align(tmp_path, reward=FakeReward({"p1"}), max_failed_groups=10)
    metrics = read_metrics(tmp_path / "metrics.jsonl")
    # 18 draws of 5 prompts: 3 whole epochs and 3 more draws, so p1 fails 3 or 4 times
    assert metrics[-1]["failed_groups"] in (3.0, 4.0)


def test_a_spent_failure_budget_stops_the_run(tmp_path):
    with pytest.raises(BudgetError, match=r"at most max_failed_groups=0 groups may fail.*got 1"):
        align(tmp_path, reward=FakeReward({"p1"}))


def test_completions_that_fail_in_a_group_that_goes_on_have_a_budget_of_their_own(tmp_path):
    reward = FakeReward(half_broken={"p1", "p2"})
    with pytest.raises(
        BudgetError,
        match=r"at most max_failed_completions=1 completions .*got 2 by step .*: reward 'tokens' "
        r"raised 2 \(first: raised: a reward must not raise, got one on p[12]\)",
    ):
        align(tmp_path, reward=reward, group_size=3, max_failed_completions=1)


def test_a_completion_that_failed_is_left_out_of_its_group(tmp_path):
    reward = FakeReward(half_broken={f"p{i}" for i in range(5)})
    align(tmp_path, reward=reward, group_size=3, num_steps=2, max_failed_completions=6)
    metrics = read_metrics(tmp_path / "metrics.jsonl")
    assert [line["failed_completions"] for line in metrics] == [3.0, 6.0]
    assert [line["failed_groups"] for line in metrics] == [0.0, 0.0]
    rows = pq.read_table(tmp_path / "completions" / "step-00001.parquet").to_pylist()
    assert [row["reward"] is None for row in rows] == [True, False, False] * 3
    assert [row["advantage"] for row in rows[::3]] == [0.0] * 3
    for first, second in zip(rows[1::3], rows[2::3], strict=True):
        assert first["advantage"] == -second["advantage"]


def test_failures_are_counted_on_where_a_run_is_continued(tmp_path):
    changes = {"reward": FakeReward({"p1"}), "max_failed_groups": 10, "save_every": 1}
    stopped = FakeLearner()
    stopped.stop_at = 4
    with pytest.raises(KeyboardInterrupt):
        align(tmp_path / "cut", learner=stopped, **changes)
    align(tmp_path / "cut", **changes)
    align(tmp_path / "whole", **changes)
    counts = [
        [line["failed_groups"] for line in read_metrics(tmp_path / name / "metrics.jsonl")]
        for name in ("cut", "whole")
    ]
    assert counts[0] == counts[1]


def test_a_step_without_any_scored_group_stops_the_run(tmp_path):
    everything = {record.prompt_id for record in RECORDS}
    with pytest.raises(BudgetError, match="got 3 by step 0"):
        align(tmp_path, reward=FakeReward(everything), max_failed_groups=99)


def test_engine_and_learner_that_disagree_stop_the_run(tmp_path):
    with pytest.raises(WeightSyncError, match=r"at most sync_tolerance=0.001, got 0.01 at step 0"):
        align(tmp_path, rollout=FakeRollout(wrong_by=0.01))


def without_clock(line):
    clock = ("seconds_", "tokens_per_s")
    return {name: value for name, value in line.items() if not name.startswith(clock)}


@pytest.mark.parametrize("changes", [{}, {"refill_zero_variance": 2}])
def test_streaming_or_not_ends_in_the_same_policy(tmp_path, changes):
    learners = {
        streaming: align(
            tmp_path / str(streaming),
            rollout=FakeRollout(is_backwards=streaming),
            streaming=streaming,
            **changes,
        )
        for streaming in (True, False)
    }
    assert learners[True].weight == learners[False].weight
    lines = [read_metrics(tmp_path / name / "metrics.jsonl") for name in ("True", "False")]
    assert list(map(without_clock, lines[0])) == list(map(without_clock, lines[1]))
    # whatever the calls, the groups come to the learner in the same order
    orders = [[list(chain(*step)) for step in learners[key].calls] for key in (True, False)]
    assert orders[0] == orders[1]


class WaitingRollout(FakeRollout):
    """Finishes the last group of a step only after the learner has the others."""

    def __init__(self, learner):
        super().__init__()
        self._learner = learner
        self.num_early = 0

    def collect(self, *, timeout_s):
        is_early_step = len(self._learner.calls) > 2  # the first two steps check the weights
        if len(self._sampling) == 1 and is_early_step:
            deadline = time.monotonic() + 5
            while sum(len(part) for part in self._learner.calls[-1]) < 2:
                assert time.monotonic() < deadline, "the learner waited for the whole step"
                time.sleep(0.001)
            self.num_early += 1
        return super().collect(timeout_s=timeout_s)


def test_the_learner_starts_before_the_last_group_is_sampled(tmp_path):
    learner = FakeLearner()
    rollout = WaitingRollout(learner)
    align(tmp_path, learner=learner, rollout=rollout)
    assert rollout.num_early == 4  # steps 2 to 5


@pytest.mark.parametrize("on_excess", ["wait", "drop"])
@pytest.mark.parametrize("on_sync", ["finish", "keep"])
def test_an_asynchronous_run_lags_within_bounds_and_reports_it(tmp_path, on_excess, on_sync):
    staleness = {"max_versions": 2, "on_excess": on_excess, "on_sync": on_sync}
    align(tmp_path, num_steps=8, mode="async", staleness=staleness, loss=OFF_POLICY)
    metrics = read_metrics(tmp_path / "metrics.jsonl")
    assert [line["staleness_max"] for line in metrics[:3]] == [0.0, 0.0, 0.0]
    assert max(line["staleness_max"] for line in metrics) == 2.0
    assert all(line["staleness_mean"] <= line["staleness_max"] for line in metrics)
    assert {line["dropped_stale"] for line in metrics} == {0.0}
    drawn = [
        row["prompt_id"]
        for path in sorted((tmp_path / "completions").iterdir())
        for row in pq.read_table(path).to_pylist()[::2]
    ]
    # 24 groups of 5 prompts: four whole epochs and four prompts more
    assert sorted(Counter(drawn).values()) == [4, 5, 5, 5, 5]


def test_an_asynchronous_run_that_was_stopped_uses_every_prompt_once(tmp_path):
    changes = {
        "mode": "async",
        "staleness": {"on_excess": "drop"},
        "loss": OFF_POLICY,
        "num_steps": 5,
    }
    stopped = FakeLearner()
    stopped.stop_at = 3
    with pytest.raises(KeyboardInterrupt):
        align(tmp_path, learner=stopped, save_every=1, **changes)
    align(tmp_path, save_every=1, **changes)
    tables = [pq.read_table(path) for path in sorted((tmp_path / "completions").iterdir())]
    drawn = [row["prompt_id"] for table in tables for row in table.to_pylist()[::2]]
    assert Counter(drawn) == dict.fromkeys((record.prompt_id for record in RECORDS), 3)


def test_a_failed_group_leaves_the_normaliser_as_planned(tmp_path):
    learner = FakeLearner()
    plans = []
    begin = learner.begin
    learner.begin = lambda plan: (plans.append(plan), begin(plan))
    align(tmp_path, learner=learner, reward=FakeReward({"p1"}), max_failed_groups=10)
    assert {plan.num_completions for plan in plans} == {6}  # 3 prompts x 2, p1's counted
    # the first two steps are learned from when all is there: 3 tokens a completion
    assert [plan.num_tokens for plan in plans[2:]] == [None] * 4
    assert plans[0].num_tokens in (12, 18)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"staleness": {}}, "staleness must be given with mode=async only, got mode=sync"),
        (
            {"mode": "async", "loss": OFF_POLICY, "streaming": False},
            "streaming must be true with mode=async",
        ),
        ({"mode": "async"}, "mode=async must correct for stale completions.*got neither"),
        (
            {"mode": "async", "loss": OFF_POLICY, "refill_zero_variance": 3},
            r"must be 0 with mode=async.*got 3",
        ),
    ],
)
def test_modes_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        config(**changes)
