"""The line from rank to expression, and sentence -> expression -> sentence."""

import anndata
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2s_rl.cells.rank import rank_rows, stable_hash
from c2s_rl.cells.rank_model import (
    RankForm,
    RankModel,
    fit_rank_model,
    fit_rank_sums,
    rank_sums,
    sentence_to_expression,
)
from c2s_rl.errors import DataError
from tests.benchmarks.peers import load_cell2sentence


def floats(values):
    return np.array(values, dtype=np.float32)


def bounds(*lengths):
    return np.cumsum([0, *lengths])


def test_a_line_in_log_rank_is_found_exactly():
    # Ranks 1, 10 and 100 are 0, 1 and 2 decades: 5 - 2 * log10(rank).
    values = 5 - 2 * np.log10(np.arange(1, 101))
    model = fit_rank_model(bounds(100), floats(values), form=RankForm.LOG_RANK)
    assert model.slope == pytest.approx(-2, abs=1e-5)
    assert model.intercept == pytest.approx(5, abs=1e-5)
    assert model.r2 == pytest.approx(1, abs=1e-6)


def test_r2_is_of_single_values_not_of_their_means():
    # Two cells of two genes, ranks 1 and 2, values (4, 2) and (2, 0). Means 3 and 1: the line is
    # 5 - 2 * rank. Total sum of squares about 2: 4 + 0 + 0 + 4 = 8; residuals 1 each: 4.
    model = fit_rank_model(bounds(2, 2), floats([4, 2, 2, 0]), form=RankForm.LINEAR)
    assert (model.slope, model.intercept) == pytest.approx((-2, 5))
    assert model.r2 == pytest.approx(1 - 4 / 8)


def test_a_rank_that_more_cells_reach_weighs_more():
    # Rank 1 in three cells (value 3 each), ranks 2 and 3 in one (values 2 and 0).
    # n = 5, mean rank 8/5, mean value 11/5; Sxy = 3(-.6)(.8) + .4(-.2) + 1.4(-2.2) = -4.6,
    # Sxx = 3(.36) + .16 + 1.96 = 3.2: slope -1.4375, intercept 2.2 + 1.4375 * 1.6 = 4.5.
    model = fit_rank_model(bounds(1, 1, 3), floats([3, 3, 3, 2, 0]), form=RankForm.LINEAR)
    assert (model.slope, model.intercept) == pytest.approx((-1.4375, 4.5))


def test_one_rank_gives_a_flat_line():
    model = fit_rank_model(bounds(1, 1), floats([1, 3]), form=RankForm.LOG_RANK)
    assert (model.slope, model.intercept, model.r2) == (0, 2, 0)


def test_no_expressed_gene_is_refused():
    with pytest.raises(DataError, match="at least one expressed gene"):
        fit_rank_model(bounds(0, 0), floats([]), form=RankForm.LOG_RANK)


@given(st.permutations(range(12)), st.integers(1, 11))
def test_the_fit_does_not_depend_on_the_order_or_the_chunks_of_cells(order, cut):
    rng = np.random.default_rng(0)
    cells = [np.sort(rng.lognormal(size=n).astype(np.float32))[::-1] for n in range(1, 13)]

    def sums_of(indices):
        chosen = [cells[i] for i in indices]
        return rank_sums(bounds(*map(len, chosen)), np.concatenate(chosen))

    whole = fit_rank_sums(sums_of(range(12)), form=RankForm.LOG_RANK)
    parts = fit_rank_sums(sums_of(order[:cut]) + sums_of(order[cut:]), form=RankForm.LOG_RANK)
    assert whole == parts  # bitwise


def test_expression_counts_ranks_from_one_and_stops_at_zero():
    log_model = RankModel(RankForm.LOG_RANK, slope=-2, intercept=3, r2=1)
    # 3 - 2 log10(rank): 3 at rank 1, 1 at rank 10, below 0 from rank 32 on.
    expression = log_model.expression(100)
    assert expression[[0, 9]].tolist() == pytest.approx([3, 1])
    assert expression[30] > 0 == expression[31]
    linear = RankModel(RankForm.LINEAR, slope=-1, intercept=3, r2=1)
    assert linear.expression(4).tolist() == [2, 1, 0, 0]


