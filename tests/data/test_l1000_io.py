"""GCT and GCTX files: the same cells from either form, and what is damaged is named."""

import gzip
from dataclasses import replace

import h5py
import numpy as np
import pytest

from c2s_rl.data import profiles
from c2s_rl.data.side_tables import SideTables
from c2s_rl.data.source import SourceConfig, open_source
from c2s_rl.data.text_column import HeldNames
from c2s_rl.errors import DataError, MissingFileError

GENES, PROFILES = ["11", "22", "33"], ["p1", "p2"]
VALUES = np.array([[1.5, 4.25], [3.5, 0.0], [2.5, 8.0]], dtype=np.float32)  # genes x profiles
GCT = """#1.3
3\t2\t1\t2
id\tpr_gene_symbol\tp1\tp2
drug\tna\tDMSO\tdasatinib
dose\tna\t-666\t0.12
11\tA\t1.5\t4.25
22\tB\t3.5\t0
33\tC\t2.5\t8
"""
GENE_TABLE = "entrez_id\tsymbol\n33\tCC\n11\tAA\n44\tDD\n"
PROFILE_TABLE = 'inst_id\tdrug\tnote\np2\tx\t5" plate\np9\ty\tb\np1\tz\tc\n'


def write_gct(tmp_path, text=GCT, name="a.gct"):
    path = tmp_path / name
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


def write_gctx(tmp_path, *, has_labels=True, ids=np.bytes_, values=VALUES):
    """A GCTX as CMap writes them; without labels and `version`, as the large ones are."""
    path = tmp_path / "a.gctx"
    with h5py.File(path, "w") as file:
        file["0/DATA/0/matrix"] = values.T
        # The padding that CMap's own writer leaves after texts.
        file["0/META/COL/id"] = np.array([f"{name}  " for name in PROFILES], dtype=np.bytes_)
        file["0/META/ROW/id"] = np.array(GENES).astype(ids)
        if has_labels:
            file.attrs["version"] = "GCTX1.0"
            file["0/META/COL/drug"] = np.array([b"DMSO", b"dasatinib"])
            file["0/META/COL/dose"] = np.array([-666, 0.12])
            file["0/META/ROW/pr_gene_symbol"] = np.array([b"A", b"B", b"C"])
    return path


def read(path, *, symbol_column="pr_gene_symbol", obs=("drug", "dose"), num_rows=1, **tables):
    """Read a whole file: its cells, dense values and labels."""
    config = SourceConfig(
        path=str(path),
        values="log2",
        symbol_column=symbol_column,
        obs=obs,
        tables=SideTables(**tables),
    )
    with open_source(config, path.parent / "scratch") as cells:
        dense = np.concatenate(
            [c.values.reshape(len(c.indptr) - 1, -1) for c in cells.chunks(num_rows)]
        )
        labels = {name: column.read(0, 2).tolist() for name, column in cells.obs.items()}
        ids = HeldNames(cells.cell_ids.read(0, 2).tolist())  # the file is closed behind it
        return replace(cells, cell_ids=ids), dense, labels


@pytest.mark.parametrize("form", ["a.gct", "a.gct.gz", "gctx"])
@pytest.mark.parametrize("num_rows", [1, 5])
def test_every_form_reads_alike(tmp_path, form, num_rows):
    path = write_gctx(tmp_path) if form == "gctx" else write_gct(tmp_path, name=form)
    cells, dense, labels = read(path, num_rows=num_rows)
    assert cells.cell_ids.read(0, 2).tolist() == ["p1", "p2"]
    assert cells.var_names == ("A", "B", "C")
    np.testing.assert_array_equal(dense, VALUES.T)
    # -666 is CMap's sign for "no value"
    assert labels == {"drug": ["DMSO", "dasatinib"], "dose": ["", "0.12"]}


def test_version_1_2_has_descriptions_and_no_labels(tmp_path):
    text = "#1.2\n2\t2\nName\tDescription\tp1\tp2\nA\tfirst\t1\t2\nB\tsecond\t3\t4\n"
    cells, dense, _ = read(write_gct(tmp_path, text), symbol_column=None, obs=())
    assert cells.var_names == ("A", "B")
    np.testing.assert_array_equal(dense, [[1, 3], [2, 4]])


