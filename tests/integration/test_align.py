"""GRPO on the real vLLM, DeepSpeed and Ray: shards, ranks, kills and the report."""

import shutil

import pytest
from safetensors.torch import load_file

from c2s_rl.evaluation.learning_curve import read_best, read_curve
from c2s_rl.runlog import read_metrics

pytestmark = pytest.mark.integration


def _copy(prepared, name):
    folder = prepared.parent / name
    shutil.copytree(prepared, folder)
    return folder


@pytest.fixture(scope="module")
def undisturbed(runs, prepared):
    folder = _copy(prepared, "undisturbed")
    runs.run("align", "undisturbed")
    return folder / "align"


def _policy(align):
    return load_file(align / "policy" / "model.safetensors")


def _difference(left, right):
    assert left.keys() == right.keys()
    return max((left[name] - right[name]).abs().max().item() for name in left)


def test_engine_and_learner_agree_and_the_policy_moves(undisturbed, prepared):
    metrics = read_metrics(undisturbed / "metrics.jsonl")
    assert len(metrics) == 4
    # float32 on both sides: after every sync the two agree to rounding
    assert max(line["mismatch_max"] for line in metrics) < 1e-4
    assert metrics[0]["kl"] == pytest.approx(0.0, abs=1e-6)
    assert metrics[-1]["kl"] > 1e-5
    start = load_file(prepared / "base" / "model.safetensors")
    assert _difference(start, _policy(undisturbed)) > 1e-4


def test_a_run_tells_what_its_reward_workers_did_and_how_long_they_were_waited_for(undisturbed):
    for line in read_metrics(undisturbed / "metrics.jsonl"):
        for reward in ("kendall", "validity"):
            assert line[f"reward_worker/{reward}/completions"] == 9.0  # 3 prompts x 3 answers
            assert 1.0 <= line[f"reward_worker/{reward}/calls"] <= 3.0
            assert 0.0 < line[f"reward_worker/{reward}/latency_s"] < line["seconds_step"]
            assert line[f"reward_worker/{reward}/restarts"] == 0.0
        assert 0.0 <= line["seconds_reward_alone"] <= line["seconds_reward"]
        assert line["failed_groups"] == line["failed_completions"] == 0.0


def test_a_killed_run_without_streaming_ends_bitwise_like_an_undisturbed_one_with_it(
    runs, prepared, undisturbed
):
    folder = _copy(prepared, "killed")
    # the killed one is evaluated during training as well, which must not show in the policy
    evaluation = "align.evaluation={every: 2, num_prompts: 4, samples_per_prompt: 2}"
    plain = ("--set", "align.streaming=false", "--set", evaluation)
    runs.kill_after("align", "killed", folder / "align" / "checkpoints" / "step-00002", *plain)
    assert not (folder / "align" / "policy").exists()
    output = runs.run("align", "killed", *plain)
    assert "continuing after step" in output
    left, right = _policy(undisturbed), _policy(folder / "align")
    assert all((left[name] == right[name]).all() for name in left)
    completions = "completions/step-00003.parquet"
    assert (undisturbed / completions).read_bytes() == (folder / "align" / completions).read_bytes()
    points = read_curve(folder / "align" / "held_out.jsonl")
    assert [point.step for point in points] == [0, 2, 4]
    assert all(point.num_answers == 8 for point in points)  # 4 prompts x 2
    assert {"program_tau", "reward", "reward/kendall", "reward/validity"} <= points[
        0
    ].metrics.keys()
    best = read_best(folder / "align" / "best")
    assert best.point.value("program_tau") == max(p.value("program_tau") for p in points)
    _policy(folder / "align" / "best")


@pytest.mark.parametrize("stage", [2, 3])
def test_two_ranks_of_any_zero_stage_train_like_one(runs, prepared, undisturbed, stage):
    name = f"zero{stage}"
    folder = _copy(prepared, name)
    overrides = (f"learner.zero_stage={stage}", "learner.num_workers=2", "align.num_steps=2")
    runs.run("align", name, *(word for o in overrides for word in ("--set", o)))
    steps = [read_metrics(align / "metrics.jsonl") for align in (undisturbed, folder / "align")]
    # same seeds, so the same samples; sums over two ranks round differently
    for name in ("reward_mean", "kl", "loss", "grad_norm"):
        assert steps[1][1][name] == pytest.approx(steps[0][1][name], rel=1e-3, abs=1e-6)


def test_an_asynchronous_run_with_workers_apart_learns_from_older_completions(
    runs, prepared, undisturbed
):
    folder = _copy(prepared, "ahead")
    overrides = (
        "align.mode=async",
        "align.loss.sampling_logprobs=rollout",
        "placement.mode=disaggregated",
    )
    runs.run("align", "ahead", *(word for o in overrides for word in ("--set", o)))
    sync, ahead = (read_metrics(f / "metrics.jsonl") for f in (undisturbed, folder / "align"))
    # the first two steps are taken alone to check the weights, then rollout runs one step ahead
    assert [line["staleness_max"] for line in ahead] == [0.0, 0.0, 0.0, 1.0]
    assert max(line["mismatch_max"] for line in ahead[:3]) < 1e-4
    # older weights, but not much older: what they sampled is no longer quite the policy's own
    assert 1e-4 < ahead[3]["mismatch_abs"] < 0.5
    for name in ("reward_mean", "kl", "loss"):
        assert ahead[2][name] == pytest.approx(sync[2][name], rel=1e-3, abs=1e-5)
    assert _difference(_policy(undisturbed), _policy(folder / "align")) > 0.0


def test_evaluation_prints_the_table_and_a_second_run_reuses_everything(runs, undisturbed):
    output = runs.run("run", "undisturbed")
    assert "report.html" in output
    report = undisturbed.parent / "report.html"
    written = report.stat().st_mtime_ns
    again = runs.run("run", "undisturbed")
    assert again.count("reusing") == 5
    assert report.stat().st_mtime_ns == written


def test_scoring_its_completions_offline_gives_the_training_scores(runs, undisturbed):
    output = runs.run("rewards score", "undisturbed", "--max-difference", "0")
    # 4 steps of 3 prompts x 3 answers
    for name in ("kendall", "validity", "total"):
        (line,) = [line for line in output.splitlines() if line.startswith(name)]
        assert line.split()[1] == "36"
        assert line.endswith("0 (exact)")


def test_another_config_in_the_same_folder_is_refused(runs, undisturbed):
    before = (undisturbed / "policy" / "model.safetensors").read_bytes()
    output = runs.run("align", "undisturbed", "--set", "learner.lr=0.5", code=2)
    assert "learner.lr 0.001 -> 0.5; choose another name, or --overwrite" in " ".join(
        output.split()
    )
    assert (undisturbed / "policy" / "model.safetensors").read_bytes() == before
