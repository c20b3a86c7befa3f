"""Opening .h5ad files: every layout reads alike, and what is damaged or missing is named."""

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from c2s_rl.data import h5ad_matrix
from c2s_rl.data.anndata_io import open_h5ad, packaged_file
from c2s_rl.errors import DataError, MissingFileError

COUNTS = np.array([[0, 3, 1, 0], [2, 0, 0, 0], [0, 0, 0, 0], [1, 1, 0, 5]], dtype=np.float32)
GENES = ["CD3D", "ISG15", "HLA-A", "MX1"]


@pytest.fixture
def adata():
    """Four cells by four genes; the third cell is empty."""
    obs = pd.DataFrame(
        {
            "cell_type": pd.Categorical(["T", None, "B", "T"]),
            "batch": [10, 2, 2, 10],
            "is_good": [True, False, True, True],
        },
        index=["c0", "c1", "c2", "c3"],
    )
    var = pd.DataFrame({"gene_name": ["A", "B", "C", "D"]}, index=GENES)
    return anndata.AnnData(sparse.csr_matrix(COUNTS), obs=obs, var=var)


def read(path, matrix="X", num_rows=3, symbol_column=None, obs=()):
    """Read a whole matrix back as a dense array."""
    with open_h5ad(
        path,
        matrix=matrix,
        symbol_column=symbol_column,
        obs_columns=obs,
        scratch=path.parent / "scratch",
    ) as cells:
        dense = np.zeros(cells.matrix.shape)
        for chunk in cells.chunks(num_rows):
            for row in range(len(chunk.indptr) - 1):
                entries = slice(chunk.indptr[row], chunk.indptr[row + 1])
                dense[chunk.start + row, chunk.columns[entries]] = chunk.values[entries]
        columns = {"cell_ids": cells.cell_ids} | cells.obs
        labels = {name: column.read(0, len(column)).tolist() for name, column in columns.items()}
        return cells, dense, labels


@pytest.mark.parametrize("layout", [sparse.csr_matrix, sparse.csc_matrix, np.asarray])
@pytest.mark.parametrize("num_rows", [1, 3, 100])
def test_every_layout_reads_alike(adata, tmp_path, layout, num_rows):
    adata.X = layout(COUNTS)
    adata.write_h5ad(tmp_path / "a.h5ad", compression="gzip")
    np.testing.assert_array_equal(read(tmp_path / "a.h5ad", num_rows=num_rows)[1], COUNTS)


@pytest.mark.parametrize("dtype", [np.int64, np.uint16, np.float64])
def test_number_types_read_alike(adata, tmp_path, dtype):
    adata.X = sparse.csr_matrix(COUNTS.astype(dtype))
    adata.write_h5ad(tmp_path / "a.h5ad")
    np.testing.assert_array_equal(read(tmp_path / "a.h5ad")[1], COUNTS)


def test_layers_and_raw_are_read_where_they_are(adata, tmp_path):
    adata.layers["counts"] = sparse.csr_matrix(2 * COUNTS)
    adata.raw = adata.copy()
    subset = adata[:, :2].copy()
    subset.write_h5ad(tmp_path / "a.h5ad")
    np.testing.assert_array_equal(read(tmp_path / "a.h5ad", "layer:counts")[1], 2 * COUNTS[:, :2])
    cells, dense, _ = read(tmp_path / "a.h5ad", "raw")
    np.testing.assert_array_equal(dense, COUNTS)
    assert cells.var_names == tuple(GENES)  # raw has genes of its own
    assert cells.alternatives == ("X", "layer:counts")


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.integers(1, 7))
def test_a_csc_matrix_is_turned_in_any_portions(tmp_path_factory, seed, portion):
    dense = np.random.default_rng(seed).poisson(0.5, size=(6, 5))
    path = tmp_path_factory.mktemp("csc") / "a.h5ad"
    anndata.AnnData(sparse.csc_matrix(dense.astype(np.float32))).write_h5ad(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(h5ad_matrix, "ENTRIES_PER_PASS", portion)
        np.testing.assert_array_equal(read(path, num_rows=4)[1], dense)


def test_obs_columns_become_text_with_missing_as_empty(adata, tmp_path):
    adata.write_h5ad(tmp_path / "a.h5ad")
    _, _, labels = read(tmp_path / "a.h5ad", obs=["cell_type", "batch", "is_good"])
    assert labels == {
        "cell_ids": ["c0", "c1", "c2", "c3"],
        "cell_type": ["T", "", "B", "T"],
        "batch": ["10", "2", "2", "10"],
        "is_good": ["True", "False", "True", "True"],
    }


def test_symbols_come_from_a_column_when_asked(adata, tmp_path):
    adata.write_h5ad(tmp_path / "a.h5ad")
    assert read(tmp_path / "a.h5ad", symbol_column="gene_name")[0].var_names == tuple("ABCD")
    with pytest.raises(DataError, match=r"the var column must be one of 'gene_name', got 'gene_n'"):
        read(tmp_path / "a.h5ad", symbol_column="gene_n")


def test_a_gene_without_symbol_is_refused(adata, tmp_path):
    adata.var["gene_name"] = ["A", None, "C", "D"]
    adata.write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(DataError, match="every gene must have a symbol, got 1 missing"):
        read(tmp_path / "a.h5ad", symbol_column="gene_name")


def test_an_unknown_obs_column_names_the_nearest(adata, tmp_path):
    adata.write_h5ad(tmp_path / "a.h5ad")
    message = r"the obs column must be one of .* got 'celltype' in .*did you mean 'cell_type'\?"
    with pytest.raises(DataError, match=message):
        read(tmp_path / "a.h5ad", obs=["celltype"])


def test_an_unknown_matrix_names_what_there_is(adata, tmp_path):
    adata.layers["counts"] = adata.X
    adata.write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(DataError, match=r"one of 'X', 'layer:counts', got 'layer:count' in"):
        read(tmp_path / "a.h5ad", "layer:count")
    with pytest.raises(DataError, match=r"one of 'X', 'layer:counts', got 'raw' in"):
        read(tmp_path / "a.h5ad", "raw")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(MissingFileError, match=r"an \.h5ad file must exist, got .*none\.h5ad"):
        read(tmp_path / "none.h5ad")


def test_a_truncated_file_is_refused(adata, tmp_path):
    adata.write_h5ad(tmp_path / "a.h5ad")
    content = (tmp_path / "a.h5ad").read_bytes()
    (tmp_path / "cut.h5ad").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"whole HDF5 file, got .*truncated file.* in .*cut\.h5ad"):
        read(tmp_path / "cut.h5ad")


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "a.h5ad").write_text("cell,gene\n")
    with pytest.raises(DataError, match=r"whole HDF5 file, got .*signature not found"):
        read(tmp_path / "a.h5ad")
    with h5py.File(tmp_path / "b.h5ad", "w") as file:
        file["X"] = COUNTS
    with pytest.raises(DataError, match="must hold obs and var, got no obs in"):
        read(tmp_path / "b.h5ad")


