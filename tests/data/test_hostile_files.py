"""Files of HDF5 and zarr that contradict themselves: one line, before memory is taken."""

import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

from c2s_rl.data.source import open_source
from c2s_rl.data.source_config import SourceConfig
from c2s_rl.errors import DataError
from tests.format_files import make_adata, write_gct, write_gctx, write_h5ad, write_tenx_h5
from tests.format_files import write_zarr as write_zarr_store
from tests.refused import Refused

CLAIMED = 250_000_000


@pytest.fixture
def assert_refused(tmp_path: Path, capsys, monkeypatch) -> Refused:
    return Refused(tmp_path, capsys, monkeypatch)


def replaced(path: Path, name: str, make: Callable[[h5py.File], object]) -> None:
    """Put something else in the place of a dataset."""
    with h5py.File(path, "r+") as file:
        del file[name]
        make(file)


PARTS = {
    "texts for values": ("X/data", lambda f: np.full(len(f["X/indices"]), b"1"), "|S1"),
    "complex values": ("X/data", lambda f: np.ones(len(f["X/indices"]), complex), "complex128"),
    "fractions for indices": ("X/indices", lambda f: np.full(len(f["X/data"]), 0.5), "float64"),
    "fractions for bounds": ("X/indptr", lambda _: np.linspace(0, 9, 41), "float64"),
    "one number": ("X/data", lambda _: 5.0, "()"),
    "a table": ("X/data", lambda _: np.ones((3, 3)), "(3, 3)"),
}


@pytest.mark.parametrize("case", PARTS)
def test_a_sparse_matrix_of_something_else_than_lists_of_numbers(
    case, tmp_path, assert_refused
) -> None:
    name, make, word = PARTS[case]
    path = write_h5ad(make_adata(), tmp_path)
    replaced(path, name, lambda file: file.create_dataset(name, data=make(file)))
    assert_refused(path, "of a sparse matrix must be a list of", word, str(path))


def test_a_group_where_a_list_should_be(tmp_path, assert_refused) -> None:
    path = write_h5ad(make_adata(), tmp_path)
    replaced(path, "X/data", lambda file: file.create_group("X/data"))
    assert_refused(path, "data of a sparse matrix", "got a group")
    store = write_zarr_store(make_adata(), tmp_path)
    root = zarr.open_group(str(store), mode="r+", use_consolidated=False)
    del root["X/data"]
    root.create_group("X/data")
    zarr.consolidate_metadata(str(store))
    assert_refused(store, "data of a sparse matrix", "got a group")


@pytest.mark.parametrize("shape", [[40], [40, 12, 1], [np.nan, 12.0], [-1, 12], [40.5, 12]])
def test_a_shape_that_is_none(shape, tmp_path, assert_refused) -> None:
    path = write_h5ad(make_adata(), tmp_path)
    with h5py.File(path, "r+") as file:
        file["X"].attrs["shape"] = shape
    assert_refused(path, "the shape of a sparse matrix must be two whole numbers", str(shape[0]))


def test_links_that_lead_nowhere(tmp_path, assert_refused) -> None:
    path = write_h5ad(make_adata(), tmp_path)
    links = (h5py.SoftLink("/X"), h5py.ExternalLink("nothing.h5", "/X"))
    for link in links:
        replaced(path, "X", lambda file, link=link: file.__setitem__("X", link))
        assert_refused(path, "must be a whole HDF5 file")


def test_indices_of_the_other_byte_order(tmp_path) -> None:
    adata = make_adata()
    path = write_h5ad(adata, tmp_path)
    for name in ("X/data", "X/indices", "X/indptr"):
        with h5py.File(path, "r+") as file:
            stored = file[name][:]
            del file[name]
            file.create_dataset(name, data=stored.astype(stored.dtype.newbyteorder(">")))
    with open_source(SourceConfig(path=str(path)), tmp_path / "scratch") as cells:
        (chunk,) = cells.chunks(40)
    assert chunk.columns.tolist() == adata.X.indices.tolist()
    assert chunk.values.tolist() == adata.X.data.tolist()


def test_a_small_file_packed_twice_that_claims_250_million_values(tmp_path, assert_refused) -> None:
    path = write_h5ad(make_adata(), tmp_path)

    def pack(file: h5py.File) -> None:
        """One chunk, deflated twice: 4 x 250 million zeros in 2 kB."""
        layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        layout.set_chunk((CLAIMED,))
        layout.set_deflate(9)
        layout.set_deflate(9)
        space, kind = h5py.h5s.create_simple((CLAIMED,)), h5py.h5t.py_create(np.dtype("f4"))
        dataset = h5py.h5d.create(file["X"].id, b"data", kind, space, layout)
        dataset.write_direct_chunk((0,), zlib.compress(zlib.compress(bytes(4 * 2**20), 9), 9))

    replaced(path, "X/data", pack)
    assert_refused(path, "must hold the values that it claims", "1,000,000,000 bytes claimed")


def claims(file: h5py.File, name: str) -> None:
    file.create_dataset(name, shape=(CLAIMED,), dtype="S20", chunks=(10**6,), compression="gzip")


def test_features_of_ten_x_that_were_never_written_are_not_read(tmp_path) -> None:
    path = write_tenx_h5(make_adata(), tmp_path)
    replaced(path, "matrix/features/id", lambda file: claims(file, "matrix/features/id"))
    assert_refused_at_once(SourceConfig(path=str(path)), tmp_path, "features/id")


@pytest.mark.parametrize("side", ["ROW", "COL"])
def test_labels_of_a_plate_that_are_more_than_its_ids_are_not_read(side, tmp_path) -> None:
    path = write_gctx(make_adata(), tmp_path)
    with h5py.File(path, "r+") as file:
        claims(file, f"0/META/{side}/label")
    symbols, obs = ("label", ()) if side == "ROW" else ("pr_gene_symbol", ("label",))
    config = SourceConfig(path=str(path), values="log2", symbol_column=symbols, obs=obs)
    assert_refused_at_once(config, tmp_path, "got (250000000,) for /0/META/")


def assert_refused_at_once(config: SourceConfig, folder: Path, words: str) -> None:
    """5 GB are claimed; 100 MB must not even be asked for."""
    tracemalloc.start()
    try:
        with pytest.raises(DataError) as error, open_source(config, folder / "scratch"):
            pass
        assert tracemalloc.get_traced_memory()[1] < 100 * 2**20
    finally:
        tracemalloc.stop()
    assert words in str(error.value)


def test_a_plate_with_a_byte_order_mark(tmp_path) -> None:
    path = write_gct(make_adata(), tmp_path)
    config = SourceConfig(path=str(path), values="log2", symbol_column="pr_gene_symbol")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    with open_source(config, tmp_path / "scratch") as cells:
        assert cells.var_names[:2] == ("GENE0", "GENE1")
