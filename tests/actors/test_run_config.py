"""The run file: rules between sections, seeds, overrides."""

import pytest

from actors.run_config import load_run
from actors.run_files import sft_start, start_policy
from c2s_rl.config import FrozenConfig
from c2s_rl.errors import ConfigError
from rewards.base import RewardResult, RewardScope

ALIGN = """\
name: x
seed: 5
corpus: {tasks: [cell_generation]}
align: {task: cell_generation, num_steps: 10}
rewards: [{name: validity, options: {num_genes: 5}}]
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(ALIGN)
    return path


def test_the_seed_of_a_run_is_that_of_every_stage_that_names_none(file):
    assert load_run(file, []).corpus.seed == 5
    assert load_run(file, ["corpus.seed=9"]).corpus.seed == 9
    assert load_run(file, ["seed=6"]).corpus.seed == 6


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("align.task=perturbation_response", "align.task must be one of corpus.tasks"),
        (
            "evaluate={program: x, candidate: PPO}",
            "evaluate.baseline must be one of .*'Base', 'GRPO'",
        ),
        (
            "evaluate_text={candidate: PPO}",
            "evaluate_text.baseline must be one of .*'Base', 'GRPO'",
        ),
        (
            "evaluate_tasks={baseline: base}",
            r"evaluate_tasks.baseline must be one of \['Base', 'GRPO'\], got 'base'",
        ),
        (
            "evaluate_tasks={baseline: GRPO}",
            "baseline must be another model than the candidate, .* got 'GRPO'",
        ),
        ("rewards=[]", "needs at least one entry in rewards"),
        ("rollout.dtype=bfloat16", "rollout.dtype and learner.dtype must be equal"),
        ("align.save_every=11", "save_every must be at most num_steps=10, got 11 at 'align'"),
        ("align.num_step=3", "got 'align.num_step'.*did you mean 'num_steps'"),
        ("align.sampling.group_size=1", "greater than or equal to 2, got 1"),
        ("name=a/b", "name must be letters"),
        ("rewards=[{name: kendal}]", "did you mean 'kendall'.* at 'rewards' in"),
        ("rewards=[{name: validity}]", "no 'num_genes' in options of reward 'validity'"),
        (
            "rewards=[{name: validity, options: {num_genes: 5}, calibrate: {}}]",
            r"calibrate needs prompts with a control cell .* got 'cell_generation' with validity",
        ),
        (
            "rewards=[{name: validity, options: {num_genes: 5}, weight: 0}]",
            "other than 0, got none",
        ),
        ("composite.aggregation=max", "'sum_then_normalise' or 'normalise_then_sum', got 'max'"),
        ("align", "--set must be key=value, got 'align'"),
        ("placement={sleep: true}", "vLLM cannot sleep on a CPU, got rollout.num_gpus=0"),
        ("align.staleness={}", "staleness must be given with mode=async only, got mode=sync"),
        (
            "evaluate={program: x, baseline: Base, candidate_checkpoint: best}",
            "candidate_checkpoint must be last without align.evaluation",
        ),
        (
            "align.evaluation={metric: num_words}",
            r"metric must be one of program_tau.*reward, reward/validity, got 'num_words'",
        ),
        ("align.evaluation={samples_per_prompt: 1}", "greater than or equal to 2, got 1"),
        ("seed.x=1", "--set seed.x must go through a section, got seed=5"),
    ],
)
def test_a_broken_rule_is_said_before_anything_is_loaded(file, override, message):
    with pytest.raises(ConfigError, match=message):
        load_run(file, [override])


def test_a_reward_may_have_workers_of_its_own(file):
    own = "{name: validity, options: {num_genes: 5}, workers: {num_workers: 3, deadline_s: 5}}"
    other = "{name: validity, options: {num_genes: 5}, label: b}"
    run = load_run(file, [f"rewards=[{own}, {other}]", "reward_workers.num_workers=2"])
    assert [pool.num_workers for pool in run.reward_pools] == [3, 2]
    assert [pool.deadline_s for pool in run.reward_pools] == [5.0, 300.0]
    with pytest.raises(ConfigError, match="did you mean 'num_workers'"):
        load_run(file, [f"rewards=[{own.replace('num_workers', 'num_worker')}]"])
    with pytest.raises(ConfigError, match=r"resources must be greater than 0, got {'fpga': 0.0}"):
        load_run(file, ["reward_workers.resources={fpga: 0}"])


def test_numbers_and_names_are_yaml_1_2(file):
    run = load_run(file, ["learner.lr=1e-6", "name=NO"])
    assert run.learner.lr == 1e-6
    assert run.name == "NO"


def test_engines_sleep_only_where_the_learner_waits_for_them(file):
    overrides = ["placement.sleep=true", "rollout.num_gpus=0.5"]
    with pytest.raises(ConfigError, match=r"align\.streaming must be false with"):
        load_run(file, overrides)
    assert load_run(file, [*overrides, "align.streaming=false"]).placement.sleep


def test_text_answers_choose_by_a_reward(file):
    task = ["corpus.tasks=[cell_type_annotation]", "align.task=cell_type_annotation"]
    with pytest.raises(ConfigError, match=r"must be one of reward, reward/validity, got 'progra"):
        load_run(file, [*task, "align.evaluation={}"])
    total = [*task, "align.evaluation={metric: reward}"]
    assert load_run(file, total).align.evaluation.metric == "reward"
    # centred within its group, every total is 0 on average
    with pytest.raises(ConfigError, match="must be one of reward/validity, got 'reward'"):
        load_run(file, [*total, "composite.aggregation=normalise_then_sum"])


def test_evaluation_during_training_measures_what_the_final_one_does_unless_it_says(file):
    final = "evaluate={program: hallmark_apoptosis, variant: a, baseline: Base}"
    during = load_run(file, [final, "align.evaluation={every: 5}"]).align.evaluation
    assert (during.program, during.variant, during.every) == ("hallmark_apoptosis", "a", 5)
    named = load_run(file, [final, "align.evaluation={program: x.gmt:Y, variant: b}"])
    assert (named.align.evaluation.program, named.align.evaluation.variant) == ("x.gmt:Y", "b")
    assert load_run(file, [final]).align.evaluation is None


class PerCondition:
    """A reward that would compare all groups of a condition."""

    scope = RewardScope.CONDITION

    class Options(FrozenConfig):
        """None."""

    def __init__(self, options):
        pass

    def score(self, batch):
        return RewardResult((0.0,) * len(batch))


def test_nothing_is_replaced_where_groups_are_compared_with_each_other(file):
    overrides = [f"rewards=[{{name: '{__name__}:PerCondition'}}]", "align.refill_zero_variance=2"]
    with pytest.raises(ConfigError, match=r"must be 0 with rewards .* got 2"):
        load_run(file, overrides)
    assert load_run(file, overrides[:1]).rewards


def test_the_runs_own_scgpt_must_be_trained_by_the_run(file):
    own = "rewards=[{name: scgpt}]"
    with pytest.raises(ConfigError, match=r"or the run must train one .* for 'rewards.scgpt' in"):
        load_run(file, [own])
    assert load_run(file, [own, "embedder={}"]).embedder.seed == 5
    assert load_run(file, ["rewards=[{name: scgpt, options: {embedder: {folder: x}}}]"]).rewards


@pytest.mark.parametrize(
    ("overrides", "name", "folder"),
    [
        ([], "Base", "base"),
        (["pretrain={}"], "Pretrained", "pretrain/policy"),
        (["sft={}"], "SFT", "sft/policy"),
        (["pretrain={}", "sft={}"], "SFT", "sft/policy"),
    ],
)
def test_alignment_starts_from_the_last_stage_before_it(file, overrides, name, folder):
    run = load_run(file, overrides)
    assert run.policy_names == (name, "GRPO")
    assert start_policy(run) == run.folder / folder


def test_sft_goes_on_from_the_pretrained_model_where_there_is_one(file):
    run = load_run(file, ["sft={}"])
    assert sft_start(run) == run.folder / "base"
    run = load_run(file, ["sft={}", "pretrain={}"])
    assert sft_start(run) == run.folder / "pretrain/policy"
    assert (run.pretrain.seed, run.sft.seed) == (5, 5)
