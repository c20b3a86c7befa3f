"""Bad input of every format, through the command line: one line, exit code 2, nothing half-made."""

import gzip
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests import format_files as files

pytestmark = pytest.mark.filterwarnings("ignore:.*zarr.*")  # what the next release will do

COUNTS = [[3, 0, 1, 2], [0, 5, 0, 1], [4, 1, 0, 0]]
GENES = ["ISG15", "IFI6", "CD3D", "HLA-A"]
WRITERS: dict[str, Callable[..., Path]] = {
    "zarr": files.write_zarr,
    "10x_h5": files.write_tenx_h5,
    "10x_h5 of version 2": files.write_old_tenx_h5,
    "10x_mtx": files.write_mtx,
    "csv": lambda adata, folder: files.write_table(adata, folder, ".csv"),
    "tsv.gz": lambda adata, folder: files.write_table(adata, folder, ".tsv.gz"),
    "parquet": lambda adata, folder: files.write_table(adata, folder, ".parquet"),
    "genes_by_cells": lambda adata, folder: files.write_table(adata, folder, ".csv", turned=True),
}
HAS_LABELS = ("zarr", "csv", "tsv.gz", "parquet")


def options_of(name: str, adata, folder: Path) -> dict[str, object]:
    """Where the labels are, and what else the format needs to be told."""
    options: dict[str, object] = {"obs": list(files.LABELS)}
    if name not in HAS_LABELS:
        options["tables"] = {"obs": str(files.write_obs(adata, folder))}
    if name == "genes_by_cells":
        options["orientation"] = "genes_by_cells"
    return options


VALUES = {
    "nan": (np.nan, ("nan",)),
    "negative": (-1.5, ("-1.5", "scaled", "raw counts")),
    "infinite": (np.inf, ("inf",)),
    "fractions called counts": (0.25, ("0.25", "values: log1p")),
}


@pytest.mark.parametrize("case", VALUES)
@pytest.mark.parametrize("name", WRITERS)
def test_values_that_are_no_counts(name, case, tmp_path, assert_refused):
    value, words = VALUES[case]
    adata = files.make_adata(COUNTS, GENES)
    adata.X.data[2] = value  # the last of the first cell
    path = WRITERS[name](adata, tmp_path)
    options = options_of(name, adata, tmp_path)
    if (name, case) == ("parquet", "nan"):
        words = ("null",)  # which pandas makes of it
    assert_refused(path, *words, "'HLA-A'", "'cell-0'", path.name, **options)


NAMES = {
    "duplicated symbol": (["ISG15", "ISG15", "CD3D", "HLA-A"], {}, ("'ISG15'", "duplicates")),
    "duplicated by case": (
        ["Isg15", "ISG15", "CD3D", "HLA-A"],
        {"gene_case": "upper"},
        ("unique in upper case", "'ISG15'"),
    ),
    "symbol with a space": (["ISG15", "IFI 6", "CD3D", "HLA-A"], {}, ("'IFI 6'",)),
    "ensembl ids": (
        [f"ENSG0000018760{i}" for i in range(4)],
        {},
        ("ENSG00000187600", "symbol_column"),
    ),
}


@pytest.mark.parametrize("case", NAMES)
@pytest.mark.parametrize("name", WRITERS)
def test_names_that_are_no_symbols(name, case, tmp_path, assert_refused):
    genes, extra, words = NAMES[case]
    if (name, case) == ("parquet", "duplicated symbol"):
        pytest.skip("Parquet through pandas cannot hold two columns of one name")
    adata = files.make_adata(COUNTS, genes)
    path = WRITERS[name](adata, tmp_path)
    assert_refused(path, *words, path.name, **options_of(name, adata, tmp_path), **extra)


PROFILES = {"gct": files.write_gct, "gctx": files.write_gctx}


@pytest.mark.parametrize("case", ["nan", "negative", "infinite", *NAMES])
@pytest.mark.parametrize("name", PROFILES)
def test_profiles_that_are_none(name, case, tmp_path, assert_refused):
    adata = files.make_adata(np.array(COUNTS) + 0.5, GENES)
    extra: dict[str, object] = {}
    if case in VALUES:
        value, words = VALUES[case]
        adata.X.data[3] = value
    else:
        names, extra, words = NAMES[case]
        adata.var_names = names
    path = PROFILES[name](adata, tmp_path)
    assert_refused(path, *words, path.name, values="log2", symbol_column="pr_gene_symbol", **extra)