@pytest.mark.parametrize("ids", [np.bytes_, np.int64])
def test_bare_ids_are_named_by_tables_beside_the_file(tmp_path, ids):
    (tmp_path / "genes.tsv").write_text(GENE_TABLE)
    (tmp_path / "inst.txt.gz").write_bytes(gzip.compress(PROFILE_TABLE.encode()))
    path = write_gctx(tmp_path, has_labels=False, ids=ids)
    cells, dense, labels = read(
        path,
        symbol_column=None,
        obs=("drug",),
        profiles=str(tmp_path / "inst.txt.gz"),
        genes=str(tmp_path / "genes.tsv"),
    )
    # gene 22 has no symbol in the table and is left out
    assert (cells.var_names, cells.num_unnamed_genes) == (("AA", "CC"), 1)
    np.testing.assert_array_equal(dense, VALUES[[0, 2]].T)
    assert labels == {"drug": ["z", "x"]}


def test_a_table_comes_before_the_labels_of_the_file(tmp_path):
    (tmp_path / "inst.txt").write_text(PROFILE_TABLE)
    _, _, labels = read(write_gct(tmp_path), profiles=str(tmp_path / "inst.txt"))
    assert labels == {"drug": ["z", "x"], "dose": ["", "0.12"]}


def test_wide_files_are_read_in_small_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(profiles, "VALUES_AT_ONCE", 4)  # one profile of three genes
    config = SourceConfig(
        path=str(write_gctx(tmp_path)), values="log2", symbol_column="pr_gene_symbol"
    )
    with open_source(config, tmp_path) as cells:
        assert [len(chunk.indptr) - 1 for chunk in cells.chunks(512)] == [1, 1]


# What is wrong with a GCT: text to replace, by what, message.
BAD_GCT = {
    "version": ("#1.3", "#2.0", r"must start with #1\.2 or #1\.3, got '#2\.0' at line 1"),
    "sizes": ("3\t2\t1\t2", "3\t2", "must hold 4 whole numbers, got .* at line 2"),
    "size": ("3\t2\t1\t2", "3\t2\tx\t2", "must hold 4 whole numbers"),
    "few fields": ("22\tB\t3.5\t0", "22\tB\t3.5", "must have 4 fields, got 3 for gene 2 .* line 7"),
    "cut": ("33\tC\t2.5\t8\n", "", "must be whole, got its end before gene 3 of 3 at line 8"),
    "long": (
        "33\tC\t2.5\t8\n",
        "33\tC\t2.5\t8\nx\n",
        r"must end after the genes .* got 'x' at",
    ),
    "no number": ("3.5", "high", "must be a number, got 'high' for gene '22' and profile 'p1'"),
}


@pytest.mark.parametrize("case", BAD_GCT)
def test_a_broken_gct_is_refused_with_its_place(tmp_path, case):
    old, new, message = BAD_GCT[case]
    assert old in GCT
    with pytest.raises(DataError, match=message):
        read(write_gct(tmp_path, GCT.replace(old, new)))


def test_a_truncated_gz_is_refused(tmp_path):
    path = write_gct(tmp_path, name="a.gct.gz")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"must be whole text, got .*a\.gct\.gz"):
        read(path)


def test_text_in_place_of_gz_is_refused(tmp_path):
    path = tmp_path / "a.gct.gz"
    path.write_text(GCT)
    with pytest.raises(DataError, match="must be whole text, got Not a gzipped file"):
        read(path)


def test_a_truncated_gctx_is_refused(tmp_path):
    path = write_gctx(tmp_path)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataError, match=r"must be a whole HDF5 file, got .*a\.gctx"):
        read(path)


def test_a_gctx_without_a_part_or_of_another_shape_is_refused(tmp_path):
    path = write_gctx(tmp_path, values=VALUES.T)
    with pytest.raises(DataError, match=r"got float32 of \(3, 2\) for 2 profiles and 3 genes"):
        read(path)
    with h5py.File(path, "a") as file:
        del file["0/META/ROW/id"]
    with pytest.raises(DataError, match="must hold matrix and ids, got no /0/META/ROW/id"):
        read(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"obs": ("drugs",)}, r"one of 'dose', 'drug', 'id', got 'drugs' .*'drug'\?; name a table"),
        ({"symbol_column": "symbol"}, "the var column must be one of .* got 'symbol'"),
        ({"symbol_column": None}, "must be named by symbols, got numbers .*symbols.table or"),
    ],
)
def test_missing_labels_are_named(tmp_path, options, message):
    with pytest.raises(DataError, match=message):
        read(write_gctx(tmp_path), **options)


