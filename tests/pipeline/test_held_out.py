"""Evaluation during training over fake workers: it happens, it disturbs nothing, it resumes."""

import json
import time
from itertools import chain

import numpy as np
import pytest

from c2s_rl.cells.sentence import RankForm, RankModel
from c2s_rl.data.prompt_set import PromptManifest, PromptSet
from c2s_rl.errors import ConfigError, StageError
from c2s_rl.evaluation.cell_metrics import Yardstick
from c2s_rl.evaluation.learning_curve import read_best, read_curve
from c2s_rl.evaluation.parts import HeldOutPart, part_of
from c2s_rl.evaluation.probes import Probe, ProbeRuler
from c2s_rl.evaluation.rank import TauVariant
from c2s_rl.grpo.sampling import SamplingConfig
from c2s_rl.pipeline.align import AlignConfig, AlignWorkers, Watch, run
from c2s_rl.pipeline.held_out import HeldOut, HeldOutConfig, choose_prompts
from c2s_rl.runlog import read_metrics
from c2s_rl.types import ParsedCell, PromptRecord, Split, Task
from tests.fakes import FakeLearner, FakeReward, FakeRollout, make_record

RECORDS = [make_record(f"p{i}") for i in range(5)]
RULER = ProbeRuler(np.array([0], dtype=np.int32), num_genes=4, num_vocabulary=10)
YARDSTICK = Yardstick(
    np.arange(4, dtype=np.int32),
    RankModel(form=RankForm.LINEAR, slope=-1.0, intercept=5.0, r2=1.0),
    4,
    10,
    TauVariant.B,
)


def held_out_record(name, condition="B | IFN", target=(0, 1, 2, 3), context_id=""):
    return PromptRecord(
        name,
        f"ask {name}",
        " a",
        Task.CELL_GENERATION,
        condition,
        context_id,
        "",
        Split.TEST,
        np.array(target, dtype=np.int32),
        np.zeros(0, dtype=np.int32),
    )


def real_cell(*genes):
    return ParsedCell(np.array(genes, dtype=np.int32), len(genes), 0, (), is_truncated=False)


def held_out(**changes):
    records = tuple(held_out_record(f"h{i}", f"type {i % 2}") for i in range(4))
    config = HeldOutConfig(**({"every": 2, "metric": "reward", "samples_per_prompt": 3} | changes))
    real = [[real_cell(0, 1), real_cell(0, 2)]] * 4
    return HeldOut(config, records, YARDSTICK, RULER, real, seed=7)


def align(folder, *, watched=True, learner=None, rollout=None, reward=None, **changes):
    learner = learner or FakeLearner()
    values = {
        "task": "cell_generation",
        "num_steps": 5,
        "prompts_per_step": 3,
        "save_every": 2,
        "sampling": SamplingConfig(group_size=2),
    }
    evaluation = changes.pop("evaluation", {})
    watch = Watch(RULER, held_out(**evaluation) if watched else None)
    workers = AlignWorkers(rollout or FakeRollout(), reward or FakeReward(), learner)
    config = AlignConfig(**(values | changes))
    run(config, workers, RECORDS, output=folder, seed=7, watch=watch)
    return learner


class LearningRollout(FakeRollout):
    """Answers held-out prompts with a number of genes that depends on the weights' version."""

    def __init__(self, num_genes):
        super().__init__()
        self._num_genes = num_genes

    def group(self, request):
        group = super().group(request)
        if request.cache_scope:
            for cell in group.cells_G:
                number = self._num_genes[self.version]
                object.__setattr__(cell, "genes_K", np.arange(number, dtype=np.int32))
        return group


class GeneReward(FakeReward):
    """Counts the genes of held-out answers."""

    def _scored(self, group):
        scored = super()._scored(group)
        if group.record.split is Split.TEST:
            rewards = tuple(float(len(cell.genes_K)) for cell in group.cells_G)
            object.__setattr__(scored, "rewards_G", rewards)
        return scored


def without_clock(line):
    clock = ("seconds_", "tokens_per_s")
    return {name: value for name, value in line.items() if not name.startswith(clock)}


@pytest.mark.parametrize("changes", [{}, {"refill_zero_variance": 2}, {"streaming": False}])
def test_a_synchronous_run_ends_the_same_with_it_and_without(tmp_path, changes):
    on = align(tmp_path / "on", **changes)
    off = align(tmp_path / "off", watched=False, **changes)
    assert on.weight == off.weight
    orders = [[list(chain(*step)) for step in learner.calls] for learner in (on, off)]
    assert orders[0] == orders[1]
    lines = [read_metrics(tmp_path / name / "metrics.jsonl") for name in ("on", "off")]
    assert repr(list(map(without_clock, lines[0]))) == repr(list(map(without_clock, lines[1])))
    for name in ("policy/weight.json", "completions/step-00004.parquet"):
        assert (tmp_path / "on" / name).read_bytes() == (tmp_path / "off" / name).read_bytes()