@pytest.mark.parametrize("name", PROFILES)
def test_profiles_cut_short_of_intensities_or_without_a_label(name, tmp_path, assert_refused):
    adata = files.make_adata(np.array(COUNTS) + 1, GENES)
    path = PROFILES[name](adata, tmp_path)
    options = {"values": "log2", "symbol_column": "pr_gene_symbol"}
    assert_refused(path, "'batches'", "did you mean 'batch'", obs=["batches"], **options)
    loud = files.make_adata(np.array(COUNTS) + 1_000, GENES)
    assert_refused(PROFILES[name](loud, tmp_path), "must be below 64", "take log2", **options)
    cut(path)
    assert_refused(
        path, "whole" if name == "gctx" else "a line of a GCT file must have", path.name, **options
    )


@pytest.mark.parametrize("name", WRITERS)
def test_an_obs_column_that_is_not_there(name, tmp_path, assert_refused):
    adata = files.make_adata(COUNTS, GENES)
    path = WRITERS[name](adata, tmp_path)
    options = options_of(name, adata, tmp_path) | {"obs": ["cel_type"]}
    line = assert_refused(path, "cel_type", path.name, **options)
    assert "'cell_type'" in line or "tables.obs" in line


@pytest.mark.parametrize("name", WRITERS)
def test_a_mistyped_key(name, tmp_path, assert_refused):
    path = WRITERS[name](files.make_adata(COUNTS, GENES), tmp_path)
    assert_refused(path, "orientaton", "did you mean 'orientation'", orientaton="cells_by_genes")


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


TRUNCATED = {
    "10x_h5": "",
    "tsv.gz": "",
    "parquet": "",
    "10x_mtx": "matrix.mtx.gz",
    "zarr": "X/data/c/0",
}


@pytest.mark.parametrize("name", TRUNCATED)
def test_a_truncated_file(name, tmp_path, assert_refused):
    adata = files.make_adata(np.random.default_rng(0).poisson(1.0, size=(200, 4)), GENES)
    path = WRITERS[name](adata, tmp_path)
    cut(path / TRUNCATED[name] if TRUNCATED[name] else path)
    assert_refused(path, path.name, "whole", **options_of(name, adata, tmp_path))


def test_a_text_table_that_ends_within_a_line(tmp_path, assert_refused):
    path = files.write_table(files.make_adata(COUNTS, GENES), tmp_path, ".csv")
    path.write_text(path.read_text()[:-12])
    assert_refused(path, "cells.csv", "line 4", obs=["cell_type", "batch"])


def test_indices_out_of_range(tmp_path, assert_refused):
    import zarr

    adata = files.make_adata(COUNTS, GENES)
    store = files.write_zarr(adata, tmp_path)
    zarr.open_group(str(store), mode="r+")["X/indices"][1] = 77
    assert_refused(store, "77", "cells.zarr")
    tenx = files.write_tenx_h5(adata, tmp_path)
    with h5py.File(tenx, "r+") as file:
        file["matrix/indices"][1] = 77
    assert_refused(tenx, "77", "cells.h5")


BAD_CSV = {
    "ragged": ("cell-1,T,0,5\n", "cell-1,T,0\n", ("the 4 fields", "got 3", "line 3")),
    "a field too many": ("cell-1,T,0,5\n", "cell-1,T,0,5,1\n", ("got 5", "line 3")),
    "text": ("cell-1,T,0,5\n", "cell-1,T,0,high\n", ("'high'", "'B'", "line 3")),
    "empty field": ("cell-1,T,0,5\n", "cell-1,T,,5\n", ("''", "'A'", "line 3")),
    "NA": ("cell-1,T,0,5\n", "cell-1,T,NA,5\n", ("'NA'", "'A'")),
    "label not named": ("kind", "what", ("'what'", "must be one of")),
    "no cells": ("cell-0,B,3,0\ncell-1,T,0,5\n", "", ("a header and rows, got 1 lines",)),
    "two labels of one name": ("kind,A", "kind,kind", ("'kind' 2 times",)),
}


