"""Shards as the cell2sentence package's own data set, read by the package itself."""

import json
from collections import OrderedDict

import anndata
import datasets
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from c2s_rl.data.shards import read_manifest
from c2s_rl.errors import DataError, StageError
from c2s_rl.pipeline import export_c2s
from c2s_rl.pipeline.convert import ConvertConfig
from c2s_rl.pipeline.convert import run as convert
from c2s_rl.pipeline.convert_work import PART_ROWS
from tests.benchmarks.peers import load_cell2sentence
from tests.pipeline.shard_cases import make_cells, toy_counts


def through_us(tmp_path, adata, labels):
    """Convert a file with the package's ties and case, and export it."""
    adata.write_h5ad(tmp_path / "input.h5ad")
    config = ConvertConfig(
        path=str(tmp_path / "input.h5ad"),
        values="log1p",
        obs=labels,
        gene_case="upper",
        tie_break="c2s",
    )
    convert(config, tmp_path / "cells")
    export_c2s.run(tmp_path / "cells", tmp_path / "c2s")
    vocabulary = json.loads((tmp_path / "c2s" / "vocabulary.json").read_text())
    return datasets.load_from_disk(str(tmp_path / "c2s")), OrderedDict(vocabulary)


def assert_the_same(tmp_path, adata, labels, capfd):
    """The package's data set of the same cells: sentences, names, labels and vocabulary."""
    ours, vocabulary = through_us(tmp_path, adata, labels)
    peer = load_cell2sentence("csdata").CSData
    theirs, their_vocabulary = peer.adata_to_arrow(adata, label_col_names=list(labels))
    capfd.readouterr()  # its bars and warnings
    assert ours.column_names == [*theirs.column_names, "organism"]
    for name in theirs.column_names:
        assert list(ours[name]) == list(theirs[name])
    assert list(vocabulary.items()) == [(g, int(n)) for g, n in their_vocabulary.items()]
    return ours, vocabulary


def test_a_tied_random_matrix_reads_word_for_word(tmp_path, capfd):
    counts = np.random.default_rng(1).poisson(1.0, size=(80, 60))
    counts[:, 0] += 1  # no empty cell: the package keeps those, we count and drop them
    names = [f"{'Gene' if i % 2 else 'LOC'}{i}orf" for i in range(60)]
    obs = pd.DataFrame({"cell_type": ["T", "B"] * 40}, index=[f"c{i}" for i in range(80)])
    matrix = sparse.csr_matrix(np.log1p(counts / 3).astype(np.float32))
    adata = anndata.AnnData(matrix, obs=obs, var=pd.DataFrame(index=names))
    assert_the_same(tmp_path, adata, ("cell_type",), capfd)


def test_the_random_stream_goes_on_from_part_to_part(tmp_path, capfd):
    num_cells = PART_ROWS + 300
    counts = np.random.default_rng(2).poisson(1.0, size=(num_cells, 12))
    counts[:, 0] += 1
    obs = pd.DataFrame(index=[f"c{i}" for i in range(num_cells)])
    matrix = sparse.csr_matrix(np.log1p(counts / 3).astype(np.float32))
    var = pd.DataFrame(index=[f"G{i}" for i in range(12)])
    adata = anndata.AnnData(matrix, obs=obs, var=var)
    assert_the_same(tmp_path, adata, (), capfd)


def test_real_cells_read_word_for_word_and_load_into_the_package(tmp_path, data_dir, capfd):
    adata = anndata.read_h5ad(data_dir / "kang" / "kang_ifnb_2000x13215.h5ad")[:150].copy()
    labels = ("cell_type", "condition")
    ours, vocabulary = assert_the_same(tmp_path, adata, labels, capfd)
    peer = load_cell2sentence("csdata").CSData
    data = peer.csdata_from_arrow(ours, vocabulary, str(tmp_path / "saved"), "kang")
    assert list(data.get_sentence_strings()) == list(ours["cell_sentence"])
    # In place, without saving it again.
    in_place = peer(vocab=vocabulary, data_path=str(tmp_path / "c2s"))
    assert list(in_place.get_sentence_strings()) == list(ours["cell_sentence"])
    formatter = load_cell2sentence("prompt_formatter").C2SPromptFormatter(
        "cell_type_prediction", top_k_genes=20
    )
    prompts = formatter.format_hf_ds(ours)
    assert list(prompts["response"]) == [f"{label}." for label in ours["cell_type"]]


def test_missing_labels_are_null_and_the_organism_is_added(tmp_path):
    cells = make_cells(tmp_path, organism="Mus musculus")
    exported = export_c2s.run(cells, tmp_path / "c2s")
    assert exported.columns == ("cell_name", "cell_sentence", "kind", "organism")
    rows = datasets.load_from_disk(str(tmp_path / "c2s"))
    assert rows["kind"][0] is None
    assert set(rows["organism"]) == {"Mus musculus"}
    assert rows.num_rows == exported.num_cells == 50


def test_the_vocabulary_counts_the_cells_of_each_gene(tmp_path):
    cells = make_cells(tmp_path)
    export_c2s.run(cells, tmp_path / "c2s")
    vocabulary = json.loads((tmp_path / "c2s" / "vocabulary.json").read_text())
    assert list(vocabulary) == list(read_manifest(cells).symbols)
    assert list(vocabulary.values()) == np.count_nonzero(toy_counts(), axis=0).tolist()


def test_symbols_in_lower_case_are_said(tmp_path, caplog):
    export_c2s.run(make_cells(tmp_path, names=[f"g{i}" for i in range(20)]), tmp_path / "c2s")
    assert "20 of 20 symbols" in caplog.text
    assert "convert with gene_case: upper" in caplog.text


def test_labels_that_the_package_reserves_are_refused(tmp_path):
    cells = make_cells(tmp_path, combine={"cell_name": ("kind",)})
    with pytest.raises(DataError, match="which cell2sentence reserves, got cell_name in"):
        export_c2s.run(cells, tmp_path / "c2s")
    assert not (tmp_path / "c2s").exists()


def test_a_folder_of_other_things_is_left_alone(tmp_path):
    (tmp_path / "c2s").mkdir()
    (tmp_path / "c2s" / "thesis.txt").write_text("mine")
    with pytest.raises(StageError, match=r"must be new, empty or hold manifest\.json"):
        export_c2s.run(make_cells(tmp_path), tmp_path / "c2s")
    assert [file.name for file in (tmp_path / "c2s").iterdir()] == ["thesis.txt"]


def test_the_cells_that_are_read_are_not_replaced(tmp_path):
    cells = make_cells(tmp_path)
    before = {file.name: file.read_bytes() for file in cells.iterdir()}
    with pytest.raises(StageError, match="must be another folder than the cells"):
        export_c2s.run(cells, cells)
    (tmp_path / "manifest.json").write_text("{}")  # as a run's own folder has one
    with pytest.raises(StageError, match=r"must be new, empty or hold manifest\.json and hashes"):
        export_c2s.run(cells, tmp_path)
    assert {file.name: file.read_bytes() for file in cells.iterdir()} == before
