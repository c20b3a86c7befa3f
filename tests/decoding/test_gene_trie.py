"""The trie's rule against a brute force, the sampler's walk and the learner's replay."""

import pickle

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from c2s_rl.cells.parse import parse_cell
from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.decoding.gene_trie import GeneTrie
from c2s_rl.errors import ConfigError, DataError
from tests.decoding_rule import EOS, Rule, encode_with

# HLA is a prefix of HLA-A and HLA-B, CD3 of CD3D; 1, 2, 3 start a gene, 11-14 go on with one.
PATHS = {
    "HLA": (1,),
    "HLA-A": (1, 11),
    "HLA-B": (1, 12),
    "CD3": (2, 13),
    "CD3D": (2, 13, 14),
    "TNF": (3,),
}


def build(paths=PATHS, **limits):
    return GeneTrie.build(list(paths), encode_with(paths), eos_id=EOS, **limits)


def bit_sets(trie, tokens, max_tokens):
    """The replayed rows as sets of token ids."""
    bits = trie.replay(tokens, max_tokens=max_tokens)
    rows = np.unpackbits(bits, axis=1, count=len(trie.columns_U), bitorder="little")
    return [set(trie.columns_U[row.astype(bool)].tolist()) for row in rows]


def sample(trie, max_tokens, rng):
    """A completion that takes every allowed token with equal probability."""
    walk = trie.walk(max_tokens)
    tokens = []
    while not walk.is_done:
        ids = walk.allowed()
        tokens.append(int(ids[int(rng.random() * len(ids))]))
        walk.advance(tokens[-1])
    return tokens, walk


def test_allowed_tokens_step_by_step():
    walk = build().walk(20)
    assert set(walk.allowed().tolist()) == {1, 2, 3}  # one gene at least
    walk.advance(1)  # " HLA": may end here or go on
    assert set(walk.allowed().tolist()) == {11, 12, 1, 2, 3, EOS}
    walk.advance(11)  # it was HLA-A
    assert set(walk.allowed().tolist()) == {1, 2, 3, EOS}
    walk.advance(1)
    assert set(walk.allowed().tolist()) == {12, 1, 2, 3, EOS}  # HLA-A is used, HLA is not
    walk.advance(1)  # HLA is written, so what is open must become HLA-B
    assert set(walk.allowed().tolist()) == {12}
    walk.advance(12)
    assert set(walk.allowed().tolist()) == {2, 3, EOS}  # nothing starts with 1 any more
    for token in (2, 13, 14, 2, 13, 3):
        walk.advance(token)
    assert set(walk.allowed().tolist()) == {EOS}  # all six genes are written
    walk.advance(EOS)
    assert walk.is_done
    assert [walk.genes, walk.num_tokens] == [[1, 0, 2, 4, 3, 5], 12]


def test_the_end_comes_between_min_and_max_genes():
    walk = build(min_genes=2, max_genes=3).walk(20)
    walk.advance(3)
    assert EOS not in walk.allowed()
    walk.advance(1)
    assert EOS in walk.allowed()
    walk.advance(2)
    assert walk.allowed().tolist() == [13]
    walk.advance(13)  # three genes: CD3 may still become CD3D, but no fourth may start
    assert set(walk.allowed().tolist()) == {14, EOS}


def test_a_gene_starts_only_if_its_longest_form_leaves_room_for_the_end():
    walk = build().walk(5)
    walk.advance(3)
    # 4 left: CD3D takes 3 and the end 1
    assert set(walk.allowed().tolist()) == {1, 2, EOS}
    walk.advance(1)
    # 3 left: HLA-A and the end, or a gene of the two tokens HLA-x; CD3D does not fit any more
    assert set(walk.allowed().tolist()) == {11, 12, 1, EOS}
    walk.advance(11)
    # 2 left: what starts with 1 may take two tokens, and nothing else is unused and short
    assert set(walk.allowed().tolist()) == {EOS}
    walk.advance(EOS)
    assert walk.num_tokens == 4


def test_a_budget_that_might_not_hold_the_fewest_genes_is_refused():
    # CD3D (3) and one more that is at its longest 3, then the end: 7
    assert build(min_genes=2).tokens_needed == 7
    build(min_genes=2).walk(7)
    with pytest.raises(ConfigError, match=r"max_tokens must be at least 7 for 2 genes .* got 6"):
        build(min_genes=2).walk(6)
    with pytest.raises(ConfigError, match=r"min_genes must be at most the 6 genes .* got 7"):
        build(min_genes=7)


def test_columns_are_all_tokens_of_genes_and_the_end():
    assert build().columns_U.tolist() == [0, 1, 2, 3, 11, 12, 13, 14]


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ((3, 3), r"got 3 at position 1 after 0 genes, then tokens \[3\]"),  # a repeat
        (
            (3, 1, 11, 3),
            r"got 3 at position 3 after 1 genes, the last 'TNF', then tokens \[1, 11\]",
        ),
        ((2, 1), r"got 1 at position 1 after 0 genes, then tokens \[2\]"),  # inside a gene
        ((9,), "got 9 at position 0 after 0 genes"),
        ((EOS,), "got 0 at position 0"),
        ((3, EOS, 1), "got 1 at position 2 after 1 genes, the last 'TNF'"),
    ],
)
def test_a_forbidden_token_is_an_error_that_names_its_place(tokens, message):
    with pytest.raises(DataError, match=message):
        build().replay(tokens, max_tokens=20)


