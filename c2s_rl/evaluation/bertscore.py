"""BERTScore: how well the tokens of an answer and of the right answer find each other.

Each token is matched with the most similar one of the other side (cosine of their vectors):
P is the mean over the candidate's tokens, R over the reference's, F1 = 2PR / (P + R). Values equal
those of the bert-score package. What differs is the work: texts of all prompts are sorted by
length and encoded in batches of a token budget, each distinct one once; references are kept; and
pairs are matched without padding. On a CPU a score depends on its own two texts alone, to the last
bit: that of the package depends on what stands beside it, for the padding of a batch lifts tokens
whose best cosine is negative to 0.

Source: Zhang et al. 2020, BERTScore, equations in section 3 (arXiv:1904.09675); C2S-Scale section
4.5.2 with BioBERT as the encoder.
Shape suffixes: B pairs, T tokens of a candidate, R tokens of its reference, D embedding.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

import numpy as np
import numpy.typing as npt

from c2s_rl.models.encoding_cache import EncodingCache, content_key
from c2s_rl.models.text_encoder import EncodedText, TextEncoder
from c2s_rl.types import FloatArray, IntArray

DoubleArray = npt.NDArray[np.float64]

# Candidates encoded before they are matched: bounds memory (some 200 MB for BioBERT at 100 tokens)
# and is still enough texts to sort by length.
PART_TEXTS = 512


class ScoreField(StrEnum):
    """Which of the three numbers."""

    F1 = "f1"
    PRECISION = "precision"
    RECALL = "recall"


@dataclass(frozen=True, eq=False)
class BertScores:
    """Scores of B pairs; 0 where candidate or reference has no token that counts."""

    precision_B: DoubleArray
    recall_B: DoubleArray
    f1_B: DoubleArray

    def of(self, field: ScoreField) -> DoubleArray:
        """[B] one of the three."""
        by_field = {
            ScoreField.F1: self.f1_B,
            ScoreField.PRECISION: self.precision_B,
            ScoreField.RECALL: self.recall_B,
        }
        return by_field[field]


@dataclass(frozen=True)
class TokenWeights:
    """What each token counts in the two means."""

    weightless: frozenset[int]
    """Begin and end tokens: they may be matched with, but have no say."""
    document_counts: Mapping[int, int] | None = None
    """Token to the number of references that hold it; None: every other token counts 1."""
    num_documents: int = 0
    """References behind `document_counts`."""

    def of(self, token_ids_T: IntArray) -> DoubleArray:
        """[T] weights; idf = ln((N + 1) / (n + 1)) where counts are given."""
        counts = self.document_counts
        if counts is None:
            return np.array([float(i not in self.weightless) for i in token_ids_T.tolist()])
        total = self.num_documents + 1
        return np.array([math.log(total / (counts.get(i, 0) + 1)) for i in token_ids_T.tolist()])


def idf_weights(encoder: TextEncoder, references: Sequence[str]) -> TokenWeights:
    """Weigh tokens by how few of the references hold them, as the bert-score package does."""
    counts: Counter[int] = Counter()
    for tokens in encoder.tokenise(references):
        counts.update(set(tokens.tolist()))
    return TokenWeights(encoder.weightless_ids, counts, len(references))


class BertScorer:
    """Scores pairs of texts with one encoder; remembers the references."""

    def __init__(
        self,
        encoder: TextEncoder,
        cache: EncodingCache,
        *,
        weights: TokenWeights | None = None,
        is_shared: bool = False,
    ) -> None:
        """Set up.

        Args:
            encoder: Makes the vectors.
            cache: Keeps those of references.
            weights: Token weights; default: all tokens but begin and end count the same.
            is_shared: The cache has a folder that other processes share.
        """
        self._encoder = encoder
        self._cache = cache
        self._weights = weights or TokenWeights(encoder.weightless_ids)
        self._is_shared = is_shared

    def score(self, candidates: Sequence[str], references: Sequence[str]) -> BertScores:
        """Score each candidate against its reference.

        Args:
            candidates: [B] answers.
            references: [B] right answers; usually the same one many times.

        Raises:
            ValueError: If the two differ in number.
        """
        wanted: defaultdict[str, set[str]] = defaultdict(set)
        for candidate, reference in zip(candidates, references, strict=True):
            wanted[candidate].add(reference)
        found: dict[tuple[str, str], tuple[float, float]] = {}
        encoded_references = self._references(list(dict.fromkeys(references)))
        texts = list(wanted)
        for start in range(0, len(texts), PART_TEXTS):
            part = texts[start : start + PART_TEXTS]
            for candidate, encoded in zip(part, self._encoder.encode(part), strict=True):
                for reference in wanted[candidate]:
                    found[candidate, reference] = greedy_match(
                        encoded, encoded_references[reference], self._weights
                    )
        both_B = [found[pair] for pair in zip(candidates, references, strict=True)]
        precision_B, recall_B = np.array(both_B, dtype=np.float64).reshape(-1, 2).T
        total_B = precision_B + recall_B
        f1_B = np.divide(
            2 * precision_B * recall_B, total_B, out=np.zeros_like(total_B), where=total_B != 0
        )
        return BertScores(precision_B, recall_B, f1_B)

    def _packed(self, text: str) -> FloatArray:
        return _pack(self._encoder.encode([text])[0])

    def _references(self, texts: Sequence[str]) -> dict[str, EncodedText]:
        name = str(self._encoder.facts).encode()
        keys = [content_key(name, text.encode(errors="replace")) for text in texts]
        if self._is_shared:
            packed = [
                self._cache.shared(key, partial(self._packed, text))
                for key, text in zip(keys, texts, strict=True)
            ]
        else:
            packed = self._cache.encode(
                texts, keys, lambda new: [_pack(one) for one in self._encoder.encode(new)]
            )
        return dict(zip(texts, map(_unpack, packed), strict=True))


def greedy_match(
    candidate: EncodedText, reference: EncodedText, weights: TokenWeights
) -> tuple[float, float]:
    """Match the tokens of a candidate with those of a reference.

    P = sum_i w_i max_j cos(x_i, y_j) / sum_i w_i over the candidate's tokens; R the same over the
    reference's. Begin and end tokens weigh nothing but can be what another token is matched with.
    Each pair is a product of its own: in a joint one sums are rounded as their number has it.

    Returns:
        (P, R); (0, 0) where candidate or reference has no token that weighs anything.
    """
    weights_T = weights.of(candidate.token_ids_T)
    weights_R = weights.of(reference.token_ids_T)
    if not (weights_T.sum() > 0 and weights_R.sum() > 0):
        return 0.0, 0.0
    cosines_T_R = candidate.vectors_T_D @ reference.vectors_T_D.T
    return (
        float(cosines_T_R.max(axis=1) @ weights_T / weights_T.sum()),
        float(cosines_T_R.max(axis=0) @ weights_R / weights_R.sum()),
    )


def _pack(text: EncodedText) -> FloatArray:
    """One array for the cache: vectors, and the token ids as a last column (exact below 2^24)."""
    ids_T_1 = text.token_ids_T.astype(np.float32)[:, None]
    return np.concatenate([text.vectors_T_D, ids_T_1], axis=1)


def _unpack(packed_T_D1: FloatArray) -> EncodedText:
    return EncodedText(packed_T_D1[:, -1].astype(np.int32), packed_T_D1[:, :-1])
