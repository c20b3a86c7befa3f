"""AnnData zarr stores of both formats: as .h5ad files read, chunk by chunk."""

import anndata
import numpy as np
import pandas as pd
import pytest
import zarr
from scipy import sparse

from c2s_rl.data.source import SourceConfig, hash_source, open_source
from c2s_rl.errors import DataError, MissingFileError
from tests import format_files as files

pytestmark = pytest.mark.filterwarnings("ignore:.*zarr.*")  # what the next release will do

COUNTS = np.array([[0, 3, 1, 0], [2, 0, 0, 0], [0, 0, 0, 0], [1, 1, 0, 5]], dtype=np.float32)


def make_adata(layout=sparse.csr_matrix):
    """Four cells, the third empty, with a column of every type."""
    obs = pd.DataFrame(
        {
            "cell_type": pd.Categorical(["T", None, "B", "T"]),
            "batch": [10, 2, 2, 10],
            "age": [1.5, np.nan, 3.0, 4.0],
            "is_good": [True, False, True, True],
            "count": pd.array([1, None, 3, 4], dtype="Int64"),
        },
        index=["c0", "c1", "c2", "c3"],
    )
    var = pd.DataFrame({"symbol": list("ABCD")}, index=["G0", "G1", "G2", "G3"])
    return anndata.AnnData(layout(COUNTS), obs=obs, var=var)


def read(path, scratch, num_rows=3, **options):
    with open_source(SourceConfig(path=str(path), **options), scratch) as cells:
        dense = np.zeros(cells.matrix.shape)
        for chunk in cells.chunks(num_rows):
            for row in range(len(chunk.indptr) - 1):
                entries = slice(chunk.indptr[row], chunk.indptr[row + 1])
                dense[chunk.start + row, chunk.columns[entries]] = chunk.values[entries]
        labels = {name: column.read(0, 4).tolist() for name, column in cells.obs.items()}
        return cells, dense, labels


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("layout", [sparse.csr_matrix, sparse.csc_matrix, np.asarray])
def test_every_layout_reads_alike(tmp_path, layout, version):
    path = files.write_zarr(make_adata(layout), tmp_path, version)
    cells, dense, labels = read(
        path, tmp_path, obs=("cell_type", "batch", "age", "is_good", "count")
    )
    np.testing.assert_array_equal(dense, COUNTS)
    assert cells.cell_ids.read(1, 3).tolist() == ["c1", "c2"]
    assert cells.var_names == ("G0", "G1", "G2", "G3")
    assert labels == {
        "cell_type": ["T", "", "B", "T"],
        "batch": ["10", "2", "2", "10"],
        "age": ["1.5", "", "3.0", "4.0"],
        "is_good": ["True", "False", "True", "True"],
        "count": ["1", "", "3", "4"],
    }


def test_layers_raw_and_symbols_are_read_where_they_are(tmp_path):
    adata = make_adata()
    adata.layers["counts"] = sparse.csr_matrix(2 * COUNTS)
    adata.raw = adata.copy()
    path = files.write_zarr(adata[:, :2].copy(), tmp_path)
    cells, dense, _ = read(path, tmp_path, matrix="layer:counts", symbol_column="symbol")
    np.testing.assert_array_equal(dense, 2 * COUNTS[:, :2])
    assert cells.var_names == ("A", "B")
    cells, dense, _ = read(path, tmp_path, matrix="raw")
    np.testing.assert_array_equal(dense, COUNTS)  # raw has genes of its own
    assert cells.alternatives == ("X", "layer:counts")


def test_small_chunks_and_zeros_that_are_left_out_are_read(tmp_path):
    path = files.write_zarr(make_adata(np.asarray), tmp_path)
    store = zarr.open_group(str(path), mode="r+", use_consolidated=False)
    attributes = dict(store["X"].attrs)
    del store["X"]
    array = store.create_array("X", shape=(4, 4), chunks=(1, 2), dtype="f4")
    array[:] = COUNTS
    array.update_attributes(attributes)
    zarr.consolidate_metadata(str(path))
    assert array.nchunks_initialized < array.nchunks  # zarr writes no chunk of zeros
    np.testing.assert_array_equal(read(path, tmp_path, num_rows=1)[1], COUNTS)


def test_missing_parts_are_named(tmp_path):
    with pytest.raises(MissingFileError, match=r"must be a folder that exists, got .*none\.zarr"):
        read(tmp_path / "none.zarr", tmp_path)
    zarr.create_group(str(tmp_path / "bare.zarr"))["X"] = COUNTS
    with pytest.raises(DataError, match="must hold obs and var, got no obs in"):
        read(tmp_path / "bare.zarr", tmp_path)
    adata = make_adata()
    adata.var["symbol"] = ["A", None, "C", "D"]
    path = files.write_zarr(adata, tmp_path)
    with pytest.raises(DataError, match="every gene must have a symbol, got 1 missing in var"):
        read(path, tmp_path, symbol_column="symbol")
    with pytest.raises(DataError, match=r"the var column must be one of 'symbol', got 'symbo'"):
        read(path, tmp_path, symbol_column="symbo")


def test_a_chunk_that_cannot_be_decompressed_is_named(tmp_path):
    path = files.write_zarr(make_adata(), tmp_path)
    chunk = path / "X" / "data" / "c" / "0"
    chunk.write_bytes(b"\xff" * 20)
    with pytest.raises(DataError, match=r"a zarr store must be whole, got .* in .*cells\.zarr"):
        read(path, tmp_path)


def test_the_hash_of_a_store_is_of_all_its_files(tmp_path):
    config = SourceConfig(path=str(files.write_zarr(make_adata(), tmp_path)))
    before = hash_source(config)
    chunk = tmp_path / "cells.zarr" / "X" / "data" / "c" / "0"
    chunk.write_bytes(chunk.read_bytes() + b" ")
    assert hash_source(config) != before