def test_the_start_every_n_steps_and_the_end_are_evaluated_with_the_same_requests(tmp_path):
    rollout = FakeRollout()
    align(tmp_path, rollout=rollout)
    points = read_curve(tmp_path / "held_out.jsonl")
    assert [point.step for point in points] == [0, 2, 4, 5]
    asked = [seen for seen in rollout.seen if seen[0].startswith("h")]
    assert asked == [["h0", "h1", "h2", "h3"]] * 4
    assert all(point.num_answers == 12 for point in points)  # 4 prompts x 3
    assert points[0].probes[Probe.WORDS].answers == 2.0  # each fake completion writes 2 words
    # {0,1} and {0,2}: one gene of three
    assert points[0].probes[Probe.PAIR_OVERLAP].real == pytest.approx(1 / 3)
    assert set(points[0].per_condition) == {"type 0", "type 1"}
    # the same seeds and, in the fake, tokens that do not depend on the weights
    assert points[0].metrics["reward"] == points[-1].metrics["reward"]


def test_cell_metrics_and_rewards_are_measured_on_the_answers(tmp_path):
    # versions 0, 2, 4 and 5 write so many of the target's genes 0 1 2 3, in order
    align(
        tmp_path,
        rollout=LearningRollout({0: 1, 2: 2, 4: 4, 5: 3}),
        reward=GeneReward(),
        evaluation={"metric": "gene_overlap"},
    )
    points = read_curve(tmp_path / "held_out.jsonl")
    assert [p.value("gene_overlap") for p in points] == [0.25, 0.5, 1.0, 0.75]
    assert [p.value("reward") for p in points] == [1.0, 2.0, 4.0, 3.0]
    assert points[2].value("program_tau") == pytest.approx(1.0)
    best = read_best(tmp_path / "best")
    assert (best.metric, best.point) == ("gene_overlap", points[2])


def test_the_best_policy_is_kept_besides_the_newest(tmp_path):
    rollout = LearningRollout({0: 1, 2: 4, 4: 2, 5: 4})
    align(tmp_path, rollout=rollout, reward=GeneReward(), keep_checkpoints=1, save_every=1)
    weights = {}
    learner = FakeLearner()
    finish = learner.finish
    learner.finish = lambda: (finish(), weights.update({len(learner.calls): learner.weight}))[0]
    (tmp_path / "again").mkdir()
    align(tmp_path / "again", learner=learner, watched=False)
    # as good at step 5 as at step 2: the earlier one stays
    assert read_best(tmp_path / "best").point.step == 2
    assert json.loads((tmp_path / "best" / "policy" / "weight.json").read_text()) == weights[2]
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-00005"]


def test_the_start_is_the_best_where_training_only_spoils(tmp_path):
    rollout = LearningRollout({0: 4, 2: 3, 4: 2, 5: 1})
    align(tmp_path, rollout=rollout, reward=GeneReward())
    assert read_best(tmp_path / "best").point.step == 0
    assert json.loads((tmp_path / "best" / "policy" / "weight.json").read_text()) == 1.0


@pytest.mark.parametrize(("stop_at", "missing"), [(1, [2, 4, 5]), (3, [4, 5]), (4, [5])])
def test_a_killed_run_repeats_only_the_evaluations_that_are_missing(tmp_path, stop_at, missing):
    whole = align(tmp_path / "whole")
    stopped = FakeLearner()
    stopped.stop_at = stop_at
    with pytest.raises(KeyboardInterrupt):
        align(tmp_path / "cut", learner=stopped)
    rollout = FakeRollout()
    resumed = align(tmp_path / "cut", rollout=rollout)
    assert resumed.weight == whole.weight
    assert sum(seen[0] == "h0" for seen in rollout.seen) == len(missing)
    curves = [
        [p.model_copy(update={"seconds": 0.0}) for p in read_curve(tmp_path / n / "held_out.jsonl")]
        for n in ("whole", "cut")
    ]
    assert curves[0] == curves[1]


def test_what_was_found_after_the_last_checkpoint_is_found_again(tmp_path):
    stopped = FakeLearner()
    stopped.stop_at = 4
    with pytest.raises(KeyboardInterrupt):
        align(tmp_path, learner=stopped, save_every=3)
    assert [p.step for p in read_curve(tmp_path / "held_out.jsonl")] == [0, 2, 4]
    rollout = FakeRollout()
    align(tmp_path, rollout=rollout, save_every=3)
    # back to step 3: step 4 is made again, once
    assert [p.step for p in read_curve(tmp_path / "held_out.jsonl")] == [0, 2, 4, 5]
    assert sum(seen[0] == "h0" for seen in rollout.seen) == 2


