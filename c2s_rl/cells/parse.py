"""Reading generated text as a cell sentence, once, for every reward and metric.

A repeated gene or an invented word is counted and earns nothing. Nothing is corrected: no case
folding, no nearest symbol, because a policy would learn to lean on the correction.
"""

import numpy as np

from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.types import ParsedCell


def parse_cell(text: str, vocabulary: Vocabulary, *, is_truncated: bool) -> ParsedCell:
    """Read a completion as gene symbols separated by white space.

    Args:
        text: The completion; one full stop at its end is not part of the last symbol.
        vocabulary: The symbols that count as genes, in the exact case of the prompts.
        is_truncated: The sampler stopped at its length limit. A last word that is then not a
            symbol, and is not followed by white space, was cut: it is left out of every count.

    Returns:
        Known genes in the order of their first occurrence, with the counts of repeats and of
        unknown words.
    """
    words = text.split()
    if words and words[-1].endswith(".") and vocabulary.index_of(words[-1]) is None:
        words[-1] = words[-1][:-1]
        words = [word for word in words if word]  # "A B ." ends with a full stop of its own
    if is_truncated and words and not text[-1].isspace() and not _is_known(words[-1], vocabulary):
        words.pop()
    genes: dict[int, None] = {}
    unknown: list[str] = []
    for word in words:
        index = vocabulary.index_of(word)
        if index is None:
            unknown.append(word)
        else:
            genes[index] = None
    return ParsedCell(
        genes_K=np.fromiter(genes, dtype=np.int32, count=len(genes)),
        num_words=len(words),
        num_duplicates=len(words) - len(unknown) - len(genes),
        unknown=tuple(unknown),
        is_truncated=is_truncated,
    )


def _is_known(word: str, vocabulary: Vocabulary) -> bool:
    return vocabulary.index_of(word) is not None
