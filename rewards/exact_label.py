"""Whether an answer is the right label, word for word."""

from c2s_rl.config import FrozenConfig
from c2s_rl.evaluation.text_metrics import is_same_label
from rewards.base import RewardBatch, RewardResult, RewardScope
from rewards.info import RewardInfo


class ExactLabelOptions(FrozenConfig):
    """Nothing to choose: the label is the prompt's target."""


class ExactLabelReward:
    """Scores 1 for the right label and 0 for anything else; made for cell type annotation.

    Case, spaces, quotes and a mark at the end do not matter; a plus sign does. A prompt without a
    label abstains.
    """

    info = RewardInfo(
        meaning="Is the right label, letter case and spaces aside",
        low=0.0,
        high=1.0,
        baseline="an empty answer 0",
        source="this project",
    )
    scope = RewardScope.GROUP
    Options = ExactLabelOptions

    def __init__(self, options: ExactLabelOptions) -> None:
        self._options = options

    def score(self, batch: RewardBatch) -> RewardResult:
        """Score every completion; see the class for the formula."""
        return RewardResult(
            tuple(
                float(is_same_label(s.text, s.record.target)) if s.record.target.strip() else None
                for s in batch.samples()
            )
        )
