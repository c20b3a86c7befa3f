"""What an answer to a task is worth, by the metrics of C2S-Scale's table 1, and its loss.

An answer made of genes (one cell, several cells, a gene set) is read as the set of symbols in it;
a repeat or an invented word earns nothing, and the share of words that are genes stands beside.
Left out: BERTScore itself (`bertscore.py`) and means over prompts (`task_summary.py`).
"""

from collections.abc import Mapping
from enum import StrEnum

from c2s_rl.cells.parse import parse_cell
from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.evaluation.cell_metrics import Better, MetricInfo


class TaskFigure(StrEnum):
    """Names of the figures, in the order of the tables."""

    OVERLAP = "overlap"
    BERTSCORE = "bertscore_f1"
    ACCURACY = "accuracy"
    LOSS = "loss"
    VALID_WORDS = "valid_words"
    TRUNCATED_RATE = "truncated_rate"


TASK_FIGURES: Mapping[TaskFigure, MetricInfo] = {
    TaskFigure.OVERLAP: MetricInfo(
        "gene overlap",
        "Share of the right answer's genes that the answer names, whatever their order.",
        Better.HIGHER, decimals=1, is_share=True,
    ),
    TaskFigure.BERTSCORE: MetricInfo(
        "BERTScore F1",
        "How well the tokens of the answer and of the right answer match in meaning; raw values, "
        "so read them against the shuffled answers.",
        Better.HIGHER,
    ),
    TaskFigure.ACCURACY: MetricInfo(
        "exact answers",
        "Share of answers that are the right one word for word; case, spaces and end marks aside.",
        Better.HIGHER, decimals=1, is_share=True,
    ),
    TaskFigure.LOSS: MetricInfo(
        "loss",
        "Negative log-likelihood of the right answer, a token; natural logarithm.",
        Better.LOWER,
    ),
    TaskFigure.VALID_WORDS: MetricInfo(
        "valid words",
        "Share of words that are genes of the vocabulary and not yet named; 'Cell 2:' is no word.",
        Better.HIGHER, decimals=1, is_share=True,
    ),
    TaskFigure.TRUNCATED_RATE: MetricInfo(
        "cut off", "Share of answers that hit the length limit before they ended.",
        Better.LOWER, decimals=1, is_share=True,
    ),
}  # fmt: skip


def gene_overlap(text: str, right: str, vocabulary: Vocabulary) -> float:
    """Share of the right answer's genes that an answer names.

    |G_answer & G_right| / |G_right|, over sets of symbols; the genes of several cells together. A
    gene set may hold genes that the cells' vocabulary lacks: every word of a right answer is one.

    Args:
        text: The answer.
        right: The right answer; names at least one gene.
        vocabulary: Symbols of the cells.

    Raises:
        ValueError: If the right answer has no words.

    Source: C2S-Scale (bioRxiv 2025.04.14.648850), table 1 and section 4.2.
    """
    wanted = _words(right, vocabulary)
    if not wanted:
        raise ValueError(f"a right answer must name genes, got {right[:60]!r}")
    return len(wanted & _words(text, vocabulary)) / len(wanted)


def valid_words(text: str, vocabulary: Vocabulary) -> float:
    """Share of an answer's words that are genes, each named for the first time in its cell.

    Returns:
        A share in [0, 1]; 0 for an answer without words.
    """
    cells = [parse_cell(line, vocabulary, is_truncated=False) for line in cell_lines(text)]
    num_words = sum(cell.num_words for cell in cells)
    return sum(len(cell.genes_K) for cell in cells) / num_words if num_words else 0.0


def cell_lines(text: str) -> list[str]:
    """Take the sentences out of an answer of several cells: lines, without their 'Cell 2:'."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return [_without_heading(line) for line in lines]


def _without_heading(line: str) -> str:
    heading, colon, sentence = line.partition(":")
    words = heading.split()
    is_heading = len(words) == 2 and words[0].casefold() == "cell" and words[1].isdecimal()
    return sentence if colon and is_heading else line


def _words(text: str, vocabulary: Vocabulary) -> frozenset[str]:
    cells = [parse_cell(line, vocabulary, is_truncated=False) for line in cell_lines(text)]
    known = {vocabulary.symbols[gene] for cell in cells for gene in cell.genes_K.tolist()}
    return frozenset(known.union(*(cell.unknown for cell in cells)))
