"""How long the sentences of a sample may be, so that prompt and target fit a number of tokens.

All sentences of a sample are shortened equally, to no fewer than `min_genes` genes; when that is
not enough, the last cells of a sample are left out. Left out: the tokenizer itself (no tensors
here; `c2s_rl.pipeline.corpus` counts with it) and cutting what is still too long.

Shape suffixes: N genes of the vocabulary, K genes of one cell, G numbers of genes tried.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.data.corpus_sections import TokenBudget
from c2s_rl.errors import ConfigError
from c2s_rl.types import IntArray

CHARACTERS_PER_TOKEN = 3
"""Of lower-case words, without a tokenizer: on the safe side of the 4 that are usual."""


@dataclass(frozen=True, eq=False)
class TokenCosts:
    """What genes and texts cost."""

    gene_tokens_N: npt.NDArray[np.float64]
    """[N] tokens of each symbol with the space before it."""
    count_text: Callable[[str], int]
    """Tokens of a text without its cell sentences."""


@dataclass(frozen=True)
class SampleSize:
    """How much of a sample fits."""

    num_cells: int
    """Cells, the first ones."""
    num_genes: int
    """Genes of each sentence, at most."""


TokenCounter = Callable[[Sequence[str]], list[int]]
"""Number of tokens of each text, by a tokenizer, without special tokens."""


def token_costs(
    budget: TokenBudget, vocabulary: Vocabulary, counter: TokenCounter | None
) -> TokenCosts:
    """Find out what genes and texts cost.

    Args:
        budget: Names a mean per gene, or a tokenizer.
        vocabulary: The genes.
        counter: Counts with the tokenizer; None where the budget has a mean.

    Raises:
        ConfigError: If the budget names a tokenizer and there is none to count with.
    """
    if budget.tokens_per_gene is not None:
        return estimated_costs(budget.tokens_per_gene, len(vocabulary))
    if counter is None:
        raise ConfigError(f"a tokenizer must be there to count with, got none of {budget}")
    # A gene has a space before it in every sentence, be it after 'Cell 1:'.
    tokens = counter([f" {symbol}" for symbol in vocabulary.symbols])
    return TokenCosts(np.array(tokens, dtype=np.float64), lambda text: counter([text])[0])


def estimated_costs(tokens_per_gene: float, num_vocabulary: int) -> TokenCosts:
    """Take every gene for an average one, and so any word with capitals or digits."""

    def tokens_of(word: str) -> float:
        if word.islower() and word.isalpha():
            return math.ceil(len(word) / CHARACTERS_PER_TOKEN)
        return tokens_per_gene

    return TokenCosts(
        np.full(num_vocabulary, tokens_per_gene),
        lambda text: math.ceil(sum(map(tokens_of, text.split()))),
    )


def fit_sample(
    cells: Sequence[Sequence[IntArray]],
    text_tokens: Callable[[int], int],
    budget: TokenBudget,
    costs: TokenCosts,
    *,
    num_genes: int,
    is_sample: bool,
) -> SampleSize | None:
    """Find the longest sentences, and then the most cells, that fit.

    Args:
        cells: Per cell of the sample, its sentences (one, or none, or shown and asked for), each
            as [K] ranked genes.
        text_tokens: Tokens of everything else (prompt, labels, end token), of so many cells.
        budget: Most tokens, and fewest genes of a sentence.
        costs: Tokens of each gene.
        num_genes: Length of sentences that is asked for.
        is_sample: Whether cells may be left out, down to two.

    Returns:
        What fits; None when nothing does.
    """
    fewest_genes = min(budget.min_genes, num_genes)
    fewest_cells = min(2, len(cells)) if is_sample else len(cells)
    for num_cells in range(len(cells), fewest_cells - 1, -1):
        total_G = np.full(num_genes + 1, float(text_tokens(num_cells)))
        for sentences in cells[:num_cells]:
            for genes_K in sentences:
                total_G += _running_tokens(genes_K[:num_genes], costs, num_genes)
        fitting = np.flatnonzero(total_G <= budget.max_tokens)
        if len(fitting) and fitting[-1] >= fewest_genes:
            return SampleSize(num_cells, int(fitting[-1]))
    return None


def _running_tokens(
    genes_K: IntArray, costs: TokenCosts, num_genes: int
) -> npt.NDArray[np.float64]:
    """Return [num_genes + 1] tokens of the first g genes; a short cell costs no more beyond its."""
    running = np.zeros(num_genes + 1)
    running[1 : len(genes_K) + 1] = np.cumsum(costs.gene_tokens_N[genes_K])
    running[len(genes_K) + 1 :] = running[len(genes_K)]
    return running