@pytest.mark.parametrize("case", BAD_CSV)
def test_a_table_with_a_broken_line(case, tmp_path, assert_refused):
    old, new, words = BAD_CSV[case]
    text = "id,kind,A,B\ncell-0,B,3,0\ncell-1,T,0,5\n"
    assert old in text
    (tmp_path / "cells.csv").write_text(text.replace(old, new))
    assert_refused(tmp_path / "cells.csv", *words, "cells.csv", obs=["kind"])


@pytest.mark.parametrize("line", ["header", "row"])
def test_a_small_packed_table_of_a_line_without_end(line, tmp_path, assert_refused):
    path = tmp_path / "cells.csv.gz"
    endless = b"," * (66 * 2**20)
    path.write_bytes(gzip.compress(endless if line == "header" else b"id,A\n" + endless, 1))
    assert path.stat().st_size < 400_000
    tracemalloc.start()
    assert_refused(path, "at most 67108864 characters", "line 1" if line == "header" else "line 2")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 600e6


def test_a_label_among_the_numbers_is_pointed_out(tmp_path, assert_refused):
    adata = files.make_adata(COUNTS, GENES)
    for suffix in (".csv", ".parquet"):
        path = files.write_table(adata, tmp_path, suffix)
        assert_refused(path, "'cell_type'", "name labels in obs or combine", obs=["batch"])


def test_a_store_that_lost_its_chunks(tmp_path, assert_refused):
    adata = files.make_adata(COUNTS, GENES)
    path = files.write_zarr(adata, tmp_path)
    (path / "X/data/c/0").unlink()
    assert_refused(path, "got 0 of 1 chunks of /X/data", "cells.zarr")
    adata.X = adata.X.toarray()
    dense = files.write_zarr(adata, tmp_path)
    for file in (dense / "X/c").rglob("*"):
        if file.is_file():
            file.unlink()
    assert_refused(dense, "got 0 of 1 chunks of /X ", "cells.zarr")


def drop_consolidated(path: Path) -> None:
    """Let every array be described by its own file, which a test may change."""
    root = json.loads((path / "zarr.json").read_text())
    del root["consolidated_metadata"]
    (path / "zarr.json").write_text(json.dumps(root))


@pytest.mark.parametrize("name", ["X/zarr.json", "zarr.json"])
def test_a_store_without_readable_metadata(name, tmp_path, assert_refused):
    path = files.write_zarr(files.make_adata(COUNTS, GENES), tmp_path)
    drop_consolidated(path)
    (path / name).write_text('{"zarr_format": ')
    assert_refused(path, "cells.zarr")


def test_a_scaled_matrix_is_sent_to_another(tmp_path, assert_refused):
    adata = files.make_adata(COUNTS, GENES)
    adata.layers["counts"] = adata.X.copy()
    adata.X.data[0] = -0.4
    path = files.write_zarr(adata, tmp_path)
    assert_refused(path, "-0.4", "this file also has matrix: layer:counts")
    assert_refused(path, "'layer:counts'", "'layer:count'", matrix="layer:count")
    assert_refused(path, "'X', 'layer:counts', got 'raw'", matrix="raw")


def test_a_small_parquet_that_claims_250_million_values(tmp_path, assert_refused):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "cells.parquet"
    num_rows = 2_500_000
    ones = pa.array(np.ones(num_rows, dtype=np.int32))
    column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(num_rows, np.int32)), ones[:1])
    table = pa.table({"id": column, **{f"G{i}": column for i in range(100)}})
    pq.write_table(
        table, path, compression="zstd", row_group_size=num_rows, max_rows_per_page=num_rows
    )
    assert path.stat().st_size < 100_000
    assert_refused(path, "2500000 rows of 101 columns in", "cells.parquet")


def test_a_small_store_that_claims_250_million_values(tmp_path, assert_refused):
    import zarr

    path = files.write_zarr(files.make_adata(COUNTS, GENES), tmp_path)
    drop_consolidated(path)
    group = zarr.open_group(str(path), mode="r+")["X"]
    for name, dtype in (("data", "f4"), ("indices", "i4")):
        del group[name]
        array = group.create_array(
            name, shape=(250_000_000,), chunks=(1_000_000,), dtype=dtype, fill_value=0
        )
        array[:10] = 1
    assert_refused(path, "1000000000 bytes of /X/data in", "cells.zarr")


