"""The GRPO loop over fake workers: data order, resuming, budgets, the sync check."""

import json

import pyarrow.parquet as pq
import pytest

from c2s_rl.errors import BudgetError, WeightSyncError
from c2s_rl.grpo.sampling import SamplingConfig
from c2s_rl.pipeline.align import AlignConfig, AlignWorkers, run
from c2s_rl.runlog import read_metrics
from tests.fakes import FakeLearner, FakeReward, FakeRollout, make_record

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


def align(folder, *, learner=None, rollout=None, reward=None, **changes):
    learner = learner or FakeLearner()
    workers = AlignWorkers(rollout or FakeRollout(), reward or FakeReward(), learner)
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


def test_a_step_without_any_scored_group_stops_the_run(tmp_path):
    everything = {record.prompt_id for record in RECORDS}
    with pytest.raises(BudgetError, match="got 3 by step 0"):
        align(tmp_path, reward=FakeReward(everything), max_failed_groups=99)


def test_engine_and_learner_that_disagree_stop_the_run(tmp_path):
    with pytest.raises(WeightSyncError, match=r"at most sync_tolerance=0.001, got 0.01 at step 0"):
        align(tmp_path, rollout=FakeRollout(wrong_by=0.01))
