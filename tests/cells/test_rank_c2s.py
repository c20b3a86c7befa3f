"""The tie order of cell2sentence 1.2.0, sentence by sentence."""

import contextlib
import io

import anndata
import numpy as np
import pytest
from scipy import sparse

from c2s_rl.cells.rank_c2s import C2SRanker
from c2s_rl.cells.sentence import write_sentence
from c2s_rl.cells.vocabulary import Vocabulary
from tests.benchmarks.peers import load_cell2sentence


def peer_sentences(adata, seed=42):
    peer = load_cell2sentence()
    with contextlib.redirect_stderr(io.StringIO()):  # its warnings and its progress bar
        return peer.generate_sentences(adata, peer.generate_vocabulary(adata), random_state=seed)


def our_sentences(adata, seed=42, chunk=3):
    symbols = tuple(name.upper() for name in adata.var_names)
    vocabulary = Vocabulary(symbols=symbols, original=symbols)
    ranker = C2SRanker(seed)
    sentences = []
    for start in range(0, adata.n_obs, chunk):
        rows = sparse.csr_matrix(adata.X)[start : start + chunk]
        ranked = ranker.rank(rows.indptr, rows.indices, rows.data, top_k=None)
        bounds = zip(ranked.indptr[:-1], ranked.indptr[1:], strict=True)
        sentences += [write_sentence(ranked.genes[a:b], vocabulary) for a, b in bounds]
    return sentences


@pytest.mark.parametrize("seed", [42, 7])
def test_sentences_equal_the_package(seed):
    counts = np.random.default_rng(0).poisson(0.7, size=(50, 40)).astype(np.float32)
    counts[3] = 0  # an empty cell draws nothing from the random stream
    adata = anndata.AnnData(sparse.csr_matrix(counts))
    assert our_sentences(adata, seed) == list(peer_sentences(adata, seed))


def test_sentences_of_real_cells_equal_the_package(data_dir):
    adata = anndata.read_h5ad(data_dir / "kang" / "kang_ifnb_2000x13215.h5ad")[:100]
    assert our_sentences(adata, chunk=17) == list(peer_sentences(adata))


def test_stored_zeros_are_dropped_where_the_package_writes_them():
    matrix = sparse.csr_matrix(
        (np.array([2, 0, 1], dtype=np.float32), np.array([0, 1, 2]), np.array([0, 3])), shape=(1, 3)
    )
    adata = anndata.AnnData(matrix)
    adata.var_names = ["A", "B", "C"]
    assert peer_sentences(adata)[0].split() == ["A", "C", "B"]
    assert our_sentences(adata) == ["A C"]
