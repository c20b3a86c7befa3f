"""Cell shards: what is written is read, and a folder is whole or not there."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from c2s_rl.cells.rank_model import RankForm, RankModel
from c2s_rl.cells.vocabulary import Duplicates, GeneCase
from c2s_rl.data import shards
from c2s_rl.data.cell_table import CellTable, concatenated, regrouped, sliced
from c2s_rl.data.shards import CellManifest, read_cells, read_manifest, write_cells
from c2s_rl.data.values import Values
from c2s_rl.errors import DataError, MissingFileError, StageError

SYMBOLS = ("CD3D", "NO", "SEPT1")


def manifest(num_cells):
    return CellManifest(
        symbols=SYMBOLS,
        original=("Cd3d", "No", "Sept1"),
        organism="Mus musculus",
        normalisation="log1p(CP10k)",
        rank_model=RankModel(RankForm.LOG_RANK, slope=-1.6408, intercept=6.151, r2=0.873),
        num_cells=num_cells,
        num_dropped_empty=1,
        num_dropped_min_genes=2,
        num_dropped_genes=3,
        num_explicit_zeros=4,
        num_duplicate_columns=5,
        obs_columns=("cell_type", "donor"),
        num_missing_obs={"cell_type": 1, "donor": 0},
        source="a.h5ad",
        source_sha256="00",
        matrix="X",
        values=Values.COUNTS,
        gene_case=GeneCase.UPPER,
        duplicates=Duplicates.ERROR,
        min_genes=1,
        max_genes=None,
        tie_break="hash",
        seed=42,
    )


def table(num_cells=5, start=0):
    """Cells of 1, 2, 3, 1, 2, ... genes."""
    lengths = [1 + i % 3 for i in range(start, start + num_cells)]
    return CellTable(
        cell_ids=tuple(f"c{i}" for i in range(start, start + num_cells)),
        indptr=np.cumsum([0, *lengths]),
        genes=np.array([g for n in lengths for g in range(n)], dtype=np.int32),
        values=np.array([n - g for n in lengths for g in range(n)], dtype=np.float32),
        obs={
            "cell_type": np.array([["T", "", "B cell"][n - 1] for n in lengths], dtype=np.str_),
            "donor": np.full(num_cells, "d1"),
        },
        source_rows=np.arange(start, start + num_cells),
    )


def write(folder, *tables):
    num_cells = sum(map(len, tables))
    return write_cells(folder, tables, lambda: manifest(num_cells), source_file="a.h5ad")


def assert_same(got, expected):
    assert got.cell_ids == expected.cell_ids
    for name in ("indptr", "genes", "values", "source_rows"):
        np.testing.assert_array_equal(getattr(got, name), getattr(expected, name))
    for name, labels in expected.obs.items():
        assert got.obs[name].tolist() == labels.tolist()


def test_cells_are_read_as_written(tmp_path):
    written = write(tmp_path / "cells", table())
    assert read_manifest(tmp_path / "cells") == written
    assert written.vocabulary.index_of("NO") == 1
    assert_same(read_cells(tmp_path / "cells", ["donor", "cell_type"]), table())


def test_a_cell_is_looked_up_by_position(tmp_path):
    write(tmp_path / "cells", table())
    cells = read_cells(tmp_path / "cells")
    assert (cells.genes_of(1).tolist(), cells.values_of(1).tolist()) == ([0, 1], [2, 1])
    assert cells.obs == {}


def test_the_schema_is_the_documented_one(tmp_path):
    write(tmp_path / "cells", table())
    parquet = pq.ParquetFile(tmp_path / "cells" / "part-00000.parquet")
    schema = parquet.schema_arrow
    assert schema.field("genes").type == pa.list_(pa.int32())
    assert schema.field("values").type == pa.list_(pa.float32())
    assert pa.types.is_dictionary(schema.field("cell_type").type)
    assert parquet.read()["cell_type"].to_pylist() == ["T", None, "B cell", "T", None]
    assert parquet.read()["source_file"].to_pylist() == ["a.h5ad"] * 5
    assert parquet.metadata.row_group(0).column(0).compression == "ZSTD"


@pytest.mark.parametrize("portion", [1, 2, 5, 23])
def test_many_parts_hold_the_same_cells_in_the_same_bytes(tmp_path, monkeypatch, portion):
    monkeypatch.setattr(shards, "CELLS_PER_GROUP", 4)
    monkeypatch.setattr(shards, "GROUPS_PER_PART", 2)
    portions = [table(min(portion, 23 - s), s) for s in range(0, 23, portion)]
    whole = concatenated(portions)
    write(tmp_path / "portions", *portions)
    # 23 cells in groups of 4, two groups a part: 8 + 8 + 7.
    assert read_manifest(tmp_path / "portions").parts == tuple(
        f"part-0000{i}.parquet" for i in range(3)
    )
    assert_same(read_cells(tmp_path / "portions", ["cell_type", "donor"]), whole)
    write(tmp_path / "whole", whole)
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "portions" / path.name).read_bytes()


def test_regrouping_keeps_the_order():
    groups = list(regrouped([table(2), table(0, 2), table(7, 2)], 4))
    assert [len(group) for group in groups] == [4, 4, 1]
    assert concatenated(groups).cell_ids == tuple(f"c{i}" for i in range(9))
    assert sliced(groups[1], 1, 3).genes_of(0).tolist() == [0, 1, 2]  # cell 5 has 3 genes


def test_an_interrupted_write_leaves_nothing(tmp_path):
    def portions():
        yield table()
        raise DataError("broken half-way")

    with pytest.raises(DataError, match="half-way"):
        write_cells(tmp_path / "cells", portions(), lambda: manifest(5), source_file="a.h5ad")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_rewrite_keeps_the_earlier_output(tmp_path):
    write(tmp_path / "cells", table())
    with pytest.raises(DataError, match=r"at least one cell, got none from a\.h5ad"):
        write(tmp_path / "cells")
    assert len(read_cells(tmp_path / "cells")) == 5


def test_an_earlier_output_is_replaced_as_a_whole(tmp_path):
    write(tmp_path / "cells", table(5))
    (tmp_path / "cells" / "part-00009.parquet").touch()
    write(tmp_path / "cells", table(3))
    assert len(read_cells(tmp_path / "cells")) == 3
    assert not (tmp_path / "cells" / "part-00009.parquet").exists()


def test_a_folder_of_something_else_is_not_touched(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(StageError, match=r"must be new, empty or hold manifest\.json"):
        write(tmp_path, table())
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_an_unknown_column_names_the_nearest(tmp_path):
    write(tmp_path / "cells", table())
    message = r"the obs column must be one of 'cell_type', 'donor', got 'donors' .*mean 'donor'\?"
    with pytest.raises(DataError, match=message):
        read_cells(tmp_path / "cells", ["donors"])


def test_missing_files_are_named(tmp_path):
    with pytest.raises(MissingFileError, match=r"must hold manifest\.json, got none"):
        read_manifest(tmp_path)
    write(tmp_path / "cells", table())
    (tmp_path / "cells" / "part-00000.parquet").unlink()
    with pytest.raises(MissingFileError, match=r"got no .*part-00000\.parquet"):
        read_cells(tmp_path / "cells")


def test_a_damaged_part_is_refused(tmp_path):
    write(tmp_path / "cells", table())
    part = tmp_path / "cells" / "part-00000.parquet"
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"must be whole Parquet, got .* in .*part-00000\.parquet"):
        read_cells(tmp_path / "cells")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("schema_version", 0, "must have schema_version 1, got 0 .*convert the cells again"),
        ("num_cells", 6, "must hold the 6 cells of the manifest, got 5"),
        ("symbols", ["CD3D", "NO"], r"genes must be in 0\.\.1, got others"),
        ("rank_model", {"form": "log_rank"}, "must be of cell shards, got .* at 'rank_model"),
        ("seed", "x", "must be of cell shards, got .* at 'seed'"),
    ],
)
def test_a_manifest_that_contradicts_is_refused(tmp_path, key, value, message):
    write(tmp_path / "cells", table())
    path = tmp_path / "cells" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(DataError, match=message):
        read_cells(tmp_path / "cells")


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_a_manifest_that_is_none_is_refused(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(DataError, match="a manifest must be JSON of cell shards"):
        read_manifest(tmp_path)