def test_a_sentence_becomes_expression_and_the_same_sentence_again():
    model = RankModel(RankForm.LOG_RANK, slope=-1.6, intercept=6.2, r2=0.9)
    genes_K = np.random.default_rng(0).permutation(300)[:200].astype(np.int32)
    expression = sentence_to_expression(genes_K, model, 300)
    assert np.count_nonzero(expression) == 200
    again = rank_rows(
        np.array([0, 300], dtype=np.int64),
        np.arange(300, dtype=np.int32),
        expression,
        cell_hashes=np.zeros(1, dtype=np.uint64),
        gene_hashes=np.arange(300, dtype=np.uint64),
        top_k=None,
    )
    np.testing.assert_array_equal(again.genes, genes_K)


def test_the_line_equals_the_packages_fit():
    """cell2sentence fits ranks below 1,000 only; its ranks count from 0, as log10(1 + rank)."""
    from sklearn.linear_model import LinearRegression
    from sklearn.metrics import r2_score

    rng = np.random.default_rng(0)
    dense = np.log1p(rng.negative_binomial(1, 0.4, size=(30, 2000)) * rng.lognormal(size=2000))
    dense = dense.astype(np.float32)
    assert np.count_nonzero(dense, axis=1).max() > 1000  # so that some ranks are left out
    peer = load_cell2sentence()
    table = peer.get_benchmark_df(dense, peer.sort_transcript_counts(dense))
    x, y = table["log_rank_normalized_expression"], table["normalized_expression"]
    is_fitted = x < peer.BASE10_THRESHOLD
    line = LinearRegression().fit(x[is_fitted].to_numpy().reshape(-1, 1), y[is_fitted])
    r2 = r2_score(y[is_fitted], line.predict(x[is_fitted].to_numpy().reshape(-1, 1)))

    ranked = [np.sort(row[row > 0])[::-1][:999] for row in dense]
    model = fit_rank_model(
        bounds(*map(len, ranked)), np.concatenate(ranked), form=RankForm.LOG_RANK
    )
    assert model.slope == pytest.approx(line.coef_.item(), rel=1e-5)
    assert model.intercept == pytest.approx(line.intercept_.item(), rel=1e-5)
    assert model.r2 == pytest.approx(r2, rel=1e-5)


def test_the_line_of_the_kang_cells_is_the_published_one(data_dir):
    adata = anndata.read_h5ad(data_dir / "kang" / "kang_ifnb_2000x13215.h5ad")
    csr = adata.X.tocsr()
    rows = rank_rows(
        csr.indptr.astype(np.int64),
        csr.indices.astype(np.int32),
        csr.data,
        cell_hashes=np.array([stable_hash(c, 0) for c in adata.obs_names], dtype=np.uint64),
        gene_hashes=np.array([stable_hash(g, 0) for g in adata.var_names], dtype=np.uint64),
        top_k=None,
    )
    model = fit_rank_model(rows.indptr, rows.values, form=RankForm.LOG_RANK)
    # The data README has -0.7149, 2.6759 and R^2 0.872 in log10 units, as cell2sentence fits it:
    # to 1,024 sampled cells and ranks below 1,000 only. All cells and all ranks move it a little.
    assert model.slope / np.log(10) == pytest.approx(-0.7149, abs=0.005)
    assert model.intercept / np.log(10) == pytest.approx(2.6759, abs=0.01)
    assert model.r2 == pytest.approx(0.872, abs=0.003)
    linear = fit_rank_model(rows.indptr, rows.values, form=RankForm.LINEAR)
    assert linear.r2 == pytest.approx(0.532, abs=0.002)
