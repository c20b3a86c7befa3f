"""What a free-text answer is worth beside BERTScore: keywords, labels, length. Pure functions.

Left out: vectors (`bertscore.py`) and means over prompts (`text_summary.py`).
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from enum import StrEnum
from functools import lru_cache

from c2s_rl.evaluation.cell_metrics import Better, MetricInfo


class TextMetric(StrEnum):
    """Names of the metrics, in the order of the tables."""

    BERTSCORE = "bertscore_f1"
    KEYWORD_RECALL = "keyword_recall"
    EXACT_LABEL = "exact_label"
    NUM_WORDS = "num_words"
    TRUNCATED_RATE = "truncated_rate"
    EMPTY_RATE = "empty_rate"


TEXT_METRICS: Mapping[TextMetric, MetricInfo] = {
    TextMetric.BERTSCORE: MetricInfo(
        "BERTScore F1",
        "How well the tokens of the answer and of the right answer match in meaning: 1 = the same "
        "text. Raw values; unrelated sentences of one kind are far above 0, so look at the nulls.",
        Better.HIGHER,
    ),
    TextMetric.KEYWORD_RECALL: MetricInfo(
        "keyword recall",
        "Share of the right answer's keywords that the answer names, as whole words.",
        Better.HIGHER,
        decimals=1,
        is_share=True,
    ),
    TextMetric.EXACT_LABEL: MetricInfo(
        "exact answers",
        "Share of answers that are the right one word for word; case, spaces and end marks aside.",
        Better.HIGHER,
        decimals=1,
        is_share=True,
    ),
    TextMetric.NUM_WORDS: MetricInfo(
        "words", "Words of an answer; the right answers' own length is in the last column.",
        Better.NEITHER, decimals=1,
    ),
    TextMetric.TRUNCATED_RATE: MetricInfo(
        "cut off",
        "Share of answers that hit the length limit before they ended.",
        Better.LOWER,
        decimals=1,
        is_share=True,
    ),
    TextMetric.EMPTY_RATE: MetricInfo(
        "empty", "Share of answers without any word.", Better.LOWER, decimals=1, is_share=True
    ),
}  # fmt: skip


def keyword_recall(text: str, keywords: Sequence[str]) -> float | None:
    """Share of the keywords that a text names, in [0, 1].

    A keyword counts where it stands as a word or phrase of its own, whatever its case and the
    spaces within it: 'T cell' is in 'a T  cell.' but 'CD3' is not in 'CD3D', nor 'CD4' in 'CD4+'
    (another name). Each counts once, however often it is named.

    Returns:
        The share; None without keywords.
    """
    wanted = {_folded(keyword) for keyword in keywords} - {""}
    if not wanted:
        return None
    folded = _folded(text)
    return sum(bool(_word(keyword).search(folded)) for keyword in wanted) / len(wanted)


def is_same_label(text: str, label: str) -> bool:
    """Whether two texts are the same label: case, spaces, quotes and end marks do not matter.

    Signs inside and plus signs do: 'CD4+ T cell' is not 'CD4 T cell'.
    """
    return label_key(text) == label_key(label)


def label_key(text: str) -> str:
    """What texts of one label have in common, see `is_same_label`; '' for one without a word."""
    return _folded(text).strip(" \"'`.,;:!?")


def count_words(text: str) -> int:
    """Words separated by whitespace."""
    return len(text.split())


def _folded(text: str) -> str:
    """Compatibility form (full-width letters, ligatures), lower case, single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


@lru_cache(maxsize=4096)
def _word(keyword: str) -> re.Pattern[str]:
    # Gene and cell names hold hyphens and plus signs, so these do not end a word: \b would.
    return re.compile(rf"(?<![\w+-]){re.escape(keyword)}(?![\w+]|-\w)")
