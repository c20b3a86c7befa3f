"""Cell shards: what is written is read, and a folder is whole or not there."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from c2s_rl.cells.rank_model import RankForm, RankModel
from c2s_rl.cells.vocabulary import Duplicates, GeneCase
from c2s_rl.data.cell_table import CellBuffer, CellTable, concatenated, sliced
from c2s_rl.data.part_file import write_part
from c2s_rl.data.shards import (
    CellManifest,
    SourceRecord,
    read_cells,
    read_manifest,
    write_manifest,
)
from c2s_rl.data.values import Values
from c2s_rl.errors import DataError, MissingFileError

SYMBOLS = ("CD3D", "NO", "SEPT1")


def manifest(num_cells, **changes):
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
        obs_columns=("cell_type", "donor"),
        num_missing_obs={"cell_type": 1, "donor": 0},
        sources=(
            SourceRecord(
                path="a.h5ad", sha256="00", values=Values.COUNTS, num_rows=8, num_cells=num_cells
            ),
        ),
        gene_case=GeneCase.UPPER,
        duplicates=Duplicates.ERROR,
        min_genes=1,
        max_genes=None,
        tie_break="hash",
        seed=42,
        **changes,
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


def write(folder, *tables, has_values=True, cells_per_group=1000):
    """Write one part a table."""
    folder.mkdir(exist_ok=True)
    names = []
    for number, cells in enumerate(tables):
        names.append(f"part-{number:05d}.parquet")
        path = folder / names[-1]
        starts = range(0, len(cells), cells_per_group)
        groups = [sliced(cells, i, min(i + cells_per_group, len(cells))) for i in starts]
        written = write_part(path, groups, source_file="a.h5ad", has_values=has_values)
        assert written == len(cells)
    written = manifest(sum(map(len, tables)), parts=tuple(names), has_values=has_values)
    write_manifest(folder, written)
    return written


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
    for name, kind in {"genes": pa.int32(), "values": pa.float32()}.items():
        whole = pa.list_(pa.field("element", kind, nullable=False))
        assert schema.field(name).equals(pa.field(name, whole, nullable=False))
    assert pa.types.is_dictionary(schema.field("cell_type").type)
    assert parquet.read()["cell_type"].to_pylist() == ["T", None, "B cell", "T", None]
    assert parquet.read()["source_file"].to_pylist() == ["a.h5ad"] * 5
    assert parquet.metadata.row_group(0).column(0).compression == "ZSTD"


def test_parts_follow_each_other(tmp_path):
    write(tmp_path / "cells", table(5), table(3, 5), table(1, 8))
    assert_same(read_cells(tmp_path / "cells", ["cell_type", "donor"]), table(9))


@pytest.mark.parametrize("has_values", [True, False])
def test_a_buffer_gathers_tables_in_the_memory_it_has(has_values):
    buffer = CellBuffer(has_values=has_values)
    for sizes in ((2, 3), (200, 4), (1, 1)):  # the second does not fit, the third does
        tables = [table(sizes[0]), table(sizes[1], sizes[0])]
        for part in tables:
            genes, values = buffer.room(len(part.genes) + 5)  # more than is used
            genes[: len(part.genes)] = part.genes
            values[: len(part.values)] = part.values if has_values else 0
            lengths = np.diff(part.indptr)
            buffer.add(part.cell_ids, lengths, obs=part.obs, source_rows=part.source_rows)
        whole = concatenated(tables)
        gathered = buffer.taken()
        assert_same(gathered, whole if has_values else replace(whole, values=whole.values[:0]))
    assert np.shares_memory(gathered.genes, buffer.room(1)[0])


def test_groups_of_a_part_follow_each_other_and_empty_ones_leave_nothing(tmp_path):
    groups = [table(2), sliced(table(), 0, 0), table(3, 2)]
    path = tmp_path / "part-00000.parquet"
    assert write_part(path, groups, source_file="a.h5ad", has_values=True) == 5
    assert pq.ParquetFile(path).num_row_groups == 2
    assert pq.read_table(path)["cell_id"].to_pylist() == [f"c{i}" for i in range(5)]
    nothing = tmp_path / "part-00001.parquet"
    assert write_part(nothing, groups[1:2], source_file="a.h5ad", has_values=True) == 0
    assert not nothing.exists()


def test_cells_are_cut_and_joined(tmp_path):
    whole = concatenated([table(2), table(4, 2)])
    assert_same(whole, table(6))
    assert sliced(whole, 4, 6).genes_of(1).tolist() == [0, 1, 2]  # cell 5 has 3 genes


def test_without_values_those_of_the_rank_model_stand_for_them(tmp_path):
    write(tmp_path / "cells", table(), has_values=False)
    schema = pq.read_schema(tmp_path / "cells" / "part-00000.parquet")
    assert "values" not in schema.names
    cells = read_cells(tmp_path / "cells")
    np.testing.assert_array_equal(cells.genes, table().genes)
    # intercept 6.151, slope -1.6408: 6.151 - 1.6408 log10(2) = 5.6571, and log10(3): 5.3681.
    np.testing.assert_allclose(cells.values_of(2), [6.151, 5.6571, 5.3681], atol=1e-4)


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
        ("schema_version", 0, "must have schema_version 2, got 0 .*convert the cells again"),
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