@pytest.mark.parametrize("part", ["data", "barcodes"])
def test_a_small_ten_x_file_that_claims_250_million_values(part, tmp_path, assert_refused):
    path = files.write_tenx_h5(files.make_adata(COUNTS, GENES), tmp_path)
    with h5py.File(path, "r+") as file:
        group, size, dtype = file["matrix"], 250_000_000, file[f"matrix/{part}"].dtype
        for name in ("data", "indices") if part == "data" else ("barcodes",):
            del group[name]
            group.create_dataset(name, (size,), dtype, chunks=(10_000,), compression="gzip")
    assert path.stat().st_size < 25_000
    assert_refused(path, "250,000,000 claimed", f"matrix/{part}", "cells.h5")


def test_a_small_plate_that_claims_250_million_values(tmp_path, assert_refused):
    path = files.write_gctx(files.make_adata(COUNTS, GENES), tmp_path)
    with h5py.File(path, "r+") as file:
        del file["0/DATA/0/matrix"]
        file.create_dataset("0/DATA/0/matrix", (250_000, 1_000), "f4", chunks=(100, 100))
        file["0/DATA/0/matrix"][0, 0] = 1
    assert path.stat().st_size < 100_000
    assert_refused(path, "got 1 of 25,000 written", "cells.gctx", values="log2")


def test_several_genomes_need_one_that_is_named(tmp_path, assert_refused):
    adata = files.make_adata(COUNTS, GENES)
    path = files.write_old_tenx_h5(adata, tmp_path, ("hg19", "mm10"))
    assert_refused(path, "'hg19', 'mm10'", "cells.h5")
    assert_refused(path, "'hg19', 'mm10', got 'hg38'", "cells.h5", genome="hg38")
    path = files.write_tenx_h5(adata, tmp_path)
    with h5py.File(path, "r+") as file:
        file["matrix/features/genome"][0] = b"mm10"
    assert_refused(path, "'GRCh38', 'mm10'", "cells.h5")


@pytest.mark.parametrize("part", ["barcodes", "features/name", "indptr"])
def test_a_ten_x_file_without_a_part(part, tmp_path, assert_refused):
    path = files.write_tenx_h5(files.make_adata(COUNTS, GENES), tmp_path)
    with h5py.File(path, "r+") as file:
        del file[f"matrix/{part}"]
    assert_refused(path, part, "cells.h5", format="10x_h5")


@pytest.mark.parametrize("part", ["barcodes", "features/genome"])
def test_a_ten_x_file_whose_parts_disagree(part, tmp_path, assert_refused):
    path = files.write_tenx_h5(files.make_adata(COUNTS, GENES), tmp_path)
    with h5py.File(path, "r+") as file:
        short = file[f"matrix/{part}"][:-1]
        del file[f"matrix/{part}"]
        file[f"matrix/{part}"] = short
    assert_refused(path, "3" if "genome" in part else "2 barcodes", "cells.h5")


SENTENCES = {"c1": "ISG15 CD3D", "c2": "CD3D IFI6 ISG15"}


def test_a_data_set_of_sentences(tmp_path, assert_refused):
    path = files.write_sentences(SENTENCES, tmp_path, kind=["B", "T"])
    assert_refused(path, "'kin'", "did you mean 'kind'", values="ranks", obs=["kin"])
    assert_refused(path, "got counts for cell2sentence")
    (path / "vocabulary.json").write_text('{"ISG15": 2, "CD3D": 2}')
    assert_refused(path, "must be in vocabulary.json, got 'IFI6'", values="ranks")
    (path / "vocabulary.json").unlink()
    cut(path / "data-00000-of-00001.arrow")
    assert_refused(path, "a whole folder of save_to_disk", "sentences", values="ranks")


def test_sentences_of_ids_or_of_two_cases(tmp_path, assert_refused):
    path = files.write_sentences({"c": " ".join(f"ENSG0000018760{i}" for i in range(4))}, tmp_path)
    assert_refused(path, "ENSG00000187600", "symbol", values="ranks")
    path = files.write_sentences({"c": "Isg15 ISG15"}, tmp_path)
    assert_refused(path, "unique in upper case", values="ranks", gene_case="upper")
    assert_refused(path, "cannot be added", values="ranks", gene_case="upper", duplicates="sum")
