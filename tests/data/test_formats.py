"""The same cells give the same shards, whatever the format they come in."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from c2s_rl.data.formats import Format, detect_format
from c2s_rl.data.source_config import FormatChoice
from c2s_rl.errors import ConfigError, DataError, MissingFileError
from c2s_rl.pipeline.convert import ConvertConfig, run
from tests import format_files as files

pytestmark = pytest.mark.filterwarnings("ignore:.*zarr.*")  # what the next release will do

CELLS = {
    "h5ad": lambda adata, folder: (files.write_h5ad(adata, folder), {}),
    "zarr 2": lambda adata, folder: (files.write_zarr(adata, folder, 2), {}),
    "zarr 3": lambda adata, folder: (files.write_zarr(adata, folder, 3), {}),
    "10x h5": lambda adata, folder: (files.write_tenx_h5(adata, folder, others=3), "obs"),
    "10x h5 of version 2": lambda adata, folder: (files.write_old_tenx_h5(adata, folder), "obs"),
    "mtx": lambda adata, folder: (files.write_mtx(adata, folder), "obs"),
    "mtx of version 2": lambda adata, folder: (
        files.write_mtx(adata, folder, is_old=True, is_gzip=False),
        "obs",
    ),
    "csv": lambda adata, folder: (files.write_table(adata, folder, ".csv"), {}),
    "csv.gz": lambda adata, folder: (files.write_table(adata, folder, ".csv.gz"), {}),
    "tsv and a table": lambda adata, folder: (
        files.write_table(adata, folder, ".tsv", has_labels=False),
        "obs",
    ),
    "parquet": lambda adata, folder: (files.write_table(adata, folder, ".parquet"), {}),
    "csv of genes by cells": lambda adata, folder: (
        files.write_table(adata, folder, ".csv", turned=True),
        {"orientation": "genes_by_cells", "tables": {"obs": str(files.write_obs(adata, folder))}},
    ),
    "parquet of genes by cells": lambda adata, folder: (
        files.write_table(adata, folder, ".parquet", turned=True),
        {"orientation": "genes_by_cells", "tables": {"obs": str(files.write_obs(adata, folder))}},
    ),
}


def convert(path, output, **options):
    """Convert and read back everything but the name of the file."""
    config = ConvertConfig.model_validate({"path": str(path), **options})
    manifest = run(config, output)
    tables = [pq.read_table(output / part) for part in manifest.parts]
    return manifest, [table.drop_columns(["source_file"]) for table in tables]


@pytest.mark.parametrize("name", CELLS)
def test_every_format_gives_the_shards_of_the_h5ad(tmp_path, name):
    adata = files.make_adata()
    (tmp_path / "h5ad").mkdir()
    path = files.write_h5ad(adata, tmp_path / "h5ad")
    _, expected = convert(path, tmp_path / "expected", obs=files.LABELS)
    path, options = CELLS[name](adata, tmp_path)
    if options == "obs":
        options = {"tables": {"obs": str(files.write_obs(adata, tmp_path))}}
    manifest, found = convert(path, tmp_path / "found", obs=files.LABELS, **options)
    assert found == expected
    assert manifest.symbols == tuple(adata.var_names)
    assert manifest.num_cells == 40


def test_the_choices_of_a_config_are_the_formats():
    assert {choice.value for choice in FormatChoice} == {"auto", *(kind.value for kind in Format)}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.h5ad", Format.H5AD),
        ("A.GCT.GZ", Format.GCT),
        ("a.gctx", Format.GCTX),
        ("counts.csv.gz", Format.CSV),
        ("counts.txt", Format.TSV),
        ("a.parquet", Format.PARQUET),
        ("GSM1_matrix.mtx.gz", Format.TENX_MTX),
    ],
)
def test_a_file_is_known_by_its_name(tmp_path, name, kind):
    (tmp_path / name).touch()
    assert detect_format(tmp_path / name) is kind


def test_folders_and_h5_files_are_known_by_what_they_hold(tmp_path):
    adata = files.make_adata()
    assert detect_format(files.write_tenx_h5(adata, tmp_path)) is Format.TENX_H5
    assert detect_format(files.write_mtx(adata, tmp_path)) is Format.TENX_MTX
    assert detect_format(files.write_zarr(adata, tmp_path).rename(tmp_path / "s")) is Format.ZARR
    adata.write_h5ad(tmp_path / "anndata.h5")
    assert detect_format(tmp_path / "anndata.h5") is Format.H5AD
    assert detect_format(files.write_sentences({"c": "A B"}, tmp_path)) is Format.CELL2SENTENCE


def test_what_is_no_format_is_said_with_what_was_seen(tmp_path):
    with pytest.raises(MissingFileError, match=r"must exist, got .*none\.h5"):
        detect_format(tmp_path / "none.h5")
    (tmp_path / "cells.loom").touch()
    with pytest.raises(DataError, match=r"must be one of \.h5ad, .* got 'cells.loom'"):
        detect_format(tmp_path / "cells.loom")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.md").touch()
    with pytest.raises(DataError, match=r"a zarr store, matrix.mtx or .*, got notes.md in"):
        detect_format(tmp_path / "folder")
    (tmp_path / "b.h5").write_bytes(b"no")
    with pytest.raises(DataError, match="must be a whole HDF5 file"):
        detect_format(tmp_path / "b.h5")


def test_a_format_that_is_named_goes_before_the_name(tmp_path):
    path = files.write_table(files.make_adata(), tmp_path, ".csv")
    path = path.rename(tmp_path / "cells.dat")
    manifest, _ = convert(path, tmp_path / "out", format="csv", obs=files.LABELS)
    assert manifest.num_cells == 40


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": "a.gctx"}, "a gctx file needs matrix: X and values: log2, got X and counts"),
        ({"path": "a.csv", "matrix": "raw"}, "matrix must be one that a csv file has, got 'raw'"),
        ({"path": "a.h5ad", "genome": "hg19"}, "genome must be one that an h5ad file has"),
        ({"path": "a.h5ad", "orientation": "genes_by_cells"}, "orientation must be one that"),
        ({"path": "a.h5ad", "values": "ranks"}, "values: ranks is for cell2sentence"),
        ({"path": "a", "format": "cell2sentence"}, "ranks is for cell2sentence .* got counts"),
        ({"path": "a.csv", "symbol_column": "s"}, "symbol_column must be one that a csv file has"),
        (
            {"path": "a.h5ad", "tables": {"profiles": "t.txt"}},
            "tables.profiles must be .* tables.obs is for every format",
        ),
        (
            {"path": "a.h5ad", "symbols": {"table": "t"}, "tables": {"genes": "t"}},
            "named by tables.genes or by symbols, got both",
        ),
    ],
)
def test_keys_without_effect_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ConvertConfig.model_validate(options)


def test_keys_of_another_format_are_refused_when_the_folder_is_opened(tmp_path):
    path = files.write_mtx(files.make_adata(), tmp_path)
    with pytest.raises(ConfigError, match="matrix must be one that a 10x_mtx file has"):
        convert(path, tmp_path / "out", matrix="raw")


def test_labels_that_no_table_has_are_asked_for(tmp_path):
    path = files.write_mtx(files.make_adata(), tmp_path)
    with pytest.raises(DataError, match="must be in a table beside a 10x_mtx file, got 'kind'"):
        convert(path, tmp_path / "out", obs=("kind",))


def test_log1p_values_survive_text(tmp_path):
    adata = files.make_adata()
    adata.X = adata.X.copy()
    adata.X.data = np.log1p(adata.X.data * np.float32(1234.567)).astype(np.float32)
    (tmp_path / "a").mkdir()
    h5ad = files.write_h5ad(adata, tmp_path / "a")
    _, expected = convert(h5ad, tmp_path / "expected", values="log1p", obs=files.LABELS)
    for suffix in (".csv", ".parquet"):
        path = files.write_table(adata, tmp_path, suffix)
        _, found = convert(path, tmp_path / suffix[1:], values="log1p", obs=files.LABELS)
        assert found == expected