def test_damaged_compressed_data_are_refused(adata, tmp_path):
    path = tmp_path / "a.h5ad"
    adata.X = sparse.csr_matrix(np.random.default_rng(0).random((4, 4)))
    adata.write_h5ad(path, compression="gzip")
    with h5py.File(path) as file:
        offset = file["X/data"].id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[offset : offset + 8] = b"\xff" * 8
    path.write_bytes(content)
    with pytest.raises(
        DataError, match=r"must be a whole HDF5 file, got .*filter returned failure"
    ):
        read(path)


def broken_csr(adata, path, name, values):
    """Write a CSR file and replace one of its three arrays."""
    adata.write_h5ad(path)
    with h5py.File(path, "r+") as file:
        del file["X"][name]
        file["X"][name] = np.array(values)


# The matrix has 6 entries: columns 1 2 | 0 | - | 0 1 3, bounds 0 2 3 3 6.
@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("indices", [1, 2, 0, 0, 1, 4], r"a sparse column index must be in 0\.\.3, got 4 in X of"),
        ("indices", [-1, 2, 0, 0, 1, 3], r"a sparse column index must be in 0\.\.3, got -1"),
        ("indices", [1, 2, 0, 0, 3, 3], "hold each gene once, got a repeated column in row 3"),
        ("indices", [1, 2, 0, 0, 1], "an index for each value, got 6 values and 5 indices"),
        ("indptr", [0, 2, 3, 3], "indptr must hold 5 bounds, .* got 4"),
        ("indptr", [0, 3, 2, 3, 6], "start at 0 and never fall"),
        ("indptr", [1, 2, 3, 3, 6], "start at 0 and never fall"),
        ("indptr", [0, 2, 3, 3, 9], "the last bound must be the number of entries, got 9 with 6"),
        ("indptr", [0, 6, 6, 6, 6], "at most one entry a gene, 4, got 6 in row 0"),
    ],
)
def test_contradicting_sparse_arrays_are_refused(adata, tmp_path, name, values, message):
    broken_csr(adata, tmp_path / "a.h5ad", name, values)
    with pytest.raises(DataError, match=message):
        read(tmp_path / "a.h5ad")


def test_an_out_of_range_csc_index_is_refused(adata, tmp_path):
    adata.X = sparse.csc_matrix(COUNTS)
    broken_csr(adata, tmp_path / "a.h5ad", "indices", [1, 3, 0, 3, 0, 4])
    with pytest.raises(DataError, match=r"a sparse row index must be in 0\.\.3, got 4"):
        read(tmp_path / "a.h5ad")


def test_a_matrix_of_another_size_than_its_names_is_refused(adata, tmp_path):
    adata.X = COUNTS
    adata.write_h5ad(tmp_path / "a.h5ad")
    with h5py.File(tmp_path / "a.h5ad", "r+") as file:
        attributes = dict(file["X"].attrs)
        del file["X"]
        file["X"] = COUNTS[:3]
        file["X"].attrs.update(attributes)
    with pytest.raises(DataError, match=r"got \(3, 4\) for 4 cells and 4 genes"):
        read(tmp_path / "a.h5ad")


def test_text_instead_of_numbers_is_refused(adata, tmp_path):
    adata.write_h5ad(tmp_path / "a.h5ad")
    with h5py.File(tmp_path / "a.h5ad", "r+") as file:
        del file["X"]
        file["X"] = np.full((4, 4), b"x")
    with pytest.raises(DataError, match="must be two-dimensional and numeric, got 2 dimensions"):
        read(tmp_path / "a.h5ad")


@pytest.mark.filterwarnings("ignore")  # anndata's, about the old format
def test_the_file_that_scanpy_ships_is_read_in_its_old_format():
    path = packaged_file("scanpy", "datasets/10x_pbmc68k_reduced.h5ad")
    cells, dense, labels = read(path, "raw", obs=["bulk_labels"])
    assert dense.shape == (700, 765)
    adata = anndata.read_h5ad(path)
    np.testing.assert_array_equal(dense, adata.raw.X.toarray())
    assert labels["bulk_labels"] == adata.obs["bulk_labels"].tolist()
    assert cells.var_names == tuple(adata.raw.var_names)


def test_a_data_set_that_scanpy_does_not_ship_is_refused():
    with pytest.raises(MissingFileError, match=r"must ship none\.h5ad"):
        packaged_file("scanpy", "none.h5ad")
