"""Which cells pass, and which genes are kept: by hand, and gene for gene as scanpy."""

import pickle
import warnings
from functools import reduce
from operator import add

import anndata
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from c2s_rl.cells.vocabulary import Duplicates, GeneCase, build_vocabulary
from c2s_rl.data.gene_stats import (
    SQUARE_HIGH,
    UNITS_PER_ONE,
    VALUE_HIGH,
    Flavor,
    QcConfig,
    SurveyRules,
    VariableGenesConfig,
    choose_genes,
    exact_sums,
    passing_cells,
    survey_chunk,
)
from c2s_rl.data.h5ad_matrix import CsrChunk
from c2s_rl.data.values import Values, normalise
from c2s_rl.errors import ConfigError, DataError

NO_QC = QcConfig(min_cells_per_gene=None, min_counts_per_cell=None)


def chunk_of(dense, start=0):
    rows = sparse.csr_array(dense)
    return CsrChunk(
        start,
        rows.indptr.astype(np.int64),
        rows.indices.astype(np.int32),
        rows.data.astype(np.float64),
    )


def columns_of(num_genes):
    names = [f"G{i:05d}" for i in range(num_genes)]
    return build_vocabulary(names, gene_case=GeneCase.KEEP, duplicates=Duplicates.ERROR)


def survey_of(dense, rules, batches=None):
    raw = chunk_of(dense)
    return survey_chunk(
        raw, normalise(raw, rules.values, columns_of(dense.shape[1])), rules, batches
    )


def rules_for(dense, qc=NO_QC, variable_genes=None, values=Values.COUNTS):
    return SurveyRules(values, dense.shape[1], qc, variable_genes)


def choose(dense, qc, variable_genes=None):
    survey = survey_of(dense, rules_for(dense, qc, variable_genes))
    symbols = columns_of(dense.shape[1]).vocabulary.symbols
    return choose_genes(survey, qc, variable_genes, symbols, place="toy").tolist()


def test_cells_pass_by_their_own_counts_and_genes():
    # Counts 3, 4 and 5; expressed genes 1, 2 and 3.
    raw = chunk_of(np.array([[3, 0, 0], [3, 1, 0], [3, 1, 1]]))
    by_counts = QcConfig(min_cells_per_gene=None, min_counts_per_cell=4)
    by_genes = QcConfig(min_cells_per_gene=None, min_counts_per_cell=None, min_genes_per_cell=3)
    assert passing_cells(raw, by_counts, Values.COUNTS).tolist() == [False, True, True]
    assert passing_cells(raw, by_genes, Values.COUNTS).tolist() == [False, False, True]
    assert passing_cells(raw, None, Values.COUNTS).all()


def test_genes_are_counted_in_the_cells_that_pass_only():
    # G0 is in 3 cells, of which one has too few counts; G1 is in 2 that pass.
    dense = np.array([[1, 0, 0], [4, 4, 0], [4, 4, 9]])
    assert choose(dense, QcConfig(min_cells_per_gene=3, min_counts_per_cell=None)) == [0]
    assert choose(dense, QcConfig(min_cells_per_gene=2, min_counts_per_cell=2)) == [0, 1]
    survey = survey_of(dense, rules_for(dense, QcConfig(min_counts_per_cell=2)))
    assert (survey.num_cells, survey.num_failed_cells) == (2, 1)
    assert survey.num_detected.tolist() == [2, 2, 1]


def test_sums_are_exact():
    # CP10k of one count of four is 2,500: log1p and back in float32 moves it in the 8th digit.
    dense = np.array([[1, 3], [1, 3]])
    rules = rules_for(dense, variable_genes=VariableGenesConfig())
    sums = survey_of(dense, rules).sums_B[""]
    value = float(np.expm1(np.log1p(np.float32(2500))))
    assert exact_sums(sums, VALUE_HIGH)[0] / UNITS_PER_ONE == pytest.approx(2 * value, abs=1e-9)
    assert exact_sums(sums, SQUARE_HIGH)[0] / UNITS_PER_ONE == pytest.approx(2 * value**2, abs=1e-9)


def random_counts(num_cells=200, num_genes=120):
    rng = np.random.default_rng(0)
    means = rng.lognormal(0, 1.5, size=num_genes)
    return rng.negative_binomial(1, 1 / (1 + means), size=(num_cells, num_genes))


@given(st.permutations(range(40)), st.integers(1, 39), st.sampled_from(list(Flavor)))
def test_a_survey_does_not_depend_on_the_order_or_the_chunks_of_cells(order, cut, flavor):
    dense = random_counts(40, 30)
    batches = np.array(["a", "b"] * 20)
    config = VariableGenesConfig(flavor=flavor, batch_column="batch")
    rules = rules_for(dense, QcConfig(min_counts_per_cell=20), config)
    whole = survey_of(dense, rules, batches)
    parts = [survey_of(dense[rows], rules, batches[rows]) for rows in (order[:cut], order[cut:])]
    total = reduce(add, pickle.loads(pickle.dumps(parts)))
    assert total.num_cells_B == whole.num_cells_B
    assert total.num_failed_cells == whole.num_failed_cells
    for batch, sums in whole.sums_B.items():
        np.testing.assert_array_equal(total.sums_B[batch], sums)


