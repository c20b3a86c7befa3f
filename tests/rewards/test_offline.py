"""Scoring what lies on disk gives the training scores, to the last bit."""

import pytest

from c2s_rl.data.prompt_set import PromptSet
from c2s_rl.types import ScoredGroup
from rewards.composite import CompositeReward
from rewards.offline import Rescored, rescore, summaries
from tests.reward_fixtures import make_group
from tests.reward_run import NORMALISED, SPECS, VOCABULARY, make_prompts, train


@pytest.mark.parametrize("config", [None, NORMALISED])
def test_every_score_is_reproduced_exactly(tmp_path, config):
    prompts = make_prompts(tmp_path / "corpus")
    train(tmp_path / "completions", prompts, config)
    files = sorted((tmp_path / "completions").iterdir())
    reward = CompositeReward(SPECS, prompts.vocabulary, config=config)
    rescored = rescore(reward, files, prompts)
    found = {one.name: one for one in summaries(rescored)}
    assert list(found) == ["kendall", "validity", "total"]
    assert {one.largest_difference for one in found.values()} == {0.0}
    assert all(one.is_exact and one.num_completions == 36 for one in found.values())
    assert [s.rewards_G for s in rescored.scored] == [s.rewards_G for s in rescored.stored]
    assert [s.diagnostics for s in rescored.scored] == [s.diagnostics for s in rescored.stored]
    assert len({total for s in rescored.scored for total in s.rewards_G}) > 10


def test_another_weight_shows_in_the_total_only(tmp_path):
    prompts = make_prompts(tmp_path / "corpus")
    train(tmp_path / "completions", prompts)
    files = sorted((tmp_path / "completions").iterdir())
    changed = SPECS[0].model_copy(update={"weight": 1.0})
    reward = CompositeReward((changed, SPECS[1]), prompts.vocabulary)
    found = {one.name: one for one in summaries(rescore(reward, files, prompts))}
    assert found["kendall"].is_exact
    assert not found["total"].is_exact
    assert 0 < found["total"].largest_difference <= 2 / 3


def test_an_exact_zero_stands_for_nothing_missing():
    group = make_group([" X1", " X2"])
    stored = ScoredGroup(group, (1.0, None), {"a": (1.0, None)})
    scored = ScoredGroup(group, (1.0, 2.0), {"a": (1.0, 2.0)}, {}, {"b": (None, "raised: x")})
    one, total = summaries(Rescored((stored,), (scored,), ((0.0, 0.0),)))
    assert (one.largest_difference, one.num_unmatched, one.is_exact) == (0.0, 1, False)
    assert (one.mean, one.num_scored, one.num_failed) == (1.5, 2, 0)
    assert total.num_failed == 1


def test_no_file_gives_no_scores():
    reward = CompositeReward(SPECS, VOCABULARY)
    empty = rescore(reward, [], PromptSet((), None))
    (total,) = summaries(empty)
    assert (total.num_completions, total.num_scored, total.largest_difference) == (0, 0, 0.0)
