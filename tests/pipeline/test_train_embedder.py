"""The stage on real cells: Kang et al. 2018; a small model for a few steps."""

import json

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from c2s_rl.checkpoint import verify
from c2s_rl.data.prompt_set import read_prompts
from c2s_rl.data.shards import read_cells, read_manifest
from c2s_rl.data.values import Values
from c2s_rl.errors import DataError, StageError
from c2s_rl.evaluation.real_cells import gather_real_cells
from c2s_rl.models.cell_embedder import CellEmbedderConfig, load_cell_embedder
from c2s_rl.models.scgpt_config import EmbedderConfig
from c2s_rl.pipeline import convert, corpus, train_embedder
from c2s_rl.runlog import read_metrics
from c2s_rl.types import Split
from tests.models.scgpt_folders import TOKENS

NUM_GENES = 40


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Small matrices: a second thread would only wait for the first."""
    num = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num)


CONFIG = EmbedderConfig(
    embsize=32, nheads=4, d_hid=32, nlayers=1, dropout=0.0, num_steps=300, batch_size=32, lr=6e-3,
    eval_every=100,
)  # fmt: skip


@pytest.fixture(scope="module")
def cells(data_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("kang") / "cells"
    config = convert.ConvertConfig(
        path=str(data_dir / "kang" / "kang_ifnb_2000x13215.h5ad"),
        values=Values.LOG1P,
        obs=("cell_type", "condition"),
    )
    convert.run(config, folder)
    return folder


@pytest.fixture(scope="module")
def prompts(cells, tmp_path_factory):
    folder = tmp_path_factory.mktemp("kang") / "corpus"
    config = corpus.CorpusConfig.model_validate(
        {
            "tasks": ["perturbation_response"],
            "condition_column": "condition",
            "control": "control",
            "num_genes": NUM_GENES,
            "split": {"test_fraction": 0.25},
        }
    )
    corpus.run(config, cells, folder)
    return folder


@pytest.fixture(scope="module")
def trained(cells, prompts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("kang") / "embedder"
    steps = []
    manifest = train_embedder.run(
        CONFIG, cells, prompts, folder, on_step=lambda step, _: steps.append(step)
    )
    assert steps == list(range(1, 301))
    return folder, manifest


def test_masked_bins_are_guessed_better_than_by_the_mean(trained):
    folder, manifest = trained
    assert manifest.held_out_mse < 0.6 * manifest.mean_bin_mse
    assert manifest.held_out_mse_from_cls < 0.7 * manifest.mean_bin_mse
    assert manifest.gene_mean_mse < manifest.mean_bin_mse
    metrics = read_metrics(folder / "metrics.jsonl")
    assert [m["step"] for m in metrics if "held_out" in m] == [100, 200, 300]
    assert metrics[-1]["held_out"] == manifest.held_out_mse < metrics[99]["held_out"]
    verify(folder)


def test_only_cells_of_training_prompts_are_learnt_from(trained, cells, prompts):
    _, manifest = trained
    records = [r for r in read_prompts(prompts).records if r.split is Split.TRAIN]
    ids = {cell for r in records for cell in (r.target_id, r.context_id)}
    assert manifest.num_cells + manifest.num_held_out == len(ids)
    assert manifest.num_held_out == round(0.1 * len(ids))
    table = read_cells(cells)
    genes = {
        gene
        for row, name in enumerate(table.cell_ids)
        if name in ids
        for gene in table.genes_of(row)[:NUM_GENES].tolist()
    }
    assert manifest.num_tokens == len(genes) + 3


def neighbours_agree(embedder, cells, prompts):
    """Share of held-out cells whose 10 nearest training cells vote for type and condition."""
    table, read = read_cells(cells, ("cell_type", "condition")), read_prompts(prompts)
    real = gather_real_cells(read.records, table, len(read.vocabulary))
    labels = np.char.add(table.obs["cell_type"], table.obs["condition"])
    train = np.array(real.train_rows)
    test = np.array(sorted(set(range(len(table))) - set(real.train_rows)))
    embedded = embedder.embed([table.genes_of(row)[:NUM_GENES] for row in range(len(table))])
    votes = KNeighborsClassifier(10).fit(embedded[train], labels[train])
    return votes.score(embedded[test], labels[test])


def test_training_brings_cells_of_a_kind_together(trained, cells, prompts, tmp_path):
    folder, _ = trained
    manifest = read_manifest(cells)
    untrained = tmp_path / "untrained"
    one_step = CONFIG.model_copy(update={"num_steps": 1, "lr": 1e-12})
    train_embedder.run(one_step, cells, prompts, untrained)
    before, after = (
        neighbours_agree(
            load_cell_embedder(
                CellEmbedderConfig(kind="scgpt", folder=path),
                manifest.vocabulary,
                manifest.rank_model,
            ),
            cells,
            prompts,
        )
        for path in (untrained, folder)
    )
    assert after > before + 0.1


def test_the_same_seed_trains_the_same_bits(cells, prompts, tmp_path):
    config = CONFIG.model_copy(update={"num_steps": 3, "eval_every": 3})
    for name in ("a", "b"):
        train_embedder.run(config, cells, prompts, tmp_path / name)
    other = config.model_copy(update={"seed": 1})
    train_embedder.run(other, cells, prompts, tmp_path / "c")
    first, again, third = ((tmp_path / n / "best_model.pt").read_bytes() for n in "abc")
    assert first == again != third


def test_nothing_is_left_of_a_training_that_broke_off(cells, prompts, tmp_path):
    def stop(step, figures):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_embedder.run(CONFIG, cells, prompts, tmp_path / "embedder", on_step=stop)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_no_stage_wrote_is_left_alone(cells, prompts, tmp_path):
    (tmp_path / "vocab.json").write_text(json.dumps(TOKENS))
    with pytest.raises(StageError, match="an output folder must be new, empty"):
        train_embedder.run(CONFIG, cells, prompts, tmp_path)


def test_too_few_cells_are_an_error(cells, prompts, tmp_path):
    config = CONFIG.model_copy(update={"eval_fraction": 1e-6})
    with pytest.raises(DataError, match=r"cells to learn from and cells kept out, got \d+ and 0"):
        train_embedder.run(config, cells, prompts, tmp_path / "embedder")
