"""Tiers, donors, populations and export of a whole evaluation, on perturbed toy cells."""

from collections.abc import Mapping
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from c2s_rl.cells.programs import load_program
from c2s_rl.cells.sentence import parse_cell, write_sentence
from c2s_rl.data.prompt_set import PromptSet, read_prompts
from c2s_rl.errors import ConfigError, StageError
from c2s_rl.evaluation.cell_metrics import Metric
from c2s_rl.evaluation.report import RunInfo
from c2s_rl.evaluation.result import Evaluation, MethodResult
from c2s_rl.pipeline import convert, corpus
from c2s_rl.pipeline.evaluate import BootstrapConfig, EvaluateConfig, Sources, run, select_prompts
from c2s_rl.types import Completion, Group, PromptRecord

PROGRAM = "hallmark_interferon_alpha_response"
NUM_GENES = 12
RUN = RunInfo("toy", "Toy cells.", 0, "2026-01-31", {}, "program: toy")
CONFIG = EvaluateConfig.model_validate(
    {
        "program": PROGRAM,
        "num_prompts": 64,
        "samples_per_prompt": 1,
        "bootstrap": {"draws": 200},
        "report": {"umap_cells": 0},
        "population": {"min_cells": 4, "draws": 20},
    }
)


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two types, a control and two cytokines, six donors: 6 cells each; cytokines change genes."""
    rng = np.random.default_rng(0)
    symbols = [*load_program(PROGRAM).symbols[:8], *(f"G{i}" for i in range(12))]
    levels = {kind: rng.permutation(20) for kind in ("B", "T")}
    shifts = {"control": np.zeros(20), "IL4": rng.permutation(20), "IL6": rng.permutation(20)}
    labels = [
        (kind, cytokine, f"donor{donor}")
        for kind in levels
        for cytokine in shifts
        for donor in range(6)
        for _ in range(6)
    ]
    counts = np.array([rng.poisson(1 + levels[kind] + 2 * shifts[c]) for kind, c, _ in labels])
    adata = anndata.AnnData(
        counts.astype(np.float32),
        obs=pd.DataFrame(
            labels,
            columns=["cell_type", "cytokine", "donor"],
            index=[f"cell{i:03d}" for i in range(len(labels))],
        ),
        var=pd.DataFrame(index=symbols),
    )
    folder = tmp_path_factory.mktemp("toy")
    adata.write_h5ad(folder / "toy.h5ad")
    obs = ("cell_type", "cytokine", "donor")
    convert.run(convert.ConvertConfig(path=str(folder / "toy.h5ad"), obs=obs), folder / "cells")
    return folder / "cells"


@pytest.fixture(scope="module")
def prompt_set(cells: Path, tmp_path_factory: pytest.TempPathFactory) -> PromptSet:
    folder = tmp_path_factory.mktemp("toy") / "corpus"
    config = {
        "tasks": ["perturbation_response"],
        "condition_column": "cytokine",
        "control": "control",
        "donor_column": "donor",
        "num_genes": NUM_GENES,
        "split": {
            "test_fraction": 0.5,
            "tiers": [{"where": {"cell_type": ["B"], "cytokine": ["IL6"]}}],
        },
    }
    corpus.run(corpus.CorpusConfig.model_validate(config), cells, folder)
    return read_prompts(folder)


def answered(record: PromptRecord, prompt_set: PromptSet, text: str) -> Group:
    cell = parse_cell(text, prompt_set.vocabulary, is_truncated=False)
    completion = Completion(text, (1,), (0.0,), 0, is_truncated=False)
    return Group(record, (1,), (completion,), (cell,))


@pytest.fixture(scope="module")
def policies(prompt_set: PromptSet) -> Mapping[str, list[Group]]:
    """GRPO writes the target, SFT copies the control."""
    groups: dict[str, list[Group]] = {"SFT": [], "GRPO": []}
    for record in select_prompts(CONFIG, prompt_set).records_P:
        for name, genes in (("SFT", record.context_genes_K), ("GRPO", record.target_genes_K)):
            text = write_sentence(genes, prompt_set.vocabulary, NUM_GENES)
            groups[name].append(answered(record, prompt_set, text))
    return groups


def evaluate(
    prompt_set: PromptSet,
    cells: Path,
    output: Path,
    groups: Mapping[str, list[Group]],
    **changes: object,
) -> Evaluation:
    config = EvaluateConfig.model_validate({**CONFIG.model_dump(), **changes})
    return run(
        config,
        prompt_set=prompt_set,
        sources=Sources(cells),
        groups_by_policy=groups,
        run_info=RUN,
        output=output,
    )


@pytest.fixture(scope="module")
def evaluation(
    prompt_set: PromptSet,
    cells: Path,
    policies: Mapping[str, list[Group]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Evaluation:
    return evaluate(prompt_set, cells, tmp_path_factory.mktemp("out"), policies)


def by_name(evaluation: Evaluation) -> dict[str, MethodResult]:
    return {method.name: method for method in evaluation.methods}


def test_each_tier_is_the_mean_of_its_conditions(evaluation: Evaluation) -> None:
    assert evaluation.tier_of == {
        "B | IL4": "seen condition",
        "B | IL6": "unseen per cell type",
        "T | IL4": "seen condition",
        "T | IL6": "seen condition",
    }
    assert sum(evaluation.tiers.values()) == evaluation.num_prompts
    sft = by_name(evaluation)["SFT"]
    for key in (Metric.ALL_PEARSON, "scfid/all genes"):
        values = {name: found[key].mean for name, found in sft.per_condition.items()}
        unseen = values.pop("B | IL6")
        assert sft.per_tier["unseen per cell type"][key].mean == pytest.approx(unseen)
        expected = np.mean(list(values.values()))
        assert sft.per_tier["seen condition"][key].mean == pytest.approx(expected)


def test_donors_are_drawn_and_named(evaluation: Evaluation) -> None:
    assert evaluation.bootstrap_unit == "donor"
    assert evaluation.bootstrap_note == "6 of donor in the held-out prompts"
    assert by_name(evaluation)["SFT"].metrics[Metric.PROGRAM_TAU].num_units == 6


def test_populations_are_measured_for_every_method_that_is_one(evaluation: Evaluation) -> None:
    methods = by_name(evaluation)
    for distance in ("mmd", "energy", "wasserstein", "scfid"):
        for genes in ("all genes", "program genes"):
            key = f"{distance}/{genes}"
            value = {name: m.metrics[key].mean for name, m in methods.items() if key in m.metrics}
            assert set(value) == {"shuffled", "copy control", "SFT", "GRPO", "real cell"}
            # GRPO writes real cells; SFT and the baseline write control cells.
            assert value["GRPO"] < value["SFT"]
            assert value["real cell"] < value["copy control"]
            assert methods["mean cell"].not_applicable[key]
    assert methods["GRPO"].metrics["discrimination"].mean == 1.0
    assert methods["SFT"].metrics["discrimination"].mean < 1.0
    assert (
        methods["SFT"].metrics["changed_genes"].mean < methods["GRPO"].metrics["changed_genes"].mean
    )
    difference = evaluation.difference
    assert difference is not None
    change = difference.metrics["scfid/all genes"]
    assert change.high is not None
    assert change.high < 0
    start = methods["SFT"].metrics["scfid/all genes"].mean
    assert difference.gains["scfid/all genes"] == pytest.approx((change.mean or 0) / (start or 1))
    assert "scFID, all genes" in evaluation.verdict.price


def test_the_same_answers_give_the_same_numbers(
    evaluation: Evaluation,
    prompt_set: PromptSet,
    cells: Path,
    policies: Mapping[str, list[Group]],
    tmp_path: Path,
) -> None:
    backwards = {name: groups[::-1] for name, groups in policies.items()}
    assert evaluate(prompt_set, cells, tmp_path, backwards) == evaluation


def test_report_shows_tiers_and_populations(
    prompt_set: PromptSet, cells: Path, policies: Mapping[str, list[Group]], tmp_path: Path
) -> None:
    evaluate(
        prompt_set, cells, tmp_path, policies, export=True, bootstrap=BootstrapConfig(by="cell")
    )
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "By held-out tier" in html
    assert "Generated against real populations" in html
    assert "unseen per cell type" in html
    real = anndata.read_h5ad(tmp_path / "export" / "real.h5ad")
    predicted = anndata.read_h5ad(tmp_path / "export" / "pred_GRPO.h5ad")
    assert set(real.obs["target_gene"]) == {"IL4", "IL6", "non-targeting"}
    assert set(predicted.obs["celltype"]) == {"B", "T"}
    # GRPO's answers are the targets: each is a real cell of the other file.
    rows = {tuple(row) for row in real.X.toarray()}
    assert {tuple(row) for row in predicted.X.toarray()} <= rows


def test_populations_can_be_left_out(
    prompt_set: PromptSet, cells: Path, policies: Mapping[str, list[Group]], tmp_path: Path
) -> None:
    evaluation = evaluate(prompt_set, cells, tmp_path, policies, population=None)
    assert evaluation.population is None
    assert not any("/" in key for key in evaluation.metric_info)
    skipped = evaluate(
        prompt_set, cells, tmp_path, policies, population={"min_cells": 90, "draws": 0}
    )
    assert skipped.population is not None
    assert set(skipped.population.skipped) == set(skipped.conditions)
    assert by_name(skipped)["SFT"].metrics.keys() == by_name(evaluation)["SFT"].metrics.keys()


def test_what_to_draw_must_be_a_column_that_divides(
    prompt_set: PromptSet, cells: Path, policies: Mapping[str, list[Group]], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"bootstrap\.by must be one of .*did you mean 'donor'"):
        evaluate(prompt_set, cells, tmp_path, policies, bootstrap=BootstrapConfig(by="donors"))


def test_cells_without_controls_are_not_exported(
    prompt_set: PromptSet, cells: Path, policies: Mapping[str, list[Group]], tmp_path: Path
) -> None:
    config = dict(prompt_set.manifest.config) | {"condition_column": None}
    plain = PromptSet(prompt_set.records, prompt_set.manifest.model_copy(update={"config": config}))
    with pytest.raises(StageError, match="needs held-out prompts with control cells"):
        evaluate(plain, cells, tmp_path, policies, export=True)
