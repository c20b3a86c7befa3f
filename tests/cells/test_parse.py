"""Reading generated text: known genes once, everything else counted."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2s_rl.cells.sentence import parse_cell, parse_cells, write_sentence
from c2s_rl.cells.vocabulary import Vocabulary

SYMBOLS = ("ISG15", "CD3D", "HLA-A", "AC004551.1", "IFIT1", "IFIT16")
VOCABULARY = Vocabulary(symbols=SYMBOLS, original=SYMBOLS)


def parse(text, is_truncated=False):
    return parse_cell(text, VOCABULARY, is_truncated=is_truncated)


def test_genes_are_read_in_order():
    cell = parse(" CD3D ISG15  HLA-A\n")
    assert cell.genes_K.tolist() == [1, 0, 2]
    assert (cell.num_words, cell.num_duplicates, cell.unknown) == (3, 0, ())


def test_a_repeat_is_counted_and_keeps_the_first_place():
    cell = parse("ISG15 CD3D ISG15 ISG15")
    assert cell.genes_K.tolist() == [0, 1]
    assert (cell.num_words, cell.num_duplicates) == (4, 2)


def test_unknown_words_are_kept_with_repeats():
    cell = parse("FOO1 ISG15 isg15 FOO1")
    assert cell.unknown == ("FOO1", "isg15", "FOO1")
    assert (cell.genes_K.tolist(), cell.num_words, cell.num_duplicates) == ([0], 4, 0)


def test_a_final_full_stop_is_not_part_of_the_symbol():
    assert parse("CD3D ISG15.").genes_K.tolist() == [1, 0]
    assert parse("CD3D AC004551.1").genes_K.tolist() == [1, 3]
    assert parse("CD3D .").num_words == 1


def test_a_full_stop_inside_the_text_makes_an_unknown_word():
    assert parse("CD3D. ISG15").unknown == ("CD3D.",)


def test_a_cut_last_word_is_not_counted():
    cell = parse("ISG15 CD3D HLA", is_truncated=True)
    assert (cell.genes_K.tolist(), cell.num_words, cell.unknown) == ([0, 1], 2, ())
    assert cell.is_truncated


def test_a_whole_symbol_at_the_cut_counts():
    assert parse("CD3D IFIT1", is_truncated=True).genes_K.tolist() == [1, 4]


def test_an_unknown_word_before_the_cut_counts():
    # A space follows FOO, so the word was finished before the limit was reached.
    assert parse("ISG15 FOO ", is_truncated=True).unknown == ("FOO",)
    assert parse("ISG15 FOO CD", is_truncated=True).unknown == ("FOO",)


def test_empty_text_is_an_empty_cell():
    cell = parse("", is_truncated=True)
    assert (cell.genes_K.tolist(), cell.num_words, cell.num_duplicates) == ([], 0, 0)


@given(st.lists(st.sampled_from([*SYMBOLS, "FOO", "cd3d", "."])), st.booleans())
def test_every_word_is_known_repeated_or_unknown(words, is_truncated):
    cell = parse(" ".join(words), is_truncated)
    assert cell.num_words == len(cell.genes_K) + cell.num_duplicates + len(cell.unknown)
    assert len(set(cell.genes_K.tolist())) == len(cell.genes_K)


@given(st.permutations(range(6)), st.integers(0, 6))
def test_a_written_sentence_is_read_back(order, num_genes):
    text = write_sentence(np.array(order, dtype=np.int32), VOCABULARY, num_genes)
    assert parse(text).genes_K.tolist() == list(order[:num_genes])
    assert parse(text).unknown == ()


# Words that meet every rule, joined by spaces of every kind, whole Unicode among them.
WORDS = [
    *SYMBOLS,
    *(f"{s}." for s in SYMBOLS),
    "FOO",
    "cd3d",
    ".",
    "..",
    "IFIT",
    "\u00e9",
    "G\u03b1",
]
SPACES = [" ", "  ", "\n", "\t", "\x1c", "\x1f", "\x0b", "\x85", "\xa0", "\u2003", "\u3000", ""]
TEXTS = st.one_of(
    st.lists(st.sampled_from(WORDS + SPACES)).map("".join),
    st.lists(st.sampled_from(WORDS)).map(" ".join),
    st.text(),
)


@given(st.lists(st.tuples(TEXTS, st.booleans())))
def test_a_batch_is_read_like_its_texts_one_by_one(answers):
    texts, flags = [text for text, _ in answers], [flag for _, flag in answers]
    batch = parse_cells(texts, VOCABULARY, is_truncated_C=flags)
    assert len(batch) == len(texts)
    for text, flag, cell in zip(texts, flags, batch, strict=True):
        alone = parse(text, flag)
        assert cell.genes_K.tolist() == alone.genes_K.tolist()
        assert cell.genes_K.dtype == np.int32
        assert (cell.num_words, cell.num_duplicates) == (alone.num_words, alone.num_duplicates)
        assert (cell.unknown, cell.is_truncated) == (alone.unknown, alone.is_truncated)


def test_a_batch_of_a_large_vocabulary_finds_every_symbol():
    symbols = tuple(f"G{i}-{i % 7}" for i in range(20_000))
    vocabulary = Vocabulary(symbols, symbols)
    (cell,) = parse_cells([" ".join(symbols)], vocabulary, is_truncated_C=[False])
    np.testing.assert_array_equal(cell.genes_K, np.arange(20_000))
    (none,) = parse_cells(["G0-1 G20000-1 G-0"], vocabulary, is_truncated_C=[False])
    assert none.unknown == ("G0-1", "G20000-1", "G-0")


def test_every_text_needs_its_flag():
    with pytest.raises(ValueError, match="got 2 texts and 1 flags"):
        parse_cells(["CD3D", "ISG15"], VOCABULARY, is_truncated_C=[True])
