"""Price of answers that are too short or too long."""

from pydantic import Field, model_validator

from c2s_rl.config import FrozenConfig
from c2s_rl.evaluation.text_metrics import count_words
from rewards.base import RewardBatch, RewardResult, RewardScope
from rewards.info import RewardInfo


class LengthOptions(FrozenConfig):
    """Which lengths are free."""

    min_words: int = Field(0, ge=0, description="Fewest words that cost nothing")
    max_words: int = Field(ge=1, description="Most words that cost nothing", examples=[60])

    @model_validator(mode="after")
    def _min_below_max(self) -> "LengthOptions":
        if self.min_words > self.max_words:
            raise ValueError(
                f"min_words must be at most max_words={self.max_words}, got {self.min_words}"
            )
        return self


class LengthReward:
    """Penalises words outside [min_words, max_words], in [-1, 0].

    0 inside; -(min_words - n) / min_words below, so that an empty answer costs 1;
    -min(1, (n - max_words) / max_words) above, so that twice the limit costs 1.
    """

    info = RewardInfo(
        meaning="Has as many words as asked for",
        low=-1.0,
        high=0.0,
        baseline="an empty answer -1 where min_words is above 0",
        source="this project",
    )
    scope = RewardScope.GROUP
    Options = LengthOptions

    def __init__(self, options: LengthOptions) -> None:
        self._options = options

    def score(self, batch: RewardBatch) -> RewardResult:
        """Score every completion; see the class for the formula."""
        counts = [count_words(sample.text) for sample in batch.samples()]
        return RewardResult(
            tuple(self._price(count) for count in counts),
            {"num_words": tuple(float(count) for count in counts)},
        )

    def _price(self, num_words: int) -> float:
        low, high = self._options.min_words, self._options.max_words
        if num_words < low:
            return (num_words - low) / low
        return 0.0 - min(1.0, max(0, num_words - high) / high)
