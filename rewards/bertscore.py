"""BERTScore of a free-text answer against the right one, by BioBERT or any other encoder."""

from functools import cached_property
from pathlib import Path

from pydantic import Field

from c2s_rl.data.prompt_set import read_prompts
from c2s_rl.errors import DataError
from c2s_rl.evaluation.bertscore import BertScorer, ScoreField, idf_weights
from c2s_rl.evaluation.material import RewardMaterial
from c2s_rl.models.encoding_cache import EncodingCache
from c2s_rl.models.text_encoder import TextEncoder, TextEncoderConfig, resolve_encoder
from c2s_rl.types import Split
from rewards.base import RewardBatch, RewardResult, RewardScope
from rewards.info import RewardInfo

# References kept in memory: some 300 MB of BioBERT vectors at 100 tokens each.
MAX_REFERENCES = 1024


class BertScoreOptions(TextEncoderConfig):
    """Encoder, and which number becomes the reward."""

    field: ScoreField = Field(ScoreField.F1, description="f1 (the paper's), precision or recall")
    idf: bool = Field(
        default=False,
        description="Weigh tokens by rarity among the training answers. Off, as in the paper and "
        "the package: with few answers the weights say more about that file than about biology, "
        "and scores of two data sets could not be compared",
    )
    baseline: float | None = Field(
        None,
        gt=-1,
        lt=1,
        description="Score of unrelated texts: (x - baseline) / (1 - baseline) is given instead, "
        "which spreads the narrow range of raw scores; default: raw, as in the paper",
    )


class BertScoreReward:
    """Scores how well the tokens of answer and right answer match (raw F1: 0 to 1).

    An answer without any token scores 0, as in the bert-score package; a prompt whose right answer
    is empty abstains. Texts are cut to the encoder's longest input. Source: C2S-Scale section
    4.5.2; Zhang et al. 2020 (arXiv:1904.09675).
    """

    info = RewardInfo(
        meaning="Says in other words what the right answer says",
        low=-1.0,
        high=1.0,
        baseline="an empty answer 0; the text report shows a shuffled answer",
        source="C2S-Scale 4.5.2, arXiv:1904.09675",
    )
    scope = RewardScope.GROUP
    Options = BertScoreOptions

    def __init__(self, options: BertScoreOptions) -> None:
        """Check that the encoder is there; it is loaded when the first answers come.

        Rewards are also built where a config is only read, which must be quick.

        Raises:
            MissingFileError: If the encoder's folder or package is not there.
        """
        resolve_encoder(options.encoder)
        self._options = options
        self._scorers: dict[Path | None, BertScorer] = {}

    def score(self, batch: RewardBatch) -> RewardResult:
        """Score every completion; see the class for the formula."""
        samples = list(batch.samples())
        rows = [i for i, sample in enumerate(samples) if sample.record.target.strip()]
        if not rows:
            return RewardResult((None,) * len(samples))
        scores_B = (
            self._scorer(batch)
            .score([samples[i].text for i in rows], [samples[i].record.target for i in rows])
            .of(self._options.field)
        )
        if (baseline := self._options.baseline) is not None:
            scores_B = (scores_B - baseline) / (1 - baseline)
        found = dict(zip(rows, scores_B.tolist(), strict=True))
        return RewardResult(tuple(found.get(i) for i in range(len(samples))))

    @cached_property
    def _encoder(self) -> TextEncoder:
        own = self._options.model_dump(include=set(TextEncoderConfig.model_fields))
        return TextEncoder(TextEncoderConfig.model_validate(own))

    def _scorer(self, batch: RewardBatch) -> BertScorer:
        """The run's scorer: one for all batches of the same material."""
        material = batch.material
        if material.corpus not in self._scorers:
            self._scorers[material.corpus] = BertScorer(
                self._encoder,
                EncodingCache(MAX_REFERENCES, material.cache),
                weights=idf_weights(self._encoder, _answers(batch)) if self._options.idf else None,
                is_shared=material.cache is not None,
            )
        return self._scorers[material.corpus]


def _answers(batch: RewardBatch) -> list[str]:
    """Right answers of the task's training prompts.

    Raises:
        DataError: If the run has no corpus.
    """
    material: RewardMaterial = batch.material
    if material.corpus is None:
        raise DataError("idf needs the training answers, got no corpus")
    task = batch.groups[0].record.task
    records = read_prompts(material.corpus, split=Split.TRAIN, task=task).records
    return [record.target for record in records]
