"""Cells for a corpus: labels first, genes part by part; shards and a table give the same."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from c2s_rl.data.cell_source import CellSource, ShardSource, TableSource
from c2s_rl.data.part_file import write_part
from c2s_rl.data.shards import read_cells, read_manifest, write_manifest
from c2s_rl.errors import DataError, MissingFileError
from tests.data.test_shards import manifest, table

NUM_CELLS = 40


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """40 cells in row groups of 4, two groups a part."""
    return written(tmp_path / "cells", has_values=True)


def written(folder: Path, *, has_values: bool) -> Path:
    folder.mkdir()
    names = [f"part-{number:05d}.parquet" for number in range(NUM_CELLS // 8)]
    for number, name in enumerate(names):
        groups = [table(4, start=8 * number), table(4, start=8 * number + 4)]
        write_part(folder / name, groups, source_file="a.h5ad", has_values=has_values)
    facts = manifest(NUM_CELLS, parts=tuple(names), has_values=has_values)
    write_manifest(folder, facts)
    return folder


def in_memory(folder: Path) -> TableSource:
    facts = read_manifest(folder)
    cells = read_cells(folder, ["donor", "cell_type"])
    return TableSource(cells, facts.vocabulary, facts.organism, facts.seed)


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


def test_genes_without_values_are_read_with_those_of_the_rank_model(tmp_path: Path) -> None:
    folder = written(tmp_path / "genes", has_values=False)
    rows = [0, 2, 39]
    got = read(ShardSource(folder, ()), rows, with_values=True)
    assert got == read(in_memory(folder), rows, with_values=True)
    # Cell 2 has three genes, at ranks 1, 2 and 3: 6.151 - 1.6408 log10(rank).
    assert got[1][3] == pytest.approx([6.151, 5.6571, 5.3681], abs=1e-3)


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
    path = folder / "manifest.json"
    text = path.read_text()
    path.write_text(text.replace('"num_cells": 40', '"num_cells": 41'))
    with pytest.raises(DataError, match="must hold the 41 cells of the manifest, got 40 in"):
        _ = ShardSource(folder, ()).labels
    path.write_text(text.replace(', "SEPT1"', "").replace(', "Sept1"', ""))
    rows = np.arange(NUM_CELLS, dtype=np.int64)
    with pytest.raises(DataError, match=r"genes must be in 0\.\.1, got others in .*part-00000"):
        list(ShardSource(folder, ()).portions(rows, with_values=False))
