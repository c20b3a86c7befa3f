"""Which files a conversion reads, and when one is another."""

import os

import anndata
import numpy as np
import pandas as pd
import pytest

from c2s_rl.data.shards import CellManifest, read_manifest
from c2s_rl.pipeline.convert import ConvertConfig, run
from c2s_rl.pipeline.convert_inputs import changed_inputs, inputs_of, versions
from c2s_rl.pipeline.convert_plan import work_key


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Two cells, their labels in a table, and a gene list that is named by a variable."""
    monkeypatch.setenv("LISTS", str(tmp_path))
    anndata.AnnData(
        np.array([[1, 2], [3, 0]], dtype=np.float32),
        obs=pd.DataFrame(index=["c0", "c1"]),
        var=pd.DataFrame(index=["A", "B"]),
    ).write_h5ad(tmp_path / "a.h5ad")
    (tmp_path / "obs.tsv").write_text("cell_id\tdonor\nc0\td0\nc1\td1\n", encoding="utf-8")
    (tmp_path / "genes.txt").write_text("A\nB\n", encoding="utf-8")
    return ConvertConfig(
        path=str(tmp_path / "a.h5ad"),
        tables={"obs": str(tmp_path / "obs.tsv")},
        obs=("donor",),
        genes=("${LISTS}/genes.txt",),
    )


def converted(config: ConvertConfig, tmp_path) -> CellManifest:
    run(config, tmp_path / "cells")
    return read_manifest(tmp_path / "cells")


@pytest.mark.parametrize("name", ["a.h5ad", "obs.tsv", "genes.txt"])
def test_work_on_another_version_of_any_file_does_not_go_on(config, tmp_path, name):
    key, before = work_key(config), versions(config)
    os.utime(tmp_path / name, (0, 0))
    after = versions(config)
    assert [entry for entry in before if before[entry] != after[entry]] == [
        entry for entry in before if entry.endswith(name)
    ]
    assert work_key(config) != key


def test_files_are_named_as_the_config_names_them_and_shipped_programs_are_none(config, tmp_path):
    names = [str(tmp_path / "a.h5ad"), str(tmp_path / "obs.tsv"), "${LISTS}/genes.txt"]
    programs = (*config.genes, "hallmark_apoptosis")
    assert [item.name for item in inputs_of(config.model_copy(update={"genes": programs}))] == names
    assert list(versions(config)) == names


def test_a_file_that_is_gone_has_no_version(config, tmp_path, monkeypatch):
    (tmp_path / "obs.tsv").unlink()
    monkeypatch.delenv("LISTS")
    assert list(versions(config)) == [str(tmp_path / "a.h5ad")]


def test_only_other_contents_are_a_change(config, tmp_path):
    manifest = converted(config, tmp_path)
    names = list(versions(config))
    assert changed_inputs(config, manifest, names) == []
    (tmp_path / "genes.txt").write_text("B\nA\n", encoding="utf-8")
    (tmp_path / "obs.tsv").write_text("cell_id\tdonor\nc0\td0\nc1\td2\n", encoding="utf-8")
    assert changed_inputs(config, manifest, names) == names[1:]
    assert changed_inputs(config, manifest, names[:1]) == []  # only suspects are read


def test_a_matrix_stands_for_the_files_beside_it(tmp_path):
    folder = tmp_path / "mtx"
    folder.mkdir()
    (folder / "matrix.mtx").write_text(
        "%%MatrixMarket matrix coordinate integer general\n1 1 1\n1 1 3\n", encoding="utf-8"
    )
    (folder / "barcodes.tsv").write_text("AAAC-1\n", encoding="utf-8")
    (folder / "genes.tsv").write_text("ENSG1\tGENE1\n", encoding="utf-8")
    config = ConvertConfig(path=str(folder / "matrix.mtx"))
    manifest = converted(config, tmp_path)
    before = versions(config)
    (folder / "barcodes.tsv").write_text("AAAG-1\n", encoding="utf-8")
    os.utime(folder / "barcodes.tsv", (0, 0))
    assert versions(config) != before
    assert changed_inputs(config, manifest, before) == [str(folder / "matrix.mtx")]