def test_a_gene_that_does_not_fit_is_a_forbidden_token():
    # two tokens left after TNF: HLA-A and the end need three
    with pytest.raises(DataError, match="got 1 at position 2 after 1 genes, the last 'TNF'"):
        build().replay((3, 1, 1), max_tokens=4)


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ({"A": (1,), "B": (1,)}, r"different tokens, got \[1\] for both 'A' and 'B'"),
        ({"A": ()}, r"got \[\] for 'A'"),
        ({"A": (1, EOS)}, r"end token 0, got \[1, 0\] for 'A'"),
        # after A, 2 might go on to AB or start B
        ({"A": (1,), "AB": (1, 2), "B": (2,)}, "must not start another one, got 2 after 'A'"),
    ],
)
def test_paths_that_cannot_be_told_apart_are_refused(paths, message):
    with pytest.raises(DataError, match=message):
        build(paths)


def test_a_tokenizer_that_joins_genes_is_refused():
    def merging(texts):
        merged = {" CD3D TNF": [7]}
        return [merged.get(text) or encode_with(PATHS)([text])[0] for text in texts]

    symbols = ["CD3D", "TNF"]
    with pytest.raises(DataError, match=r"' A B' as ' A' and then ' B', .* for ' CD3D TNF'"):
        GeneTrie.build(symbols, merging, eos_id=EOS)


@st.composite
def rules(draw):
    """Random paths in which a gene may be the beginning of others, with limits that fit."""
    starts, inner = (1, 2, 3), (2, 11, 12)  # 2 may start a gene and go on with one
    path = st.tuples(st.sampled_from(starts)) | st.builds(
        lambda a, b: (a, *b),
        st.sampled_from(starts),
        st.lists(st.sampled_from(inner), min_size=1, max_size=3),
    )
    paths = draw(st.lists(path, min_size=1, max_size=9, unique=True))
    genes = {f"G{i}": tuple(p) for i, p in enumerate(paths)}
    most = draw(st.integers(1, len(genes) + 1))
    return genes, draw(st.integers(0, min(most, len(genes)))), most


def is_readable(genes):
    """No token both goes on with a gene and starts one, where a gene ends."""
    starts = {p[0] for p in genes.values()}
    return not any(
        q[: len(p)] == p and len(q) > len(p) and q[len(p)] in starts
        for p in genes.values()
        for q in genes.values()
    )


@given(rules(), st.integers(0, 6), st.integers(0, 2**32 - 1))
@settings(max_examples=150)
def test_walk_and_replay_are_the_brute_force_at_every_step(rule, spare, seed):
    genes, fewest, most = rule
    assume(is_readable(genes))
    trie = build(genes, min_genes=fewest, max_genes=most)
    max_tokens = trie.tokens_needed + spare
    brute = Rule(genes, fewest, most, max_tokens)
    walk = trie.walk(max_tokens)
    tokens, allowed = (), []
    rng = np.random.default_rng(seed)
    while not walk.is_done:
        ids = walk.allowed().tolist()
        assert len(ids) == len(set(ids))
        assert set(ids) == brute.allowed(tokens) != set()
        allowed.append(set(ids))
        token = int(rng.choice(sorted(ids)))
        walk.advance(token)
        tokens = (*tokens, token)
    written, rest = brute.split(tokens)
    assert (tokens[-1], rest) == (EOS, ())
    assert len(tokens) <= max_tokens
    assert len(set(written)) == len(written)
    assert fewest <= len(written) <= most
    assert [trie.symbols[g] for g in walk.genes] == written
    assert bit_sets(trie, tokens, max_tokens) == allowed


@given(rules(), st.lists(st.sampled_from([0, 1, 2, 3, 11, 12, 50]), max_size=12))
@settings(max_examples=150)
def test_walk_and_replay_refuse_what_the_brute_force_forbids(rule, tokens):
    genes, fewest, most = rule
    assume(is_readable(genes))
    trie = build(genes, min_genes=fewest, max_genes=most)
    max_tokens = trie.tokens_needed + 3
    brute = Rule(genes, fewest, most, max_tokens)
    for t, token in enumerate(tokens):
        if EOS in tokens[:t] or token not in brute.allowed(tuple(tokens[:t])):
            with pytest.raises(DataError, match=f"got {token} at position {t} "):
                trie.replay(tokens, max_tokens=max_tokens)
            return
    assert len(trie.replay(tokens, max_tokens=max_tokens)) == len(tokens)


def test_ten_thousand_samples_hold_no_unknown_and_no_repeated_gene():
    rng = np.random.default_rng(0)
    paths = {}
    while len(paths) < 300:
        path = (int(rng.integers(1, 40)), *rng.integers(40, 60, rng.integers(0, 4)).tolist())
        if path not in paths.values():
            paths[f"G{len(paths)}"] = path
    trie = build(paths, min_genes=2)
    vocabulary = Vocabulary(tuple(paths), tuple(paths))
    num_genes = set()
    for _ in range(10_000):
        tokens, walk = sample(trie, 24, rng)
        text = "".join(f" {trie.symbols[gene]}" for gene in walk.genes)
        assert tokens[:-1] == encode_with(paths)([text])[0]
        cell = parse_cell(text, vocabulary, is_truncated=tokens[-1] != EOS)
        assert (cell.num_duplicates, cell.unknown, cell.is_truncated) == (0, (), False)
        num_genes.add(cell.num_words)
    assert min(num_genes) == 2
    assert max(num_genes) > 9


def test_a_trie_survives_files_and_pickling(tmp_path):
    trie = build(min_genes=2, max_genes=4)
    tokens = [1, 11, 3, 2, 13, EOS]
    expected = bit_sets(trie, tokens, 9)
    trie.save(tmp_path / "trie")
    for copy in (GeneTrie.load(tmp_path / "trie"), pickle.loads(pickle.dumps(trie))):
        assert copy.symbols == trie.symbols
        assert (copy.min_genes, copy.max_genes, copy.tokens_needed) == (2, 4, 7)
        assert bit_sets(copy, tokens, 9) == expected
