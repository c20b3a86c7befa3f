"""Which policy of an alignment is evaluated, and what is said about the choice."""

import pytest

from actors.align_watch import describe_choice
from actors.run_config import load_run
from actors.run_files import evaluated_policies
from c2s_rl.evaluation.bootstrap import Interval
from c2s_rl.evaluation.learning_curve import Best, CurvePoint

RUN = """\
name: x
corpus: {tasks: [cell_generation]}
align: {task: cell_generation, num_steps: 30, evaluation: {every: 10}}
rewards: [{name: validity, options: {num_genes: 5}}]
evaluate: {program: hallmark_apoptosis, baseline: Base}
"""


@pytest.fixture
def run_with(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(RUN)
    return lambda choice: load_run(
        path, [f"runs_dir={tmp_path}", f"evaluate.candidate_checkpoint={choice}"]
    )


@pytest.mark.parametrize(("choice", "folder"), [("last", "policy"), ("best", "best/policy")])
def test_the_policy_evaluated_is_the_one_chosen(run_with, choice, folder):
    run = run_with(choice)
    assert evaluated_policies(run)["GRPO"] == run.folder / "align" / folder


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ("best", "evaluated: the policy after step 20, the best by program tau during training"),
        ("last", "after the last step; the best by program tau was step 20"),
    ],
)
def test_the_choice_is_said(run_with, tmp_path, choice, words):
    point = CurvePoint(
        step=20,
        metrics={"program_tau": Interval(0.5, None, None, 1, 1)},
        per_condition={},
        probes={},
        num_prompts=1,
        num_answers=2,
        num_failed=0,
        seconds=1.0,
    )
    assert describe_choice(run_with(choice), tmp_path) == []
    best = Best(metric="program_tau", point=point)
    (tmp_path / "best.json").write_text(best.model_dump_json())
    (sentence,) = describe_choice(run_with(choice), tmp_path)
    assert words in sentence
