"""Cells for a corpus: labels first, genes part by part; shards and a table give the same."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from c2s_rl.data import shards
from c2s_rl.data.cell_source import CellSource, ShardSource, TableSource
from c2s_rl.data.shards import read_cells, read_manifest
from c2s_rl.errors import DataError, MissingFileError
from tests.data.test_shards import table, write

NUM_CELLS = 40


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """40 cells in row groups of 4, two groups a part."""
    monkeypatch.setattr(shards, "CELLS_PER_GROUP", 4)
    monkeypatch.setattr(shards, "GROUPS_PER_PART", 2)
    write(tmp_path / "cells", table(NUM_CELLS))
    return tmp_path / "cells"


def in_memory(folder: Path) -> TableSource:
    manifest = read_manifest(folder)
    cells = read_cells(folder, ["donor", "cell_type"])
    return TableSource(cells, manifest.vocabulary, manifest.organism, manifest.seed)


def read(source: CellSource, rows: Sequence[int], *, with_values: bool) -> list[tuple[object, ...]]:
    found: list[tuple[object, ...]] = []
    for portion in source.portions(np.array(rows, dtype=np.int64), with_values=with_values):
        cells = portion.table
        for i, row in enumerate(portion.rows.tolist()):
            values = cells.values_of(i).tolist() if with_values else []
            found.append((row, cells.cell_ids[i], cells.genes_of(i).tolist(), values))
    return found


def test_labels_are_read_without_genes(folder: Path) -> None:
    source, whole = ShardSource(folder, ("donor", "cell_type")), in_memory(folder)
    assert list(source.labels.cell_ids) == list(whole.labels.cell_ids)
    for column in ("donor", "cell_type"):
        assert source.labels.obs[column].tolist() == whole.labels.obs[column].tolist()
    assert (source.organism, source.seed) == ("Mus musculus", 42)
    assert source.vocabulary.symbols == whole.vocabulary.symbols


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(st.integers(0, NUM_CELLS - 1)), st.booleans())
def test_chosen_cells_of_shards_are_those_of_the_table(
    folder: Path, rows: set[int], with_values: bool
) -> None:
    wanted = sorted(rows)
    got = read(ShardSource(folder, ()), wanted, with_values=with_values)
    assert got == read(in_memory(folder), wanted, with_values=with_values)
    assert [row for row, *_ in got] == wanted


def test_a_portion_is_no_more_than_a_row_group(folder: Path) -> None:
    rows = np.arange(NUM_CELLS, dtype=np.int64)
    sizes = [len(p.rows) for p in ShardSource(folder, ()).portions(rows, with_values=False)]
    assert sizes == [4] * 10
    # Groups without a wanted cell are not read at all.
    few = np.array([5, 38], dtype=np.int64)
    assert [p.rows.tolist() for p in ShardSource(folder, ()).portions(few, with_values=True)] == [
        [5],
        [38],
    ]


def test_broken_shards_are_named(folder: Path) -> None:
    rows = np.arange(NUM_CELLS, dtype=np.int64)
    message = r"the obs column must be one of .*got 'doner'.*'donor'.*that convert\.obs took along"
    with pytest.raises(DataError, match=message):
        _ = ShardSource(folder, ("doner",)).labels
    part = folder / "part-00002.parquet"
    content = part.read_bytes()
    part.write_bytes(content[: len(content) // 2])
    for use in (
        lambda: ShardSource(folder, ()).labels,
        lambda: list(ShardSource(folder, ()).portions(rows, with_values=True)),
    ):
        with pytest.raises(DataError, match=r"must be whole Parquet, got .*part-00002\.parquet"):
            use()
    part.unlink()
    with pytest.raises(MissingFileError, match=r"got no .*part-00002\.parquet"):
        _ = ShardSource(folder, ()).labels


def test_parts_that_lack_cells_or_name_unknown_genes_are_refused(folder: Path) -> None:
    manifest = folder / "manifest.json"
    text = manifest.read_text()
    manifest.write_text(text.replace('"num_cells": 40', '"num_cells": 41'))
    with pytest.raises(DataError, match="must hold the 41 cells of the manifest, got 40 in"):
        _ = ShardSource(folder, ()).labels
    manifest.write_text(text.replace(',\n  "SEPT1"', "").replace(',\n  "Sept1"', ""))
    rows = np.arange(NUM_CELLS, dtype=np.int64)
    with pytest.raises(DataError, match=r"genes must be in 0\.\.1, got others in .*part-00000"):
        list(ShardSource(folder, ()).portions(rows, with_values=False))
