"""Tables of cells: what is a label, a gene, a row name; blocks of any size; sides tables."""

import gzip

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from c2s_rl.data import table_read
from c2s_rl.data.source import SourceConfig, open_source
from c2s_rl.errors import DataError, MissingFileError


def read(path, scratch, **options):
    """Cells, genes, dense values and labels."""
    with open_source(SourceConfig(path=str(path), **options), scratch) as cells:
        dense = np.zeros(cells.matrix.shape)
        for chunk in cells.chunks(2):
            for row in range(len(chunk.indptr) - 1):
                entries = slice(chunk.indptr[row], chunk.indptr[row + 1])
                dense[chunk.start + row, chunk.columns[entries]] = chunk.values[entries]
        num_cells = len(cells.cell_ids)
        labels = {name: column.read(0, num_cells).tolist() for name, column in cells.obs.items()}
        return cells.cell_ids.read(0, num_cells).tolist(), cells.var_names, dense, labels


def test_row_names_labels_genes_and_the_rest_are_told_apart(tmp_path):
    text = "note,barcode,A,kind,B\nx,c1,1,T,0\ny,c2,0,,2.5\n"
    (tmp_path / "a.csv").write_text(text)
    found = read(tmp_path / "a.csv", tmp_path, id_column="barcode", ignore=("note",), obs=("kind",))
    assert found[0] == ["c1", "c2"]
    assert found[1] == ("A", "B")
    np.testing.assert_array_equal(found[2], [[1, 0], [0, 2.5]])
    assert found[3] == {"kind": ["T", ""]}


def test_the_column_of_a_broken_number_is_named_behind_others_that_are_ignored(tmp_path):
    (tmp_path / "a.csv").write_text("\ufeffid,note,A,kind,B\nc1,x,1,T,high\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"got 'high' in column 'B' at line 2 of"):
        read(tmp_path / "a.csv", tmp_path, id_column="id", ignore=("note",), obs=("kind",))


def test_a_header_without_a_name_over_the_row_names_is_read(tmp_path):
    """As R's write.table leaves it."""
    (tmp_path / "a.txt").write_text("A\tB\nc1\t1\t2\n")
    assert read(tmp_path / "a.txt", tmp_path)[:2] == (["c1"], ("A", "B"))


def test_quotes_and_gzip_are_understood(tmp_path):
    text = '"id","HLA-A","B, with comma"\n"c,1",3,4\n'
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(text.encode()))
    assert read(tmp_path / "a.csv.gz", tmp_path)[:2] == (["c,1"], ("HLA-A", "B, with comma"))


def test_genes_by_cells_are_turned_and_named_by_a_column(tmp_path):
    text = "id\tsymbol\tc1\tc2\nE1\tA\t1\t0\nE2\tB\t2\t5\nE3\tC\t0\t7\n"
    (tmp_path / "a.tsv").write_text(text)
    found = read(tmp_path / "a.tsv", tmp_path, orientation="genes_by_cells", symbol_column="symbol")
    assert found[:2] == (["c1", "c2"], ("A", "B", "C"))
    np.testing.assert_array_equal(found[2], [[1, 2, 0], [0, 5, 7]])


@pytest.mark.parametrize("orientation", ["cells_by_genes", "genes_by_cells"])
def test_long_files_are_read_in_blocks(tmp_path, monkeypatch, orientation):
    values = np.random.default_rng(0).poisson(0.5, size=(300, 8))
    table = pd.DataFrame(values, index=[f"r{i}" for i in range(300)], columns=list("ABCDEFGH"))
    table.to_csv(tmp_path / "a.csv", index_label="id")
    table.to_parquet(tmp_path / "a.parquet", row_group_size=70)
    monkeypatch.setattr(table_read, "MIN_BLOCK_BYTES", 256)
    monkeypatch.setattr(table_read, "VALUES_PER_BLOCK", 9 * 13)
    monkeypatch.setattr("c2s_rl.data.spool.ENTRIES_PER_PASS", 100)
    expected = values if orientation == "cells_by_genes" else values.T
    for name in ("a.csv", "a.parquet"):
        found = read(tmp_path / name, tmp_path, orientation=orientation)
        np.testing.assert_array_equal(found[2], expected)
        assert len(found[0]) == len(expected)


def test_the_line_of_a_broken_number_is_that_of_the_file(tmp_path, monkeypatch):
    lines = [f"c{i},1,2" for i in range(100)]
    lines[76] = "c76,1,x"  # line 78, with the header
    (tmp_path / "a.csv").write_text("\n".join(["id,A,B", *lines]))
    monkeypatch.setattr(table_read, "MIN_BLOCK_BYTES", 64)
    with pytest.raises(DataError, match=r"got 'x' in column 'B' at line 78 of"):
        read(tmp_path / "a.csv", tmp_path)