# A table beside the file: which, its text, message.
BAD_TABLES = {
    "no id column": ("profiles", "id\tdrug\np1\tx\n", "one of 'id', 'drug', got 'inst_id'"),
    "profile absent": ("profiles", "inst_id\tdrug\np1\tx\n", r"none for 1 \('p2'\) in column"),
    "profile twice": ("profiles", PROFILE_TABLE + "p1\tq\tr\n", "unique, got 'p1' more than"),
    "no symbol column": ("genes", "entrez_id\n11\n", "one of 'entrez_id', got 'symbol'"),
    "no gene known": ("genes", "entrez_id\tsymbol\n9\tX\n", "got none for '11', '22', '33'"),
    "gene twice": ("genes", GENE_TABLE + "11\tQ\n", "unique, got '11' more than once"),
    "empty": ("genes", "", "separated by tabs, got No columns"),
}


@pytest.mark.parametrize("case", BAD_TABLES)
def test_a_broken_table_is_refused(tmp_path, case):
    kind, text, message = BAD_TABLES[case]
    column = None if kind == "genes" else "pr_gene_symbol"
    path = tmp_path / "table.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read(write_gctx(tmp_path), symbol_column=column, **{kind: str(path)})


def test_missing_files_are_named(tmp_path):
    with pytest.raises(MissingFileError, match=r"an L1000 file must exist, got .*none\.gct"):
        read(tmp_path / "none.gct")
    with pytest.raises(MissingFileError, match=r"a table must be a file that exists, got .*none"):
        read(write_gct(tmp_path), profiles=str(tmp_path / "none.txt"))


def test_both_forms_of_the_real_plate_hold_the_same(data_dir, tmp_path):
    folder = data_dir / "l1000"
    # Names of their own, and one that both generations of metadata have.
    obs = ("pert_iname", "pert_idose", "pert_type", "cell_line")
    read_as = {}
    for name in ("LJP005_A375_24H_X1_B19_n377x978.gct.gz", "l1000_LJP005_A375_n377x978.gctx"):
        config = SourceConfig(
            path=str(folder / name), values="log2", symbol_column="pr_gene_symbol", obs=obs
        )
        with open_source(config, tmp_path) as cells:
            (chunk,) = cells.chunks(512)
            labels = {n: column.read(0, 377).tolist() for n, column in cells.obs.items()}
            read_as[name] = (
                cells.cell_ids.read(0, 377).tolist(),
                cells.var_names,
                labels,
                chunk.values,
            )
    first, second = read_as.values()
    assert first[:3] == second[:3]
    np.testing.assert_allclose(first[3], second[3], atol=1e-4)
    # Data README: 26 DMSO wells, 328 compounds, 23 positive controls; 3.23 to 15.
    types = first[2]["pert_type"]
    counts = [types.count(t) for t in ("ctl_vehicle", "trt_cp", "trt_poscon")]
    assert counts == [26, 328, 23]
    assert (round(first[3].min(), 2), round(first[3].max(), 2)) == (3.23, 15.0)


def test_the_real_file_of_bare_ids_takes_its_labels_from_tables(data_dir, tmp_path):
    folder = data_dir / "l1000"
    tables = SideTables(
        profiles=str(folder / "slinky_demo_inst_info.txt"),
        genes=str(data_dir / "genes" / "hgnc_slim.tsv.gz"),
    )
    config = SourceConfig(
        path=str(folder / "slinky_demo_MCF7_n131x12328.gctx"),
        values="log2",
        obs=("cell_line", "pert_type"),
        tables=tables,
    )
    with open_source(config, tmp_path) as cells:
        assert cells.matrix.shape == (131, len(cells.var_names))
        assert len(cells.var_names) + cells.num_unnamed_genes == 12_328
        assert cells.num_unnamed_genes < 300
        assert set(cells.obs["cell_line"].read(0, 131)) == {"MCF7"}
        assert cells.obs["pert_type"].read(0, 131).tolist().count("ctl_vehicle") == 59
        chunk = next(cells.chunks(2))
        assert np.isfinite(chunk.values).all()


def test_all_landmarks_get_their_present_symbol_by_entrez_id(data_dir, tmp_path):
    tables = SideTables(genes=str(data_dir / "genes" / "hgnc_slim.tsv.gz"))
    config = SourceConfig(
        path=str(data_dir / "l1000" / "l1000_LJP005_A375_n377x978.gctx"),
        values="log2",
        symbol_column="pr_gene_id",
        tables=tables,
    )
    with open_source(config, tmp_path) as cells:
        rows = (data_dir / "l1000" / "landmark_978.tsv").read_text().splitlines()[1:]
        assert cells.num_unnamed_genes == 0
        assert set(cells.var_names) == {row.split("\t")[3] for row in rows}
