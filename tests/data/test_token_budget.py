"""The longest sentences and the most cells that fit; by hand and against all sizes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2s_rl.data.corpus_sections import TokenBudget
from c2s_rl.data.token_budget import SampleSize, TokenCosts, estimated_costs, fit_sample


def genes(*indices: int) -> np.ndarray:
    return np.array(indices, dtype=np.int32)


def budget(max_tokens: int, min_genes: int = 2) -> TokenBudget:
    return TokenBudget(max_tokens=max_tokens, tokens_per_gene=1, min_genes=min_genes)


COSTS = TokenCosts(np.array([1.0, 2.0, 3.0, 4.0]), len)


@pytest.mark.parametrize(
    ("max_tokens", "size"),
    [
        # Cells 0 1 2 3 and 3 2 of 10 tokens of text each: 1 gene each costs 1 + 4, 2 genes
        # 3 + 7, 3 genes 6 + 7 (the second has no third), 4 genes 10 + 7.
        (37, SampleSize(2, 4)),
        (36, SampleSize(2, 3)),
        (33, SampleSize(2, 3)),
        (32, SampleSize(2, 2)),
        (30, SampleSize(2, 2)),
        (29, None),
    ],
)
def test_sentences_are_shortened_equally_down_to_the_fewest_genes(
    max_tokens: int, size: SampleSize | None
) -> None:
    cells = [[genes(0, 1, 2, 3)], [genes(3, 2)]]
    fitted = fit_sample(
        cells,
        lambda num_cells: 10 * num_cells,
        budget(max_tokens),
        COSTS,
        num_genes=4,
        is_sample=True,
    )
    assert fitted == size


def test_cells_are_left_out_last_first_but_two_stay() -> None:
    cells = [[genes(0, 1)], [genes(0, 2)], [genes(0, 3)]]
    # Two genes each cost 3 + 4 + 5 = 12 with three cells, 7 with two; 5 of text a cell.
    for max_tokens, size in ((27, SampleSize(3, 2)), (26, SampleSize(2, 2)), (16, None)):
        fitted = fit_sample(
            cells, lambda num: 5 * num, budget(max_tokens), COSTS, num_genes=2, is_sample=True
        )
        assert fitted == size
    kept = fit_sample(cells, lambda num: 5 * num, budget(26), COSTS, num_genes=2, is_sample=False)
    assert kept is None


def test_a_corpus_of_short_sentences_may_have_fewer_than_min_genes() -> None:
    fitted = fit_sample(
        [[genes(0, 1)]], lambda _: 1, budget(20, 20), COSTS, num_genes=2, is_sample=False
    )
    assert fitted == SampleSize(1, 2)


@given(
    st.lists(
        st.lists(st.integers(0, 3), min_size=1, max_size=6, unique=False), min_size=2, max_size=5
    ),
    st.integers(8, 90),
    st.integers(1, 3),
)
def test_the_choice_is_the_largest_of_all_sizes(
    sentences: list[list[int]], max_tokens: int, min_genes: int
) -> None:
    def cost(num_cells: int, num_genes: int) -> int:
        text = 4 * num_cells
        return text + sum(gene + 1 for s in sentences[:num_cells] for gene in s[:num_genes])

    sizes = [
        (num_cells, num_genes)
        for num_cells in range(2, len(sentences) + 1)
        for num_genes in range(min_genes, 7)
        if cost(num_cells, num_genes) <= max_tokens
    ]
    fitted = fit_sample(
        [[genes(*s)] for s in sentences],
        lambda num_cells: 4 * num_cells,
        budget(max_tokens, min_genes),
        COSTS,
        num_genes=6,
        is_sample=True,
    )
    assert fitted == (SampleSize(*max(sizes)) if sizes else None)


def test_without_a_tokenizer_symbols_cost_as_genes_and_words_by_their_letters() -> None:
    costs = estimated_costs(5.0, 3)
    assert costs.gene_tokens_N.tolist() == [5, 5, 5]
    # "cells" 2 tokens, "HLA-A" and "Cell" and "7" 5 each, "a" 1.
    assert costs.count_text("cells HLA-A\nCell 7 a") == 2 + 5 + 5 + 5 + 1
