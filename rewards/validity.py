"""How much of a completion is genes of the vocabulary, each written once."""

from pydantic import Field

from c2s_rl.config import FrozenConfig
from rewards.base import RewardBatch, RewardResult, RewardScope
from rewards.info import RewardInfo


class ValidityOptions(FrozenConfig):
    """What a full answer is."""

    num_genes: int = Field(ge=1, description="Genes that an answer should hold", examples=[100])


class ValidityReward:
    """Scores known, non-repeated genes.

    reward = distinct known genes / max(words written, num_genes), in [0, 1]: an invented symbol, a
    repeat and a missing gene each cost the same.
    """

    info = RewardInfo(
        meaning="Known genes, each written once, and enough of them",
        low=0.0,
        high=1.0,
        baseline="any real sentence of full length 1, an empty answer 0",
        source="this project",
    )
    scope = RewardScope.GROUP
    Options = ValidityOptions

    def __init__(self, options: ValidityOptions) -> None:
        self._num_genes = options.num_genes

    def score(self, batch: RewardBatch) -> RewardResult:
        """Score every completion; see the class for the formula."""
        cells = [sample.cell for sample in batch.samples()]
        return RewardResult(
            tuple(len(c.genes_K) / max(c.num_words, self._num_genes) for c in cells)
        )
