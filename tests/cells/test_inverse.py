"""Sentences back to expression, many at once: by hand, and as cell2sentence does it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2s_rl.cells.inverse import RepeatRule, sentences_to_expression
from c2s_rl.cells.rank import rank_rows
from c2s_rl.cells.rank_model import RankForm, RankModel, sentence_to_expression
from c2s_rl.cells.reading import UNKNOWN
from tests.benchmarks.peers import load_cell2sentence

# Values 4, 3, 2, 1 at ranks 1 to 4, and nothing from rank 5 on.
LINE = RankModel(RankForm.LINEAR, slope=-1, intercept=5, r2=1)
LOG_LINE = RankModel(RankForm.LOG_RANK, slope=-1.5, intercept=6, r2=0.9)  # above 0 to rank 10^4
NUM_GENES = 12
SYMBOLS = [f"G{i}" for i in range(NUM_GENES)]


def rows_of(sentences, model=LINE, repeats=RepeatRule.FIRST):
    indptr = np.cumsum([0, *map(len, sentences)], dtype=np.int64)
    words = np.array([word for sentence in sentences for word in sentence], dtype=np.int32)
    return sentences_to_expression(
        indptr, words, model, num_genes=NUM_GENES, repeats=RepeatRule(repeats)
    )


def cells_of(rows):
    bounds = zip(rows.indptr[:-1], rows.indptr[1:], strict=True)
    return [
        dict(zip(rows.genes[a:b].tolist(), rows.values[a:b].tolist(), strict=True))
        for a, b in bounds
    ]


def test_genes_get_the_value_of_the_line_at_their_rank():
    assert cells_of(rows_of([[7, 2], [], [2]])) == [{7: 4, 2: 3}, {}, {2: 4}]


def test_a_value_that_is_not_above_zero_is_left_out_and_counted():
    rows = rows_of([[0, 1, 2, 3, 4, 5], [1]])
    assert cells_of(rows) == [{0: 4, 1: 3, 2: 2, 3: 1}, {1: 4}]
    assert rows.num_below_zero_C.tolist() == [2, 0]


def test_first_keeps_the_first_place_and_closes_the_gaps():
    # 3 unknown 3 5: genes 3 and 5 at ranks 1 and 2.
    assert cells_of(rows_of([[3, UNKNOWN, 3, 5]])) == [{3: 4, 5: 3}]


def test_mean_takes_the_mean_place_among_all_words():
    # Gene 3 at places 0 and 3, mean 1.5, rounded down to 1: 5, 3, unknown. Ranks 1 and 2.
    assert cells_of(rows_of([[3, 5, UNKNOWN, 3]], repeats="mean")) == [{5: 4, 3: 3}]
    # Unknown words keep their places: gene 5 is at rank 3.
    assert cells_of(rows_of([[UNKNOWN, UNKNOWN, 5]], repeats="mean")) == [{5: 2}]


def test_a_mean_place_beyond_the_shortened_sentence_is_its_end():
    # Gene 1 at places 2, 3, 4, 5, mean 3; without it two words are left: it goes to the end.
    assert cells_of(rows_of([[7, 8, 1, 1, 1, 1]], repeats="mean")) == [{7: 4, 8: 3, 1: 2}]


WORD_LISTS = st.lists(st.sampled_from([UNKNOWN, *range(NUM_GENES)]), max_size=30)


@given(st.lists(WORD_LISTS, max_size=5))
def test_mean_equals_the_package(sentences):
    peer = load_cell2sentence()
    rows = rows_of(sentences, LOG_LINE, "mean")
    for sentence, cell in zip(sentences, cells_of(rows), strict=True):
        text = " ".join("NOT-THERE" if w == UNKNOWN else SYMBOLS[w] for w in sentence)
        words, _ = peer.post_process_generated_cell_sentences(text, SYMBOLS)
        expression = peer.reconstruct_expression_from_cell_sentence(
            " ".join(words), " ", SYMBOLS, LOG_LINE.slope, LOG_LINE.intercept
        )
        ours = np.zeros(NUM_GENES, dtype=np.float32)
        ours[list(cell)] = list(cell.values())
        np.testing.assert_array_equal(ours > 0, expression > 0)
        np.testing.assert_allclose(ours, expression, rtol=1e-6)


@given(st.lists(WORD_LISTS, max_size=5))
def test_first_equals_one_sentence_at_a_time(sentences):
    rows = rows_of(sentences, LOG_LINE)
    for sentence, cell in zip(sentences, cells_of(rows), strict=True):
        known = list(dict.fromkeys(word for word in sentence if word != UNKNOWN))
        alone = sentence_to_expression(np.array(known, dtype=np.int32), LOG_LINE, NUM_GENES)
        assert cell == {gene: alone[gene] for gene in known}


SENTENCES = st.permutations(range(NUM_GENES)).flatmap(
    lambda genes: st.integers(0, NUM_GENES).map(lambda num: genes[:num])
)


@given(st.lists(SENTENCES, max_size=6), st.sampled_from(list(RepeatRule)))
def test_sentences_become_expression_and_the_same_sentences_again(sentences, repeats):
    rows = rows_of(sentences, LOG_LINE, repeats)
    again = rank_rows(
        rows.indptr,
        rows.genes,
        rows.values,
        cell_hashes=np.zeros(len(sentences), dtype=np.uint64),
        gene_hashes=np.arange(NUM_GENES, dtype=np.uint64),
        top_k=None,
    )
    bounds = zip(again.indptr[:-1], again.indptr[1:], strict=True)
    assert [again.genes[a:b].tolist() for a, b in bounds] == sentences


def test_no_sentences_are_no_rows():
    rows = rows_of([])
    assert (rows.indptr.tolist(), len(rows.genes)) == ([0], 0)


@pytest.mark.parametrize("repeats", list(RepeatRule))
def test_a_long_sentence_with_many_repeats(repeats):
    rng = np.random.default_rng(0)
    rows = rows_of([rng.integers(-1, NUM_GENES, size=2000).tolist()], LOG_LINE, repeats)
    assert sorted(rows.genes.tolist()) == list(range(NUM_GENES))