def test_parquet_of_several_types_is_read(tmp_path):
    table = pa.table(
        {
            "A": pa.array([1, 0], pa.uint16()),
            "cell": ["c1", "c2"],
            "B": pa.array([0.5, 2], pa.float32()),
            "kind": pa.array(["x", None]).dictionary_encode(),
            "age": pa.array([10.0, None]),
            "is_good": [True, False],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    found = read(tmp_path / "a.parquet", tmp_path, id_column="cell", obs=("kind", "age", "is_good"))
    assert found[:2] == (["c1", "c2"], ("A", "B"))
    np.testing.assert_array_equal(found[2], [[1, 0.5], [0, 2]])
    assert found[3] == {"kind": ["x", ""], "age": ["10.0", ""], "is_good": ["True", "False"]}


def test_a_column_that_is_named_and_not_there_gets_the_nearest(tmp_path):
    (tmp_path / "a.csv").write_text("id,kind,A\nc1,x,1\n")
    for options, message in (
        ({"obs": ("kid",)}, r"got 'kid' in .*did you mean 'kind'\?"),
        ({"obs": ("kind",), "id_column": "idd"}, r"got 'idd' in .*did you mean 'id'\?"),
        ({"obs": ("kind",), "ignore": ("A",)}, "must have columns of numbers, got only"),
    ):
        with pytest.raises(DataError, match=message):
            read(tmp_path / "a.csv", tmp_path, **options)
    with pytest.raises(MissingFileError, match=r"a table of cells must exist, got .*none\.csv"):
        read(tmp_path / "none.csv", tmp_path)


SIDE = "cell,kind,batch\nc2,T,2\nc9,Q,9\nc1,B,1\n"


def test_a_side_table_gives_labels_by_id_and_goes_first(tmp_path):
    (tmp_path / "a.csv").write_text("id,kind,batch,A\nc1,x,7,1\nc2,y,8,2\n")
    (tmp_path / "obs.csv").write_text(SIDE)
    tables = {"obs": str(tmp_path / "obs.csv")}
    options = {"tables": tables, "obs": ("kind",), "ignore": ("kind", "batch")}
    assert read(tmp_path / "a.csv", tmp_path, **options)[3] == {"kind": ["B", "T"]}


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (
            SIDE.replace("c1", "c3"),
            {},
            r"a row for every cell of .*a\.csv, got none for 1 \('c1'\)",
        ),
        (SIDE.replace("c9", "c1"), {}, "must be unique, got 'c1' more than once in column 'cell'"),
        (SIDE, {"obs_id": "cel"}, r"got 'cel' in .*did you mean 'cell'\?"),
        ("", {}, "separated by commas, got No columns"),
        ("cell,kind\nc1,B,1\nc2,T,2\n", {}, "a name for every column, got more fields"),
    ],
)
def test_a_broken_side_table_is_refused(tmp_path, text, options, message):
    (tmp_path / "a.csv").write_text("id,A\nc1,1\nc2,2\n")
    (tmp_path / "obs.csv").write_text(text)
    tables = {"obs": str(tmp_path / "obs.csv"), **options}
    with pytest.raises(DataError, match=message):
        read(tmp_path / "a.csv", tmp_path, tables=tables, obs=("kind",))


def test_both_generations_of_l1000_tables_offer_the_same_names(tmp_path):
    (tmp_path / "a.csv").write_text("id,A\np1,1\np2,2\n")
    old = (
        "inst_id\tpert_iname\tpert_type\tpert_dose\tcell_id\trna_plate\n"
        "p1\tDMSO\tctl_vehicle\t-666\tA375\tP1\np2\tdasatinib\ttrt_cp\t10\tA375\tP2\n"
    )
    new = (
        "det_plate\tsample_id\tcmap_name\tpert_type\tpert_dose\tcell_iname\n"
        "P1\tp1\tDMSO\tctl_vehicle\t-666\tA375\nP2\tp2\tdasatinib\ttrt_cp\t10\tA375\n"
    )
    obs = ("perturbation", "perturbation_type", "dose", "cell_line", "plate")
    expected = {
        "perturbation": ["DMSO", "dasatinib"],
        "perturbation_type": ["ctl_vehicle", "trt_cp"],
        "dose": ["", "10"],
        "cell_line": ["A375", "A375"],
        "plate": ["P1", "P2"],
    }
    for text, own in ((old, "pert_iname"), (new, "cmap_name")):
        (tmp_path / "inst_info.txt").write_text(text)
        tables = {"obs": str(tmp_path / "inst_info.txt")}
        found = read(tmp_path / "a.csv", tmp_path, tables=tables, obs=(*obs, own))[3]
        assert found == {**expected, own: expected["perturbation"]}
