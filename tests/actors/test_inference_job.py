"""Which policy and which stages a use of a policy needs, and what a run's file need not say."""

import subprocess
import sys
from pathlib import Path

import pytest

from actors import inference_job
from actors.inference_job import policy_folder
from actors.run_config import RunConfig, load_run
from actors.run_defaults import with_corpus_defaults
from c2s_rl.errors import ConfigError
from tests.conftest import PROJECT

KANG = PROJECT / "configs" / "kang_ifnb_cpu.yaml"


def kang(*overrides):
    return load_run(KANG, overrides)


def test_a_policy_is_the_runs_own_by_name_or_a_folder(tmp_path):
    run = kang("runs_dir=r")
    here = Path.cwd() / "r" / "kang_ifnb_cpu"
    assert policy_folder(run, None) == here / "sft" / "policy"
    assert policy_folder(run, "base") == here / "base"
    assert policy_folder(run, "sft") == here / "sft" / "policy"
    assert policy_folder(run, "align") == here / "align" / "policy"
    assert policy_folder(run, "best") == here / "align" / "best" / "policy"
    assert policy_folder(run, str(tmp_path)) == tmp_path
    with pytest.raises(ConfigError, match=r"makes \(base, sft, align, best\) or a folder, got 'p"):
        policy_folder(kang(), "pretrain")


@pytest.mark.parametrize(
    ("section", "needs"),
    [
        ("embed={}", ("convert", "base_model", "pretrain", "sft")),
        ("embed={cells: c, policy: p}", ()),
        ("embed={texts: t.tsv, policy: align}", ("align",)),
        ("annotate={policy: base}", ("convert", "base_model")),
        ("annotate={source: {path: a.h5ad}, policy: p}", ()),
        ("generate={conditions: [{}]}", ("convert", "align")),
        ("generate={conditions: [{}], policy: sft, cells: c}", ("sft",)),
    ],
)
def test_only_stages_that_are_read_from_are_needed(section, needs):
    name = section.partition("=")[0]
    assert getattr(inference_job, f"{name}_needs")(kang(section)) == needs


def test_sections_follow_corpus_and_align_where_they_say_nothing():
    run = kang("embed={}", "annotate={}", "generate={conditions: [{}]}", "seed=5")
    assert run.embed.num_genes == run.annotate.num_genes == run.generate.num_genes == 80
    assert run.annotate.known_column == "cell_type"
    assert run.generate.max_tokens == 120
    controls = run.generate.controls
    assert (controls.cell_type_column, controls.condition_column, controls.control) == (
        "cell_type",
        "condition",
        "control",
    )
    assert (run.embed.seed, run.annotate.seed, run.generate.seed) == (5, 5, 5)
    assert run.embed_workers.num_workers == 1


def test_what_a_section_says_stays_and_other_cells_have_other_columns():
    run = kang(
        "embed={num_genes: 7}",
        "annotate={cells: c, num_genes: 9}",
        "generate={conditions: [{}], cells: c, max_tokens: 50}",
    )
    assert (run.embed.num_genes, run.annotate.num_genes, run.generate.num_genes) == (7, 9, 80)
    assert run.annotate.known_column is None
    assert run.generate.controls is None
    assert run.generate.max_tokens == 50


def test_texts_get_no_genes_and_a_run_may_have_no_corpus():
    assert kang("embed={texts: t.tsv}").embed.num_genes is None
    alone = {"name": "r", "embed": {"cells": "c", "policy": "p"}}
    assert with_corpus_defaults(alone) == alone
    assert RunConfig.model_validate(alone).embed.num_genes is None


def test_templates_of_the_corpus_are_those_of_its_own_cells():
    data = {
        "corpus": {"templates": {"cell_type_annotation": "a.yaml", "cell_generation": "g.yaml"}},
        "annotate": {},
        "generate": {},
    }
    filled = with_corpus_defaults(data)
    assert filled["annotate"]["templates"] == "a.yaml"
    assert filled["generate"]["templates"] == {"cell_generation": "g.yaml"}


def test_an_engine_worker_is_imported_without_numba():
    """vLLM's start on a CPU stumbles over numba, see `actors/rollout.py`."""
    code = "import sys, actors.rollout; sys.exit(bool({'numba', 'llvmlite'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=False)
    assert done.returncode == 0
