"""Mean profiles and their ranking, against means worked out by hand."""

import random

import numpy as np
import pytest

from c2s_rl.cells.rank import stable_hash
from c2s_rl.data.cell_table import CellTable, sliced
from c2s_rl.data.pseudobulk import MeanProfiles, mean_expression, rank_pseudobulks

# Three cells over four genes:  a: g0 = 3, g1 = 1    b: g1 = 2    c: g2 = 0.3, g0 = 0.1
TABLE = CellTable(
    cell_ids=("a", "b", "c"),
    indptr=np.array([0, 2, 3, 5], dtype=np.int64),
    genes=np.array([0, 1, 1, 2, 0], dtype=np.int32),
    values=np.array([3.0, 1.0, 2.0, 0.3, 0.1], dtype=np.float32),
)
HASHES = np.array([stable_hash(f"G{i}", 0) for i in range(4)], dtype=np.uint64)


def test_mean_counts_unexpressed_genes_as_zero() -> None:
    # g0: (3 + 0) / 2, g1: (1 + 2) / 2
    np.testing.assert_allclose(mean_expression(TABLE, [0, 1], 4), [1.5, 1.5, 0, 0])


def test_ranking_holds_every_expressed_gene_highest_mean_first() -> None:
    # Means over all three: g0 = 3.1 / 3, g1 = 1, g2 = 0.1; g3 is in no cell.
    ranked = rank_pseudobulks(TABLE, {"all": [0, 1, 2]}, gene_hashes=HASHES, seed=0)
    assert ranked["all"].tolist() == [0, 1, 2]


def test_ties_break_by_seed_and_group_name() -> None:
    rows_of = {f"group{i}": [0, 1] for i in range(40)}  # g0 and g1 are tied in every group
    first = rank_pseudobulks(TABLE, rows_of, gene_hashes=HASHES, seed=0)
    orders = [genes.tolist() for genes in first.values()]
    assert {tuple(order) for order in orders} == {(0, 1), (1, 0)}
    again = rank_pseudobulks(TABLE, dict(reversed(rows_of.items())), gene_hashes=HASHES, seed=0)
    assert [again[name].tolist() for name in rows_of] == orders
    other = rank_pseudobulks(TABLE, rows_of, gene_hashes=HASHES, seed=1)
    assert [genes.tolist() for genes in other.values()] != orders


@pytest.mark.parametrize("seed", range(3))
def test_order_of_cells_leaves_the_mean_bitwise_equal(seed: int) -> None:
    generator = np.random.default_rng(seed)
    num = 300
    table = CellTable(
        cell_ids=tuple(f"c{i}" for i in range(num)),
        indptr=np.arange(num + 1, dtype=np.int64),
        genes=np.zeros(num, dtype=np.int32),
        values=generator.lognormal(sigma=8, size=num).astype(np.float32),
    )
    rows = list(range(num))
    shuffled = random.Random(seed).sample(rows, num)
    assert (
        mean_expression(table, rows, 1).tobytes() == mean_expression(table, shuffled, 1).tobytes()
    )


@pytest.mark.parametrize("seed", range(3))
def test_means_of_parts_are_those_of_the_whole_in_any_order(seed: int) -> None:
    generator = np.random.default_rng(seed)
    num, num_genes = 60, 7
    dense = generator.gamma(0.5, 3.0, (num, num_genes)) * (generator.random((num, num_genes)) < 0.5)
    present = [np.flatnonzero(row).astype(np.int32) for row in dense]
    table = CellTable(
        cell_ids=tuple(f"c{i}" for i in range(num)),
        indptr=np.cumsum([0, *map(len, present)]).astype(np.int64),
        genes=np.concatenate(present),
        values=np.concatenate([row[p] for row, p in zip(dense, present, strict=True)]).astype("f4"),
    )
    groups = [f"g{i % 3}" for i in range(num)]
    whole, parts = MeanProfiles(num_genes), MeanProfiles(num_genes)
    whole.add(table, groups)
    for start in (40, 0, 20):  # in another order than that of the cells
        parts.add(sliced(table, start, start + 20), groups[start : start + 20])
    means = whole.means()
    for name in ("g0", "g1", "g2"):
        assert means[name].tobytes() == parts.means()[name].tobytes()
        rows = [i for i in range(num) if groups[i] == name]
        expected = mean_expression(table, rows, num_genes)
        np.testing.assert_allclose(means[name], expected, rtol=1e-6)
