"""Toy cells: two types, two conditions, two donors, values drawn per cell id."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from c2s_rl.cells.rank import rank_rows, stable_hash
from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.data.cell_source import TableSource
from c2s_rl.data.cell_table import CellTable
from tests.refused import Refused

SYMBOLS = tuple(f"G{i}" for i in range(12))
SEED = 42
MakeSource = Callable[[Sequence[tuple[str, str, str, str]]], TableSource]


def make_source(cells: Sequence[tuple[str, str, str, str]]) -> TableSource:
    """Make cells of (id, cell type, condition, donor); each has about half of the 12 genes."""
    rows = []
    for cell_id, *_ in cells:
        generator = np.random.default_rng(stable_hash(cell_id, 0))
        # Few distinct values, so that most genes are tied, as in real cells.
        rows.append(generator.choice([0.0, 0.0, 0.0, 1.0, 1.5, 2.5], size=len(SYMBOLS)))
    dense = np.array(rows, dtype=np.float32)
    present = [np.flatnonzero(row).astype(np.int32) for row in dense]
    ranked = rank_rows(
        np.cumsum([0, *(len(genes) for genes in present)], dtype=np.int64),
        np.concatenate(present),
        np.concatenate([row[genes] for row, genes in zip(dense, present, strict=True)]),
        cell_hashes=np.array([stable_hash(cell[0], SEED) for cell in cells], dtype=np.uint64),
        gene_hashes=np.array([stable_hash(s, SEED) for s in SYMBOLS], dtype=np.uint64),
        top_k=None,
    )
    columns = zip(*(cell[1:] for cell in cells), strict=True)
    table = CellTable(
        cell_ids=tuple(cell[0] for cell in cells),
        indptr=ranked.indptr,
        genes=ranked.genes,
        values=ranked.values,
        obs={
            name: np.array(values)
            for name, values in zip(("cell_type", "condition", "donor"), columns, strict=True)
        },
    )
    return TableSource(table, Vocabulary(SYMBOLS, SYMBOLS), "Homo sapiens", SEED)


@pytest.fixture
def source_of() -> MakeSource:
    return make_source


@pytest.fixture
def toy_cells() -> list[tuple[str, str, str, str]]:
    """80 cells: 20 of each cell type and condition, half of them from each donor."""
    return [
        (f"{cell_type}-{condition}-{donor}-{i}", cell_type, condition, donor)
        for cell_type in ("T cell", "B cell")
        for condition in ("control", "IFN-beta")
        for donor in ("d1", "d2")
        for i in range(10)
    ]


@pytest.fixture
def assert_refused(tmp_path: Path, capsys, monkeypatch) -> Refused:
    return Refused(tmp_path, capsys, monkeypatch)
