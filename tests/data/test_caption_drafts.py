"""Captions of clusters and summaries of studies: whose cells are shown, which text answers."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from c2s_rl.data.cell_source import TableSource
from c2s_rl.data.corpus import Corpus, build_corpus
from c2s_rl.data.corpus_config import CorpusConfig
from c2s_rl.errors import DataError
from c2s_rl.prompts.render import load_all_templates
from c2s_rl.types import Split, Task

MakeSource = Callable[[Sequence[tuple[str, str, str, str]]], TableSource]
# Toy columns: cell type as cluster, condition as tissue, donor as study.
CELLS = [
    (f"{cluster}-{tissue}-{study}-{i}", cluster, tissue, study)
    for cluster in ("0", "1", "2")
    for tissue in ("blood", "liver")
    for study in ("s1", "s2")
    for i in range(6)
]
CAPTIONS = "0\tNaive T cells.\n0\tResting helper cells.\n1\tB cells.\n"
SUMMARIES = "s1\tA study of blood.\ns1\tBlood, again.\ns2\tAnother study.\n"


def build(source: TableSource, **data: object) -> Corpus:
    config = CorpusConfig.model_validate({"num_genes": 3, **data})
    return build_corpus(source, config, load_all_templates(config.tasks, {}))


def captions(path: Path, text: str = CAPTIONS, **options: object) -> dict[str, object]:
    path.write_text(text, encoding="utf-8")
    section = {"path": str(path), "cluster_column": "cell_type", **options}
    return {"tasks": [Task.CLUSTER_CAPTIONING], "captions": section}


def test_two_cells_of_a_cluster_are_captioned(source_of: MakeSource, tmp_path: Path) -> None:
    settings = captions(tmp_path / "captions.tsv", draws=20)
    corpus = build(source_of(CELLS), **settings, split={"test_fraction": 0.3})
    # 2 captioned clusters on 2 sides.
    assert len(corpus.records) == 2 * 2 * 20
    answers: dict[str, set[str]] = {"0": set(), "1": set()}
    for record in corpus.records:
        cluster = record.condition
        assert len(set(record.context_ids)) == 2
        assert {cell.split("-")[0] for cell in record.context_ids} == {cluster}
        assert "Cell 2: " in record.prompt
        assert (record.target_ids, record.target_genes_K.tolist()) == ((), [])
        answers[cluster].add(record.target)
    assert answers == {"0": {" Naive T cells.", " Resting helper cells."}, "1": {" B cells."}}
    assert corpus.dropped["no_caption"] == 24  # the cells of cluster 2
    sides = [{c for r in corpus.records if r.split is s for c in r.context_ids} for s in Split]
    assert not sides[0] & sides[1]


def test_a_held_out_cluster_is_tested_only(source_of: MakeSource, tmp_path: Path) -> None:
    settings = captions(tmp_path / "captions.tsv", draws=3)
    corpus = build(source_of(CELLS), **settings, split={"holdout": {"cell_type": ["1"]}})
    assert {(r.condition, r.split) for r in corpus.records} == {
        ("0", Split.TRAIN),
        ("1", Split.TEST),
    }


def test_captions_of_other_clusters_are_counted_and_named(
    source_of: MakeSource, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = captions(tmp_path / "c.tsv", f"{CAPTIONS}7\tNobody.\n", cells_per_caption=24)
    cells = [*CELLS, ("x", "", "blood", "s1"), ("y", "3", "blood", "s1")]
    corpus = build(source_of([c for c in cells if c[1] != ""]), **settings)
    assert corpus.dropped["captions_without_cells"] == 1
    assert "captions of clusters that no cell of obs cell_type is of: '7'" in caplog.text
    # 24 cells are all of a cluster.
    assert all(len(set(record.context_ids)) == 24 for record in corpus.records)
    few = captions(tmp_path / "c.tsv", f"{CAPTIONS}3\tOne cell.\n")
    assert build(source_of(cells), **few).dropped["too_few_cells_for_caption"] == 10


def test_captions_of_no_cluster_of_the_cells_are_refused(
    source_of: MakeSource, tmp_path: Path
) -> None:
    settings = captions(tmp_path / "c.tsv", "cluster 0\tT cells\n")
    message = "a cluster of obs cell_type must be one of '0', '1', '2', got 'cluster 0' in a table"
    with pytest.raises(DataError, match=re.escape(message)):
        build(source_of(CELLS), **settings)


def interpretations(folder: Path, text: str = SUMMARIES, **multi_cell: object) -> dict[str, object]:
    path = folder / "summaries.tsv"
    path.write_text(text, encoding="utf-8")
    return {
        "tasks": [Task.DATASET_INTERPRETATION],
        "interpretations": {"path": str(path)},
        "multi_cell": {
            "cells_per_sample": [3, 5],
            "samples_per_group": 8,
            "tissue_column": "condition",
            "dataset_column": "donor",
            **multi_cell,
        },
    }


def test_cells_of_one_tissue_and_study_are_summarised(
    source_of: MakeSource, tmp_path: Path
) -> None:
    corpus = build(source_of(CELLS), **interpretations(tmp_path))
    assert len(corpus.records) == 2 * 2 * 8
    answers: dict[str, set[str]] = {"s1": set(), "s2": set()}
    for record in corpus.records:
        assert 3 <= len(set(record.context_ids)) == len(record.context_ids) <= 5
        shared = {tuple(cell.split("-")[1:3]) for cell in record.context_ids}
        assert len(shared) == 1
        assert next(iter(shared))[1] == record.condition
        answers[record.condition].add(record.target)
    assert answers == {"s1": {" A study of blood.", " Blood, again."}, "s2": {" Another study."}}


def test_one_study_needs_no_column(source_of: MakeSource, tmp_path: Path) -> None:
    settings = interpretations(tmp_path, "s1\tThe study.\n", dataset_column=None)
    corpus = build(source_of(CELLS), **settings)
    assert {record.target for record in corpus.records} == {" The study."}
    assert {record.condition for record in corpus.records} == {"blood", "liver"}


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (SUMMARIES, {"dataset_column": None}, "need multi_cell.dataset_column, got 's1', 's2' in"),
        ("s1\tA study.\n", {}, "a study of obs donor must be one of 's1', got 's2' in"),
    ],
)
def test_cells_of_a_study_without_summary_are_refused(
    source_of: MakeSource, tmp_path: Path, text: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        build(source_of(CELLS), **interpretations(tmp_path, text, **options))
