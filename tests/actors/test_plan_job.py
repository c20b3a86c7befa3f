"""From a run's config and a cluster to a plan, on the terminal and as JSON."""

import json
import logging

import pytest

from actors.plan_job import configured_layout, plan_job, shape_of_run, show_plan
from actors.run_config import load_run
from c2s_rl.errors import ConfigError, MissingFileError, PlanError
from c2s_rl.plan.assumptions import Assumptions
from c2s_rl.plan.hardware import parse_cluster
from c2s_rl.plan.layouts import Layout, Sharing
from tests.conftest import PROJECT

PYTHIA = PROJECT / "configs" / "pythia_410m_h100.yaml"
KANG = PROJECT / "configs" / "kang_ifnb_cpu.yaml"
H100_CONFIGS = ("pythia_410m_h100", "gemma2_2b_h100", "gemma2_27b_h100")


def job_of(path, *overrides, assume=None, cluster="4xH100"):
    run = load_run(path, ["runs_dir=does_not_exist", *overrides])
    return plan_job(run, parse_cluster(cluster), assume or Assumptions())


def test_a_config_becomes_the_planners_numbers():
    job = job_of(PYTHIA)
    assert job.shape.name == "pythia-410m"
    work = job.workload
    assert (work.num_prompts, work.group_size, work.max_completion_tokens) == (32, 24, 900)
    # 200 genes x 3.8 tokens, and 40 of words around the prompt's
    assert (work.prompt_tokens, work.completion_tokens) == (800, 760)
    assert work.source == "estimated at 3.8 tokens a gene"
    assert (job.method.element_bytes, job.method.zero_stage) == (2, 2)
    assert job.method.has_reference
    assert not job_of(PYTHIA, "align.loss.beta=0").method.has_reference


def test_a_models_own_section_and_tokenizer_count():
    job = job_of(KANG)
    # 4 layers of 256: 2 x 4096 x 256 + 4 x (12 x 256^2 + 13 x 256) + 2 x 256
    assert job.shape.num_parameters == 5_256_704
    # 80 genes x 1.2 tokens, and 40 of words
    assert (job.workload.prompt_tokens, job.workload.completion_tokens) == (136, 96)
    assert job.method.element_bytes == 4


def test_what_the_base_model_stage_found_goes_before_estimates(tmp_path):
    base = tmp_path / "kang_ifnb_cpu" / "base"
    base.mkdir(parents=True)
    (base / "manifest.json").write_text('{"max_prompt_tokens": 125, "max_target_tokens": 90}')
    job = job_of(KANG, f"runs_dir={tmp_path}")
    assert (job.workload.prompt_tokens, job.workload.completion_tokens) == (125, 90)
    given = Assumptions(prompt_tokens=100, completion_tokens=50)
    job = job_of(KANG, f"runs_dir={tmp_path}", assume=given)
    assert (job.workload.prompt_tokens, job.workload.completion_tokens) == (100, 50)
    assert job.workload.source == "given"


@pytest.mark.parametrize(
    ("task", "prompt", "completion"),
    [("cell_generation", 40, 380), ("cell_type_annotation", 420, 8)],
)
def test_tasks_have_the_cell_on_one_side_only(tmp_path, task, prompt, completion):
    path = tmp_path / "run.yaml"
    path.write_text(
        f"name: x\ncorpus: {{tasks: [{task}], num_genes: 100}}\n"
        f"align: {{task: {task}, num_steps: 10, sampling: {{max_tokens: 500}}}}\n"
        "base_model: {kind: smollm2}\n"
        "rewards: [{name: validity, options: {num_genes: 5}}]\n"
    )
    job = job_of(path)
    assert (job.workload.prompt_tokens, job.workload.completion_tokens) == (prompt, completion)


def test_a_model_that_is_nowhere_is_named():
    run = load_run(PYTHIA, ["base_model.path=${NO_SUCH_VARIABLE}/my-model"])
    assert run.base_model is not None
    with pytest.raises(MissingFileError, match=r"named like one of .*, got 'my-model'"):
        shape_of_run(run, run.base_model)


def test_a_run_without_alignment_has_nothing_to_plan(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("name: x\nbase_model: {kind: smollm2}\n")
    with pytest.raises(ConfigError, match="needs the sections align and base_model, got no 'align"):
        job_of(path)


def test_the_layout_of_the_configs_own_workers(caplog):
    run = load_run(PYTHIA, [])
    assert configured_layout(run, parse_cluster("4xH100")) == Layout(Sharing.SPLIT, 1, 3, 1)
    with caplog.at_level(logging.WARNING):
        assert configured_layout(run, parse_cluster("2xH100")) is None
    assert "reserve 4 GPUs (rollout 3 x 1, learner 1 x 1), which is no split of the 2" in (
        caplog.text
    )


@pytest.mark.parametrize("cluster", ["4xH100", "2x8xH100"])
@pytest.mark.parametrize("name", H100_CONFIGS)
def test_h100_configs_have_plans_that_are_shown_and_written(
    name, cluster, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "150")
    run = load_run(PROJECT / "configs" / f"{name}.yaml", [f"runs_dir={tmp_path}"])
    plan = show_plan(run, cluster, json_file=tmp_path / "plan.json")
    shown = capsys.readouterr().out
    assert f"synchronous: {plan.best.layout}; {run.align.num_steps} steps in " in shown
    for part in ("decode", "learner backward", "activations", "KV cache"):
        assert part in shown
    written = json.loads((tmp_path / "plan.json").read_text())
    parts = sum(part["seconds"] for part in written["step_parts"])
    assert parts == pytest.approx(plan.best.step_seconds) == written["best"]["step_seconds"]
    assert written["layouts"][0] == written["best"]


def test_what_cannot_fit_ends_in_one_error_that_names_the_part():
    overrides = ["runs_dir=does_not_exist", "learner.gradient_checkpointing=false"]
    run = load_run(PROJECT / "configs" / "gemma2_2b_h100.yaml", overrides)
    with pytest.raises(PlanError, match=r"activations need .* would fit with gradient checkpoint"):
        show_plan(run, "4xH100")


def test_an_unknown_assumption_names_the_nearest():
    run = load_run(PYTHIA, [])
    with pytest.raises(ConfigError, match=r"got 'prompt_token' in --assume; did you mean 'prompt"):
        show_plan(run, "4xH100", ["prompt_token=3"])
