"""Null-baseline calibration, with scores by hand."""

import numpy as np
import pytest

from c2s_rl.cells.rank_model import RankForm, RankModel
from c2s_rl.data.cell_table import CellTable
from c2s_rl.errors import ConfigError, DataError, RewardError
from c2s_rl.evaluation.material import Reference, RewardMaterial
from c2s_rl.evaluation.real_cells import gather_real_cells
from rewards.base import RewardBatch, RewardResult, RewardScope
from rewards.calibration import CalibratedReward, CalibrationConfig
from rewards.composite import CompositeReward, RewardSpec, build_reward
from tests.reward_fixtures import VOCABULARY, WordCount, make_group, make_record

# control c0 of 2 genes; treated cells of 4 (the prompt's own), 6 and 8 genes
LENGTHS = {"c0": 2, "t0": 4, "t1": 6, "t2": 8}
RECORD = make_record(control=range(2), target_id="t0", context_id="c0")
OTHERS = [make_record(name, target_id=name, context_id="c0") for name in ("t1", "t2")]


class Material(RewardMaterial):
    """Real cells without files."""

    def __init__(self, records, num_genes=8):
        lengths = list(LENGTHS.values())
        genes = np.concatenate([np.arange(n, dtype=np.int32) for n in lengths])
        table = CellTable(
            tuple(LENGTHS), np.cumsum([0, *lengths]), genes, np.ones(len(genes), dtype=np.float32)
        )
        model = RankModel(RankForm.LINEAR, -1.0, 9.0, 1.0)
        real = gather_real_cells(records, table, len(VOCABULARY))
        super().__init__()
        self.__dict__["reference"] = Reference(real, model, num_genes)


def score(texts, *, record=RECORD, records=(RECORD, *OTHERS), reward=None, num_genes=8, **config):
    calibrated = CalibratedReward(reward or WordCount(), CalibrationConfig(**config))
    batch = RewardBatch((make_group(texts, record),), VOCABULARY, Material(records, num_genes))
    return calibrated.score(batch)


def test_the_control_scores_zero_and_real_siblings_one_on_average():
    # control 2 words; siblings 6 and 8, so 7, without the prompt's own cell (4): (words - 2) / 5
    result = score(["G0 G1", "G0 G1 G2 G3 G4 G5 G6", "G0", "a b c d e f g h i j k l"])
    assert result.scores == (0.0, 1.0, -0.2, 2.0)
    assert result.diagnostics["baseline"] == (2.0,) * 4
    assert result.diagnostics["gap"] == (5.0,) * 4
    assert result.diagnostics["uncalibrated"] == (0.0,) * 4


def test_real_cells_are_cut_to_the_length_of_sentences():
    # siblings of 6 and 8 genes are cut to 5, the control of 2 is not: (words - 2) / 3
    assert score(["a b c d e"], num_genes=5).scores == (1.0,)


def test_so_many_siblings_as_asked_for_are_drawn_the_same_way_each_time():
    gaps = {score(["a"], ceiling_cells=1).diagnostics["gap"] for _ in range(3)}
    assert len(gaps) == 1
    assert gaps <= {(4.0,), (6.0,)}


def test_a_prompt_where_real_cells_are_no_better_than_the_control_abstains():
    record = make_record(control=range(8), target_id="t0", context_id="c0")
    # control 8, siblings 7: a gap of -1
    result = score(["a", "b c"], record=record)
    assert result.scores == (None, None)
    assert result.diagnostics["uncalibrated"] == (1.0, 1.0)
    assert result.diagnostics["gap"] == (-1.0, -1.0)
    assert score(["a"], min_gap=5.0).scores == (None,)
    assert score(["a b c d e f g"], min_gap=4.999).scores == (1.0,)


def test_a_prompt_without_other_real_cells_abstains():
    result = score(["a"], records=(RECORD,))
    assert result.scores == (None,)
    assert result.diagnostics["uncalibrated"] == (1.0,)


class Picky(WordCount):
    """Abstains on sentences of two words, so on the control."""

    def score(self, batch):
        words = [s.cell.num_words for s in batch.samples()]
        return RewardResult(tuple(None if n == 2 else float(n) for n in words))


def test_where_the_reward_abstains_nothing_is_calibrated():
    assert score(["a b c"], reward=Picky()).scores == (None,)


def test_each_prompt_is_calibrated_once():
    reward = WordCount()
    calibrated = CalibratedReward(reward, CalibrationConfig())
    material = Material((RECORD, *OTHERS))
    batch = RewardBatch((make_group(["a"], RECORD),) * 2, VOCABULARY, material)
    first = calibrated.score(batch)
    assert reward.num_calls == 3  # the batch, the control and the real cells
    assert calibrated.score(batch) == first
    assert reward.num_calls == 4


def test_a_prompt_without_control_cell_is_named():
    record = make_record("lonely", control=(), target_id="t0")
    with pytest.raises(DataError, match="got none in prompt 'lonely'"):
        score(["a"], record=record)


def test_a_run_without_real_cells_is_said():
    batch = RewardBatch((make_group(["a"], RECORD),), VOCABULARY)
    with pytest.raises(DataError, match="needs cell and prompt shards, got cells=None"):
        CalibratedReward(WordCount(), CalibrationConfig()).score(batch)


class Answers(WordCount):
    """Answers calibrating calls with what it was told to."""

    def __init__(self, answer):
        super().__init__()
        self._answer = answer

    def score(self, batch):
        self.num_calls += 1
        if self.num_calls == 1:
            return RewardResult((1.0,) * len(batch))
        return self._answer


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (RewardResult((float("nan"),)), "finite numbers, got nan in reward 'in calibration' on"),
        (RewardResult((1.0,) * 3), "one value per completion, got 3 scores for 1"),
        ("three", "must return a RewardResult, got 'three' in reward 'in cal"),
    ],
)
def test_a_failure_on_real_cells_is_an_error_and_never_a_number(answer, message):
    with pytest.raises(RewardError, match=message):
        score(["a"], reward=Answers(answer))


def test_a_broken_answer_is_passed_on_to_be_named_by_the_check():
    class Broken(WordCount):
        def score(self, batch):
            return [1.0]

    assert score(["a"], reward=Broken()) == [1.0]


def test_calibration_comes_before_clipping_in_a_run():
    spec = RewardSpec(
        name=f"{WordCount.__module__}:WordCount", label="words", calibrate={}, clip={"high": 1.0}
    )
    composite = CompositeReward([spec], VOCABULARY, material=Material((RECORD, *OTHERS)))
    texts = ["a b", "a b c d e f g", "a b c d e f g h i j k l"]
    (scored,) = composite.score([make_group(texts, RECORD)])
    assert scored.rewards_G == (0.0, 1.0, 1.0)
    assert scored.components["words"] == (0.0, 1.0, 2.0)


class PerCondition(WordCount):
    """Compares all groups of a condition."""

    scope = RewardScope.CONDITION


def test_rewards_of_a_whole_condition_cannot_be_calibrated():
    spec = RewardSpec(name=f"{__name__}:PerCondition", label="all", calibrate={})
    with pytest.raises(ConfigError, match=r"scope 'group' only.* got 'all' of scope 'condition'"):
        build_reward(spec)
