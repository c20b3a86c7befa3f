from c2s_rl.config import FrozenConfig
from rewards.base import RewardBatch, RewardResult, RewardScope


class MarkerShare:
    """Share of some marker genes that a completion writes."""

    scope = RewardScope.GROUP

    class Options(FrozenConfig):
        markers: tuple[str, ...]

    def __init__(self, options: Options) -> None:
        self.markers = options.markers

    def score(self, batch: RewardBatch) -> RewardResult:
        wanted = set(batch.vocabulary.indices(self.markers).tolist())
        written = [wanted.intersection(s.cell.genes_K.tolist()) for s in batch.samples()]
        return RewardResult(tuple(len(genes) / len(wanted) for genes in written))
