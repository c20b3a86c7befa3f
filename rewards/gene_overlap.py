"""How many of the target's top genes a completion names, in any order."""

import numpy as np
from pydantic import Field

from c2s_rl.config import FrozenConfig
from rewards.base import RewardBatch, RewardResult, RewardScope
from rewards.info import RewardInfo


class GeneOverlapOptions(FrozenConfig):
    """How long the compared lists are."""

    num_genes: int = Field(
        ge=1,
        description="Genes of answer and target that are compared, highest first",
        examples=[100],
    )


class GeneOverlapReward:
    """Scores the share of the target's genes that a completion names.

    reward = |generated and target| / |target|, in [0, 1], both cut to `num_genes`: a longer answer
    cannot earn more. Repeats and unknown words take no place among the known genes and earn
    nothing. Prompts whose target names no gene abstain.

    Source: C2S-Scale Table 1 (overlap %).
    """

    info = RewardInfo(
        meaning="Names the target's top genes, in any order",
        low=0.0,
        high=1.0,
        baseline="any cell of the data set well above 0: housekeeping genes are shared",
        source="C2S-Scale Table 1",
    )
    scope = RewardScope.GROUP
    Options = GeneOverlapOptions

    def __init__(self, options: GeneOverlapOptions) -> None:
        self._num_genes = options.num_genes

    def score(self, batch: RewardBatch) -> RewardResult:
        """Score every completion; see the class for the formula."""
        scores: list[float | None] = []
        for group in batch.groups:
            target_K = group.record.target_genes_K[: self._num_genes]
            if not len(target_K):
                scores += [None] * len(group.cells_G)
                continue
            scores += [
                float(np.isin(target_K, cell.genes_K[: self._num_genes]).mean())
                for cell in group.cells_G
            ]
        return RewardResult(tuple(scores))
