"""Share of the right answer's keywords that an answer names."""

from c2s_rl.config import FrozenConfig
from c2s_rl.evaluation.text_metrics import keyword_recall
from rewards.base import RewardBatch, RewardResult, RewardScope
from rewards.info import RewardInfo


class KeywordRecallOptions(FrozenConfig):
    """Nothing to choose: the keywords come with the prompts."""


class KeywordRecallReward:
    """Scores the share of a question's keywords that the answer names as whole words, in [0, 1].

    Case and spaces do not matter; naming a keyword twice earns nothing more. A prompt without
    keywords abstains. A list of all keywords would earn 1: pair it with `bertscore` or `length`.
    """

    info = RewardInfo(
        meaning="Names the keywords of the right answer",
        low=0.0,
        high=1.0,
        baseline="an empty answer 0",
        source="this project",
    )
    scope = RewardScope.GROUP
    Options = KeywordRecallOptions

    def __init__(self, options: KeywordRecallOptions) -> None:
        self._options = options

    def score(self, batch: RewardBatch) -> RewardResult:
        """Score every completion; see the class for the formula."""
        return RewardResult(
            tuple(keyword_recall(s.text, s.record.keywords) for s in batch.samples())
        )
