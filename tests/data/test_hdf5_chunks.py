"""Packed chunks are unpacked to what h5py reads; claims that a file cannot hold are refused."""

import tracemalloc

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from c2s_rl.config import validate
from c2s_rl.data.hdf5_chunks import UnpackedArray, can_unpack, unpacked
from c2s_rl.data.hdf5_trust import require_stored
from c2s_rl.errors import DataError
from c2s_rl.pipeline.convert import ConvertConfig, run

PACKED = {"gzip": {"compression": "gzip"}, "shuffled": {"compression": "gzip", "shuffle": True}}
OTHER = {
    "plain": {},
    "lzf": {"compression": "lzf"},
    "checked": {"compression": "gzip", "fletcher32": True},
    "big endian": {"compression": "gzip", "dtype": ">f4"},
    "text": {"compression": "gzip", "dtype": "S3"},
}


@pytest.mark.parametrize("dtype", ["f4", "f8", "i4", "i8", "u2"])
@pytest.mark.parametrize("packing", PACKED)
def test_any_range_reads_as_through_h5py(tmp_path, packing, dtype):
    values = np.random.default_rng(0).integers(0, 99, 1000).astype(dtype)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", data=values, chunks=(64,), **PACKED[packing])
    with h5py.File(tmp_path / "a.h5") as file:
        array = unpacked(file["x"])
        assert isinstance(array, UnpackedArray)
        assert len(array) == 1000

        @settings(max_examples=40)
        @given(st.integers(0, 1000), st.integers(0, 1000))
        def check(start, stop):
            read = array[start:stop]
            assert read.dtype == values.dtype
            np.testing.assert_array_equal(read, values[start:stop])

        check()


@pytest.mark.parametrize("packing", OTHER)
def test_other_packings_are_left_to_h5py(tmp_path, packing):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        dataset = file.create_dataset("x", shape=100, chunks=(10,), **OTHER[packing])
        assert not can_unpack(dataset)
        assert unpacked(dataset) is dataset


def test_a_chunk_without_its_filter_reads_as_through_h5py(tmp_path):
    values = np.arange(20, dtype=np.int32)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        dataset = file.create_dataset("x", data=values, chunks=(10,), compression="gzip")
        dataset.id.write_direct_chunk((10,), values[10:].tobytes(), filter_mask=1)
    with h5py.File(tmp_path / "a.h5") as file:
        np.testing.assert_array_equal(unpacked(file["x"])[5:20], values[5:])


def test_a_damaged_chunk_is_named_by_h5py(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        dataset = file.create_dataset("x", data=np.arange(20), chunks=(10,), compression="gzip")
        dataset.id.write_direct_chunk((10,), b"\xff" * 30)
    with h5py.File(tmp_path / "a.h5") as file:
        array = unpacked(file["x"])
        assert array[:10].tolist() == list(range(10))
        with pytest.raises(OSError, match="filter returned failure"):
            array[5:15]


def claim(file, name, size, dtype, kind):
    """Make a dataset that claims `size` values and holds none, or next to none."""
    packed = {"chunks": (100_000,), "compression": "gzip"}
    match kind:
        case "unwritten chunks":
            file.create_dataset(name, shape=size, dtype=dtype, **packed)
        case "one chunk":
            file.create_dataset(name, shape=size, dtype=dtype, **packed)[:10] = 1
        case "unwritten":
            file.create_dataset(name, shape=size, dtype=dtype)
        case "implausible":
            # One chunk, of 30 bytes, that would have to unfold to all of it.
            dataset = file.create_dataset(
                name, shape=size, dtype=dtype, chunks=(size,), compression="gzip"
            )
            dataset.id.write_direct_chunk((0,), b"x" * 30)


def write_hostile(path, kind, num_entries=250_000_000):
    with h5py.File(path, "w") as file:
        for frame, names in (("obs", ["c0", "c1"]), ("var", ["A", "B", "C"])):
            group = file.create_group(frame)
            group.attrs.update({"encoding-type": "dataframe", "encoding-version": "0.2.0"})
            group.attrs.update({"_index": "_index", "column-order": np.zeros(0, dtype="S1")})
            group.create_dataset("_index", data=names, dtype=h5py.string_dtype())
        matrix = file.create_group("X")
        matrix.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0"})
        matrix.attrs["shape"] = (2, 3)
        matrix["indptr"] = np.array([0, 3, num_entries])
        claim(matrix, "data", num_entries, "f4", kind)
        claim(matrix, "indices", num_entries, "i4", kind)


HOSTILE = {
    "unwritten chunks": "250,000,000 claimed and none written in X/data",
    "one chunk": r"got 1 of 2,500 written in X/data",
    "unwritten": "250,000,000 claimed and none written in X/data",
    "implausible": "1,000,000,000 bytes claimed and 30 stored, which unfold to 30,960 at most",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_small_file_with_large_claims_is_refused_before_memory_is_taken(tmp_path, kind):
    path = tmp_path / "hostile.h5ad"
    write_hostile(path, kind)
    assert path.stat().st_size < 25_000
    config = validate(ConvertConfig, {"path": str(path)}, "test")
    tracemalloc.start()
    with pytest.raises(DataError, match=HOSTILE[kind]):
        run(config, tmp_path / "cells")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5_000_000
    assert not (tmp_path / "cells").exists()


def test_rows_longer_than_the_genes_are_refused_before_they_are_read(tmp_path):
    path = tmp_path / "long.h5ad"
    write_hostile(path, "written", 9)
    with h5py.File(path, "r+") as file:
        file["X/data"], file["X/indices"] = np.ones(9, "f4"), np.zeros(9, "i4")
    with pytest.raises(DataError, match="at most one entry a gene, 3, got 6 in row 1"):
        run(ConvertConfig(path=str(path)), tmp_path / "cells")


def test_what_was_written_is_trusted(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        datasets = [
            file.create_dataset("zeros", data=np.zeros(2_000_000), compression="gzip"),
            file.create_dataset("empty", shape=(0,), maxshape=(None,), chunks=(10,)),
            file.create_dataset("plain", data=np.arange(5)),
            file.create_dataset("text", data=["a", "b"], dtype=h5py.string_dtype()),
            file.create_dataset("single", data=3.0),
        ]
        for dataset in datasets:
            require_stored(dataset, "a.h5")
            assert dataset[...].shape == dataset.shape
