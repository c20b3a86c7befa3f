"""Cell sentences: a cell written as its gene symbols, highest expression first.

The one place to import from: ranking (`rank.py`), reading text (`parse.py`) and the way back to
expression (`rank_model.py`, `inverse.py`) are re-exported here. Prompts around a sentence are not
made here.
"""

from c2s_rl.cells.inverse import ExpressionRows, RepeatRule, sentences_to_expression
from c2s_rl.cells.parse import parse_cell, parse_cells
from c2s_rl.cells.rank import RankedRows, rank_rows, stable_hash
from c2s_rl.cells.rank_model import (
    RankForm,
    RankModel,
    fit_rank_model,
    sentence_to_expression,
)
from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.types import IntArray

__all__ = [
    "ExpressionRows",
    "RankForm",
    "RankModel",
    "RankedRows",
    "RepeatRule",
    "fit_rank_model",
    "parse_cell",
    "parse_cells",
    "rank_rows",
    "sentence_to_expression",
    "sentences_to_expression",
    "stable_hash",
    "write_sentence",
]


def write_sentence(genes_K: IntArray, vocabulary: Vocabulary, num_genes: int | None = None) -> str:
    """Write ranked genes as symbols separated by single spaces.

    Args:
        genes_K: [K] vocabulary indices, highest expression first.
        vocabulary: Where the symbols stand.
        num_genes: Write only the first so many; None writes all.
    """
    symbols = vocabulary.symbols
    return " ".join(symbols[gene] for gene in genes_K[:num_genes].tolist())
