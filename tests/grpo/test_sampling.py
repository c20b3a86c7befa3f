"""Rules between the parts of the sampling section."""

import pytest

from c2s_rl.decoding.constraint import GeneConstraint, GeneMode
from c2s_rl.grpo.sampling import SamplingConfig
from c2s_rl.types import Task


def test_a_budget_below_one_token_a_gene_is_refused():
    genes = GeneConstraint(mode=GeneMode.ON, min_genes=8)
    with pytest.raises(ValueError, match=r"at least 9 for genes.min_genes=8 and the end, got 8"):
        SamplingConfig(max_tokens=8, genes=genes)
    assert SamplingConfig(max_tokens=9, genes=genes).max_tokens == 9


def test_the_task_decides_nothing_but_the_genes():
    config = SamplingConfig(group_size=3, max_tokens=7, temperature=0.5)
    decided = config.for_task(Task.CELL_GENERATION)
    assert decided.genes.mode is GeneMode.ON
    assert decided.model_copy(update={"genes": config.genes}) == config
