"""Cells read by row, and groups of them, against the whole table."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2s_rl.data.cell_groups import group_codes, matching_rows, sample_rows
from c2s_rl.data.cell_reader import CellReader
from c2s_rl.data.shards import read_cells, read_manifest
from c2s_rl.errors import DataError, MissingFileError
from tests.pipeline.embed_cases import make_adata, prepare

NUM = 50


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Cells in three parts of two row groups each, with labels that are missing here and there."""
    cells = prepare(tmp_path_factory.mktemp("reader"), num_cells=NUM).cells
    manifest = json.loads((cells / "manifest.json").read_text())
    whole = pa.concat_tables([pq.read_table(cells / part) for part in manifest["parts"]])
    donors = [None if i % 7 == 0 else d for i, d in enumerate(whole["donor"].to_pylist())]
    place = whole.schema.get_field_index("donor")
    column = pa.array(donors, pa.string()).dictionary_encode()
    whole = whole.set_column(place, "donor", column)
    for part in manifest["parts"]:
        (cells / part).unlink()
    manifest["parts"] = [f"p{i}.parquet" for i in range(3)]
    for i, name in enumerate(manifest["parts"]):
        pq.write_table(whole.slice(i * 20, 20), cells / name, row_group_size=11)
    (cells / "manifest.json").write_text(json.dumps(manifest))
    return cells


@given(rows=st.lists(st.integers(0, NUM - 1), max_size=12))
def test_rows_are_those_of_the_whole_table_in_the_order_asked_for(folder, rows):
    whole = read_cells(folder, ["cell_type", "donor"])
    reader = CellReader(folder)
    assert len(reader) == NUM
    found = reader.read(np.array(rows, dtype=np.int64), ["donor", "cell_type"], with_values=True)
    assert found.cell_ids == tuple(whole.cell_ids[row] for row in rows)
    for name in ("donor", "cell_type"):
        assert found.obs[name].tolist() == [whole.obs[name][row] for row in rows]
    for i, row in enumerate(rows):
        np.testing.assert_array_equal(found.genes_of(i), whole.genes_of(row))
        np.testing.assert_array_equal(found.values_of(i), whole.values_of(row))


def test_labels_of_all_cells_are_codes_of_sorted_categories(folder):
    labels = CellReader(folder).labels("donor")
    assert labels.categories == ("d1", "d2")
    whole = read_cells(folder, ["donor"]).obs["donor"]
    assert [(*labels.categories, "")[code] for code in labels.codes_C.tolist()] == whole.tolist()


def test_groups_are_combinations_that_occur_without_missing_labels(folder):
    codes, groups = group_codes(CellReader(folder), ["cell_type", "donor"])
    assert groups == [("B cell", "d1"), ("B cell", "d2"), ("T cell", "d1"), ("T cell", "d2")]
    obs = make_adata(NUM).obs
    for row in range(NUM):
        expected = -1 if row % 7 == 0 else groups.index(tuple(obs.iloc[row]))
        assert codes[row] == expected


def test_samples_take_neighbours_of_one_group_and_count_the_rest(folder):
    reader = CellReader(folder)
    sampled = sample_rows(reader, ["cell_type", "donor"], 4)
    codes, groups = group_codes(reader, ["cell_type", "donor"])
    used = sampled.rows_S_k.ravel().tolist()
    assert len(set(used)) == len(used)
    assert sampled.rows_S_k[:, 0].tolist() == sorted(sampled.rows_S_k[:, 0].tolist())
    for rows, labels in zip(sampled.rows_S_k, sampled.labels, strict=True):
        assert {groups[codes[row]] for row in rows.tolist()} == {labels}
    assert sampled.num_unlabelled == 8  # 0, 7, ..., 49
    assert len(used) + sampled.num_left_over + sampled.num_unlabelled == NUM
    assert len(set(sampled.names)) == len(sampled.names)


def test_rows_match_every_named_column(folder):
    reader = CellReader(folder)
    rows = matching_rows(reader, {"cell_type": ["B cell"], "donor": ["d1", "d2"]})
    assert rows.tolist() == [row for row in range(0, NUM, 2) if row % 7]
    assert matching_rows(reader, {}).tolist() == list(range(NUM))
    with pytest.raises(DataError, match="a label of donor must be one of 'd1', 'd2', got 'd3'"):
        matching_rows(reader, {"donor": ["d3"]})


def test_what_cannot_be_read_is_named(folder, tmp_path):
    reader = CellReader(folder)
    with pytest.raises(DataError, match="did you mean 'donor'"):
        reader.read(np.array([0]), ["doner"])
    manifest = read_manifest(folder)
    text = manifest.model_copy(update={"num_cells": NUM + 1}).model_dump_json()
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(MissingFileError, match=r"got no .*p0\.parquet"):
        CellReader(tmp_path)
    for part in manifest.parts:
        (tmp_path / part).write_bytes((folder / part).read_bytes())
    with pytest.raises(DataError, match=r"hold the 51 cells of the manifest, got 50"):
        CellReader(tmp_path)
    (tmp_path / "p0.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(DataError, match=r"must be whole Parquet, got .*p0\.parquet"):
        CellReader(tmp_path)
    bare = pq.read_table(folder / "p0.parquet").drop_columns(["values"])
    pq.write_table(bare, tmp_path / "p0.parquet", row_group_size=11)
    (tmp_path / "manifest.json").write_text(manifest.model_dump_json())
    with pytest.raises(DataError, match="must have the column 'values'"):
        CellReader(tmp_path).read(np.array([0]), with_values=True)