def test_a_finished_run_is_not_evaluated_again(tmp_path):
    align(tmp_path)
    rollout = FakeRollout()
    align(tmp_path, rollout=rollout)
    assert rollout.seen == []


def test_an_asynchronous_run_answers_by_the_weights_of_its_step(tmp_path):
    versions = []

    class Noting(FakeRollout):
        def group(self, request):
            if request.cache_scope:
                versions.append(self.version)
            return super().group(request)

    align(
        tmp_path,
        rollout=Noting(),
        mode="async",
        staleness={"max_versions": 2},
        loss={"sampling_logprobs": "rollout"},
        num_steps=6,
    )
    assert [p.step for p in read_curve(tmp_path / "held_out.jsonl")] == [0, 2, 4, 6]
    assert versions == [step for step in (0, 2, 4, 6) for _ in range(4)]
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 6


def test_held_out_prompts_whose_reward_fails_are_counted_and_cost_no_budget(tmp_path):
    align(tmp_path, reward=FakeReward({"h1"}), max_failed_groups=0)
    points = read_curve(tmp_path / "held_out.jsonl")
    assert [point.num_failed for point in points] == [1, 1, 1, 1]
    assert points[0].metrics["reward"].num_prompts == 3


def test_a_metric_without_value_stops_before_anything_is_trained(tmp_path):
    learner = FakeLearner()
    with pytest.raises(ConfigError, match=r"must have a value on the 4 .*'program_tau_delta'"):
        align(tmp_path, learner=learner, evaluation={"metric": "program_tau_delta"})
    assert learner.calls == []


def test_time_for_held_out_prompts_is_no_time_of_a_step(tmp_path):
    class Slow(FakeRollout):
        def collect(self, *, timeout_s):
            if any(ticket < 0 for ticket, _ in self._sampling):
                time.sleep(0.02)
            return super().collect(timeout_s=timeout_s)

    align(tmp_path, rollout=Slow(), num_steps=2, save_every=1)
    points = read_curve(tmp_path / "held_out.jsonl")
    assert all(point.seconds > 0.08 for point in points)  # 4 prompts x 20 ms
    steps = read_metrics(tmp_path / "metrics.jsonl")
    assert all(line["seconds_rollout"] < 0.08 for line in steps)


def test_probes_of_training_answers_are_in_every_step(tmp_path):
    align(tmp_path, watched=False)
    for line in read_metrics(tmp_path / "metrics.jsonl"):
        assert line["probe/words"] == 2.0
        assert line["probe/tokens"] == 3.0
        assert line["probe/pair_overlap"] == 1.0
        assert line["probe/housekeeping"] == 1.0
        assert np.isnan(line["probe/control_tau"])


def prompt_set(records):
    manifest = PromptManifest(
        organism="Homo sapiens",
        num_genes=4,
        seed=11,
        counts=(),
        dropped={},
        num_short_targets=0,
        cells_manifest_sha256="",
        config={},
        phrasings={},
        symbols=tuple(f"G{i}" for i in range(10)),
        original=tuple(f"G{i}" for i in range(10)),
    )
    return PromptSet(tuple(records), manifest)


def test_prompts_are_of_the_validation_part_and_spread_over_conditions():
    prompts = [held_out_record(f"h{i}", f"type {i % 3}", context_id=f"c{i}") for i in range(200)]
    prompts += [held_out_record("flat", target=(7, 8), context_id="c0")]
    config = HeldOutConfig(num_prompts=9)
    chosen = choose_prompts(config, Task.CELL_GENERATION, prompt_set(prompts), YARDSTICK, seed=1)
    assert [record.condition for record in chosen] == ["type 0", "type 1", "type 2"] * 3
    assert {part_of(record, 11) for record in chosen} == {HeldOutPart.VALIDATION}
    backwards = choose_prompts(
        config, Task.CELL_GENERATION, prompt_set(prompts[::-1]), YARDSTICK, seed=1
    )
    assert [r.prompt_id for r in backwards] == [r.prompt_id for r in chosen]


def test_a_corpus_without_validation_prompts_is_refused():
    with pytest.raises(StageError, match="in the validation part, got none of 0 held-out prompts"):
        choose_prompts(
            HeldOutConfig(), Task.CELL_GENERATION, prompt_set(RECORDS), YARDSTICK, seed=1
        )


def test_an_unknown_condition_names_the_nearest():
    prompts = prompt_set([held_out_record(f"h{i}", context_id=f"c{i}") for i in range(20)])
    with pytest.raises(ConfigError, match=r"a held-out condition must be .*'B \| IFM'"):
        choose_prompts(
            HeldOutConfig(conditions=("B | IFM",)),
            Task.CELL_GENERATION,
            prompts,
            YARDSTICK,
            seed=1,
        )