def scanpy_genes(counts, qc, config, batches=None):
    """Row numbers of the genes that scanpy keeps, by its own steps."""
    import scanpy as sc

    adata = anndata.AnnData(sparse.csr_matrix(counts.astype(np.float32)))
    adata.var["number"] = np.arange(adata.n_vars)
    if batches is not None:
        adata.obs["batch"] = batches
    sc.pp.filter_cells(adata, min_counts=qc.min_counts_per_cell)
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    sc.pp.filter_genes(adata, min_cells=qc.min_cells_per_gene)
    sc.pp.highly_variable_genes(
        adata,
        flavor=config.flavor.value,
        n_top_genes=config.num_genes,
        batch_key=None if batches is None else "batch",
    )
    return adata.var["number"][adata.var["highly_variable"]].tolist()


@pytest.mark.parametrize("flavor", list(Flavor))
@pytest.mark.parametrize("num_genes", [1, 17, 500])
@pytest.mark.filterwarnings("ignore")
def test_the_same_genes_as_scanpy(flavor, num_genes):
    counts = random_counts()
    qc = QcConfig(min_cells_per_gene=20, min_counts_per_cell=150)
    config = VariableGenesConfig(num_genes=num_genes, flavor=flavor)
    assert choose(counts, qc, config) == scanpy_genes(counts, qc, config)


@pytest.mark.parametrize("flavor", list(Flavor))
@pytest.mark.parametrize("is_batched", [False, True])
@pytest.mark.filterwarnings("ignore")
def test_the_same_genes_of_real_cells_as_scanpy(data_dir, flavor, is_batched):
    adata = anndata.read_h5ad(data_dir / "kang" / "kang_ifnb_2000x13215.h5ad")
    counts = adata.layers["counts"].tocsr()
    batches = adata.obs["condition"].to_numpy().astype(str) if is_batched else None
    qc = QcConfig(min_counts_per_cell=1500)  # 1,215 of the 2,000 cells pass
    config = VariableGenesConfig(
        num_genes=2000, flavor=flavor, batch_column="condition" if is_batched else None
    )
    genes = columns_of(adata.n_vars)
    rules = SurveyRules(Values.COUNTS, adata.n_vars, qc, config)
    parts = []
    for start in range(0, 2000, 777):
        raw = chunk_of(counts[start : start + 777], start)
        labels = None if batches is None else batches[start : start + 777]
        parts.append(survey_chunk(raw, normalise(raw, Values.COUNTS, genes), rules, labels))
    survey = reduce(add, reversed(parts))
    assert survey.num_cells == 1215
    chosen = choose_genes(survey, qc, config, genes.vocabulary.symbols, place="Kang")
    assert chosen.tolist() == scanpy_genes(counts, qc, config, batches)


def test_the_base_of_the_logarithm_is_undone():
    # log10(1 + 99) = 2: two cells with 99 and 0 have mean 49.5.
    raw = chunk_of(np.array([[2.0, 0.5], [0, 0.5]]))
    config = VariableGenesConfig()
    rules = SurveyRules(Values.LOG1P, 2, None, config, log_base=10)
    survey = survey_chunk(raw, normalise(raw, Values.LOG1P, columns_of(2)), rules)
    total = exact_sums(survey.sums_B[""], VALUE_HIGH)[0] / UNITS_PER_ONE
    assert total == pytest.approx(99, rel=1e-6)


def test_counts_cannot_be_asked_of_logarithms():
    raw = chunk_of(np.array([[0.5, 1.5]]))
    message = "min_counts_per_cell needs values: counts, got 50 with values: log1p; set it to null"
    with pytest.raises(ConfigError, match=message):
        passing_cells(raw, QcConfig(), Values.LOG1P)
    by_genes = QcConfig(min_counts_per_cell=None, min_genes_per_cell=2)
    assert passing_cells(raw, by_genes, Values.LOG1P).all()
    with pytest.raises(ConfigError, match="min_genes_per_cell needs values of which 0 is not"):
        passing_cells(raw, by_genes, Values.LOG2)


def test_nothing_left_is_refused():
    dense = np.array([[1, 0], [0, 1]])
    with pytest.raises(DataError, match="at least one cell, got none of 2 in toy; see qc"):
        choose(dense, QcConfig(min_counts_per_cell=5))
    with pytest.raises(DataError, match="at least one gene, got none of 2 in 3 cells or more of"):
        choose(dense, QcConfig(min_counts_per_cell=None))


def test_genes_too_alike_for_cell_ranger_are_refused():
    dense = np.ones((4, 30), dtype=np.int64)
    config = VariableGenesConfig(flavor=Flavor.CELL_RANGER)
    with pytest.raises(DataError, match="needs genes of 20 different means, got too many alike in"):
        choose(dense, NO_QC, config)


def test_values_that_are_no_logarithms_are_refused():
    raw = chunk_of(np.array([[60.5, 0.5]]))
    rules = SurveyRules(Values.LOG1P, 2, None, VariableGenesConfig())
    expression = normalise(raw, Values.LOG1P, columns_of(2))
    with pytest.raises(DataError, match=r"expression below 1.04858e\+06, got exp\(60.5\) - 1"):
        survey_chunk(raw, expression, rules)


def test_more_genes_than_there_are_keeps_those_that_vary(caplog):
    dense = random_counts(50, 40)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept = choose(dense, NO_QC, VariableGenesConfig(num_genes=41))
    expressed = [gene for gene in range(40) if dense[:, gene].any()]
    assert kept == expressed
    assert "num_genes is 41, but only 40 genes are left in toy" in caplog.text


def test_surveys_of_different_kinds_do_not_add_up():
    dense = random_counts(5, 5)
    plain = survey_of(dense, rules_for(dense))
    seurat = survey_of(dense, rules_for(dense, variable_genes=VariableGenesConfig()))
    with pytest.raises(ValueError, match="surveys must be of one kind, got None and seurat"):
        plain + seurat
