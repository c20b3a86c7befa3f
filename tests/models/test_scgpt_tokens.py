"""Tokens and bins of a cell, by hand and against scgpt's own binning."""

import logging

import numpy as np
import pytest

from c2s_rl.cells.rank_model import RankForm, RankModel
from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.errors import DataError
from c2s_rl.models.scgpt_tokens import (
    BinScope,
    CellTokenizer,
    check_coverage,
    rank_bins,
    scgpt_rows,
)
from tests.benchmarks.peers import load_scgpt
from tests.models.scgpt_folders import int32


def test_bins_run_from_the_highest_to_one():
    # K = 3: places 2, 1, 0 of 2 -> 1 + floor(49 i / 2) = 50, 25, 1
    assert rank_bins(3, 51).tolist() == [50, 25, 1]
    assert rank_bins(2, 51).tolist() == [50, 1]
    assert rank_bins(1, 51).tolist() == [50]
    assert rank_bins(0, 51).tolist() == []


@pytest.mark.parametrize("num_genes", [2, 7, 49, 50, 51, 80, 200, 1000])
@pytest.mark.parametrize(
    "model",
    [
        RankModel(RankForm.LOG_RANK, slope=-0.7149, intercept=2.6759, r2=0.87),
        RankModel(RankForm.LINEAR, slope=-0.011, intercept=15.0, r2=0.97),
    ],
)
def test_bins_are_those_of_the_package_on_the_values_of_the_rank_model(num_genes, model):
    binning = load_scgpt().preprocess.binning
    values = model.expression(num_genes).astype(np.float64)
    ours = rank_bins(num_genes, 51)
    theirs = binning(values, 51)
    # A value that lies on a cut lands on either side of it by the last bit of the package's floats.
    place = np.arange(num_genes - 1, -1, -1)
    on_cut = place * 49 % (num_genes - 1) == 0
    assert theirs[~on_cut].tolist() == ours[~on_cut].tolist()
    assert np.abs(theirs - ours).max() <= 1


def tokenizer(scope, *, seen=(0, 1, 2, 3, 4), max_genes=10):
    is_seen = np.isin(np.arange(5), seen)
    return CellTokenizer(int32(10, 11, -1, 13, 14), is_seen, scope, 51, max_genes)


def test_a_gene_that_scgpt_does_not_know_takes_no_bin():
    cell = tokenizer(BinScope.SENTENCE).tokens(int32(4, 2, 0, 1))
    assert cell.genes_T.tolist() == [14, 10, 11]
    assert cell.bins_T.tolist() == [50, 25, 1]


def test_genes_of_a_program_keep_their_level_in_the_sentence():
    cell = tokenizer(BinScope.SENTENCE, seen=(0, 1)).tokens(int32(4, 0, 1))
    assert (cell.genes_T.tolist(), cell.bins_T.tolist()) == ([10, 11], [25, 1])


def test_genes_of_a_program_share_out_all_bins_by_themselves():
    cell = tokenizer(BinScope.SUBSET, seen=(0, 1)).tokens(int32(4, 0, 1))
    assert (cell.genes_T.tolist(), cell.bins_T.tolist()) == ([10, 11], [50, 1])


def test_the_highest_genes_are_kept_where_a_cell_is_too_long():
    cell = tokenizer(BinScope.SENTENCE, max_genes=2).tokens(int32(3, 0, 1))
    assert (cell.genes_T.tolist(), cell.bins_T.tolist()) == ([13, 10], [50, 25])


@pytest.mark.parametrize("scope", BinScope)
@pytest.mark.parametrize("genes", [int32(), int32(2)])
def test_a_cell_without_a_known_gene_has_no_tokens(scope, genes):
    cell = tokenizer(scope).tokens(genes)
    assert len(cell.genes_T) == len(cell.bins_T) == 0


def test_symbols_are_looked_up_as_written_and_then_in_upper_case():
    written = ("Isg15", "Cd3e", "CD3E", "C1orf112", "B2M")
    tokens = {"ISG15": 7, "CD3E": 3, "C1orf112": 5}
    # CD3E is a gene of its own here, so Cd3e is not taken for it.
    assert scgpt_rows(Vocabulary(written, written), tokens).tolist() == [7, -1, 3, 5, -1]


def test_unknown_genes_are_counted_and_named(caplog):
    symbols = ("A", "B", "C")
    with caplog.at_level(logging.INFO):
        known = check_coverage(int32(0, -1, 1), int32(0, 1), Vocabulary(symbols, symbols), "f")
    assert known == 1
    assert "scGPT knows 1 of 2 genes that are looked at, not 'B'" in caplog.text


def test_no_known_gene_is_an_error():
    symbols = ("Gapdh", "Actb")
    with pytest.raises(
        DataError, match=r"must know a gene .* got none of 2 \('Gapdh', 'Actb'\) in f"
    ):
        check_coverage(int32(-1, -1), int32(0, 1), Vocabulary(symbols, symbols), "f")
