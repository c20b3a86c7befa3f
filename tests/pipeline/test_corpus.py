"""The stage on real cells: Kang et al. 2018, PBMC with and without IFN-beta."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from c2s_rl.data.prompt_set import read_prompts
from c2s_rl.data.values import Values
from c2s_rl.errors import DataError, StageError
from c2s_rl.pipeline import convert, corpus
from c2s_rl.pipeline.corpus import CorpusConfig
from c2s_rl.types import Split, Task

CONFIG = CorpusConfig.model_validate(
    {
        "tasks": ["perturbation_response", "cell_generation", "cell_type_annotation"],
        "condition_column": "condition",
        "control": "control",
        "num_genes": 80,
        "reward_target": "pseudobulk",
        "split": {"holdout": {"cell_type": ["CD16 Mono"]}},
    }
)


@pytest.fixture(scope="module")
def cells(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kang") / "cells"
    config = convert.ConvertConfig(
        path=str(data_dir / "kang" / "kang_ifnb_2000x13215.h5ad"),
        values=Values.LOG1P,
        obs=("cell_type", "condition"),
    )
    convert.run(config, folder)
    return folder


@pytest.fixture(scope="module")
def prompts(cells: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kang") / "corpus"
    corpus.run(CONFIG, cells, folder)
    return folder


def test_numbers_of_prompts_follow_from_the_cells(prompts: Path) -> None:
    # 1,000 control and 1,000 stimulated cells. CD16 Mono: 73 control, 80 stimulated; Eryth: 5
    # stimulated without a control (see the data's README and obs).
    read = read_prompts(prompts)
    count = {
        (task, split): sum(r.task is task and r.split is split for r in read.records)
        for task in CONFIG.tasks
        for split in Split
    }
    assert count == {
        (Task.PERTURBATION_RESPONSE, Split.TRAIN): 1000 - 80 - 5,
        (Task.PERTURBATION_RESPONSE, Split.TEST): 80,
        (Task.CELL_GENERATION, Split.TRAIN): 1000 - 73,
        (Task.CELL_GENERATION, Split.TEST): 73,
        (Task.CELL_TYPE_ANNOTATION, Split.TRAIN): 2000 - 153,
        (Task.CELL_TYPE_ANNOTATION, Split.TEST): 153,
    }
    assert read.manifest.dropped["no_control"] == 5
    assert read.manifest.num_prompts(Split.TEST) == 80 + 73 + 153


def test_held_out_cell_type_is_nowhere_in_training(prompts: Path) -> None:
    train = read_prompts(prompts, split=Split.TRAIN).records
    test = read_prompts(prompts, split=Split.TEST).records
    assert not any("CD16 Mono" in r.prompt + r.target + r.condition for r in train)
    assert {r.condition.split(" | ")[0] for r in test} == {"CD16 Mono"}
    used = [{r.context_id for r in s} | {r.target_id for r in s} for s in (train, test)]
    assert used[0] & used[1] <= {""}


def test_interferon_shows_in_the_pseudobulk_of_stimulated_cells(prompts: Path) -> None:
    read = read_prompts(prompts, split=Split.TEST, task=Task.PERTURBATION_RESPONSE)
    isg15 = read.vocabulary.index_of("ISG15")
    for record in read.records:
        stimulated = int(np.flatnonzero(record.target_genes_K == isg15)[0])
        assert stimulated < 20
    # Controls rank it far lower: over 100 in most cells that have it at all.
    ranks = [np.flatnonzero(r.context_genes_K == isg15) for r in read.records]
    assert np.median([rank[0] if len(rank) else 10_000 for rank in ranks]) > 30
    # One condition on one side: one ranking for all its prompts, of all genes it expresses.
    assert len({r.target_genes_K.tobytes() for r in read.records}) == 1
    assert len(read.records[0].target_genes_K) > 4_000


def test_two_runs_give_equal_bytes(cells: Path, prompts: Path, tmp_path: Path) -> None:
    again = tmp_path / "corpus"
    corpus.run(CONFIG, cells, again)
    names = sorted(path.name for path in prompts.iterdir())
    assert names == sorted(path.name for path in again.iterdir())
    for name in names:
        assert (again / name).read_bytes() == (prompts / name).read_bytes()


def test_manifest_tells_where_the_prompts_come_from(cells: Path, prompts: Path) -> None:
    manifest = json.loads((prompts / "manifest.json").read_text())
    assert manifest["config"] == CONFIG.model_dump(mode="json")
    assert manifest["organism"] == "Homo sapiens"
    assert len(manifest["symbols"]) == 13_215
    hashes = json.loads((cells / "hashes.json").read_text())["files"]
    assert manifest["cells_manifest_sha256"] == hashes["manifest.json"]["sha256"]
    assert all(len(phrasings) >= 5 for phrasings in manifest["phrasings"].values())


def test_unknown_column_names_the_nearest(cells: Path, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"cell_type_column": "celltype"})
    with pytest.raises(DataError, match=r"got 'celltype'.*did you mean 'cell_type'"):
        corpus.run(config, cells, tmp_path / "corpus")
    assert not (tmp_path / "corpus").exists()


def test_folder_of_the_users_own_is_not_replaced(
    cells: Path, prompts: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "corpus"
    mine.mkdir()
    (mine / "thesis.txt").write_text("precious")
    with pytest.raises(
        StageError, match=r"must be new, empty or hold manifest\.json and hashes\.json, got"
    ):
        corpus.run(CONFIG, cells, mine)
    assert (mine / "thesis.txt").read_text() == "precious"
    # An earlier output is.
    shutil.copytree(prompts, tmp_path / "old")
    config = CONFIG.model_copy(update={"tasks": (Task.CELL_TYPE_ANNOTATION,)})
    corpus.run(config, cells, tmp_path / "old")
    assert {r.task for r in read_prompts(tmp_path / "old").records} == {Task.CELL_TYPE_ANNOTATION}
