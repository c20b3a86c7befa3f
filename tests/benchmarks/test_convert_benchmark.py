"""The benchmark runs; its figure is read by people, not tested."""

import pytest

from c2s_rl.errors import MissingFileError
from tests.benchmarks import convert


def test_both_sides_run_and_write_the_same_genes_of_drawn_cells(tmp_path, monkeypatch):
    monkeypatch.setenv("C2S_RL_DATA", str(tmp_path))  # no Kang cells there
    with convert.cells_at_hand(None) as (data, what):
        result = convert.compare(data, 20, what=what, rounds=1)
    assert result.ratio > 0
    assert result.workload.startswith("20 drawn cells, 700 genes a cell")
    assert not data.exists()


def test_cells_that_are_named_are_taken(tmp_path):
    (tmp_path / "mine.h5ad").touch()
    with convert.cells_at_hand(tmp_path / "mine.h5ad") as (data, what):
        assert (data.name, what) == ("mine.h5ad", "cells of mine.h5ad")
    with (
        pytest.raises(MissingFileError, match="--data must be a file"),
        convert.cells_at_hand(tmp_path / "none.h5ad"),
    ):
        pass


def test_the_kang_cells_are_taken_where_they_are(data_dir, monkeypatch):
    monkeypatch.setenv("C2S_RL_DATA", str(data_dir))
    with convert.cells_at_hand(None) as (data, what):
        assert (data, what) == (data_dir / convert.KANG, "Kang cells")
