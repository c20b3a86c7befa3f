"""Writing many sentences at once gives what writing one gives."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from c2s_rl.cells.sentence import write_sentence
from c2s_rl.cells.spelling import SentenceWriter
from c2s_rl.cells.vocabulary import Vocabulary

# One byte, the longest that fits a 16-byte head with its space, one more, far more, not ASCII.
SYMBOLS = ("A", "ABCDEFGHIJKLMNO", "ABCDEFGHIJKLMNOP", "TBCE_ENSG00000284770.1", "β-ACT", "CD3D")
VOCABULARY = Vocabulary(symbols=SYMBOLS, original=SYMBOLS)


def test_sentences_are_symbols_separated_by_single_spaces():
    sentences = SentenceWriter(VOCABULARY).write(
        np.array([0, 3, 3, 4]), np.array([5, 2, 0, 4], dtype=np.int32)
    )
    assert sentences == ["CD3D ABCDEFGHIJKLMNOP A", "", "β-ACT"]


@given(
    st.lists(st.permutations(range(6)).map(lambda order: order[: order[0]]), max_size=5),
    st.none() | st.integers(0, 6),
)
def test_every_sentence_equals_the_one_written_alone(cells, num_genes):
    indptr = np.cumsum([0, *map(len, cells)], dtype=np.int64)
    genes = np.array([gene for cell in cells for gene in cell], dtype=np.int32)
    expected = [
        write_sentence(np.array(cell, dtype=np.int32), VOCABULARY, num_genes) for cell in cells
    ]
    assert SentenceWriter(VOCABULARY).write(indptr, genes, num_genes) == expected
