"""The masks of a batch: each row as its own replay says, padding open."""

from c2s_rl.decoding.gene_trie import GeneTrie
from c2s_rl.grpo.gene_masks import allowed_columns
from tests.decoding_rule import EOS, encode_with

PATHS = {"HLA": (1,), "HLA-A": (1, 11), "TNF": (3,)}


def test_rows_of_unequal_length_hold_their_own_masks():
    trie = GeneTrie.build(list(PATHS), encode_with(PATHS), eos_id=EOS)
    assert trie.columns_U.tolist() == [EOS, 1, 3, 11]
    masks = allowed_columns(trie, [(3, EOS), (1, 11, 3, EOS)], max_tokens=9)
    assert masks.int().tolist() == [
        # a gene; another or the end; then padding, where all is open
        [[0, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1]],
        # a gene; HLA may go on or end; HLA-A has ended, HLA is left; TNF has ended, HLA is left
        [[0, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0]],
    ]
