"""Pearson and RMSE rewards, by hand and against scipy."""

import math

import numpy as np
import pytest
import scipy.stats

from c2s_rl.errors import ConfigError, DataError
from c2s_rl.evaluation.material import RewardMaterial
from rewards import load_reward
from rewards.checking import raise_failures, score_checked
from tests.reference_cells import make_batch, make_group, make_material, make_record

MATERIAL = make_material({"a": [[0, 1, 2, 3]]})


@pytest.fixture
def sets(tmp_path):
    path = tmp_path / "sets.gmt"
    path.write_text("FOUR\tx\tG0\tG1\tG2\tG3\nOTHER\tx\tXIST\n", encoding="utf-8")
    return path


def scores(name, cells, record=None, **options):
    batch = make_batch(MATERIAL, make_group(cells, record or make_record("a")))
    return raise_failures(score_checked(load_reward(name, options), batch, name)).scores


def test_perfect_reversed_and_silent_answers(sets):
    # target G0 G1 G2 G3 has expression 4 3 2 1 on the program; the reversed one 1 2 3 4
    cells = [[0, 1, 2, 3], [3, 2, 1, 0], [5, 6, 7, 8], []]
    program = f"{sets}:FOUR"
    assert scores("pearson", cells, program=program) == pytest.approx((1.0, -1.0, 0.0, 0.0))
    # errors 0; 3 1 1 3: sqrt(20 / 4); 4 3 2 1 against nothing: sqrt(30 / 4)
    expected = (0.0, -math.sqrt(5), -math.sqrt(7.5), -math.sqrt(7.5))
    assert scores("rmse", cells, program=program) == pytest.approx(expected)


def test_pearson_is_scipys(sets):
    # answer G1 G5 G0: expression of G0..G3 is 2 4 0 0
    expected = scipy.stats.pearsonr([2, 4, 0, 0], [4, 3, 2, 1]).statistic
    assert scores("pearson", [[1, 5, 0]], program=f"{sets}:FOUR") == pytest.approx((expected,))


def test_without_a_program_the_targets_top_genes_are_compared():
    # the target's first 2 genes, expression 4 and 3; the answer has 3 and 0 there
    assert scores("rmse", [[5, 0]], top_genes=2) == pytest.approx((-math.sqrt((1 + 9) / 2),))


def test_answers_are_cut_to_the_length_of_sentences():
    long, short = scores("rmse", [[0, 1, 2, 3, 4, 5, 6], [0, 1, 2, 3]])
    assert long == short == 0.0


def test_delta_compares_changes_to_the_control():
    record = make_record("a", target=(0, 1, 2, 3), control=(3, 2, 1, 0))
    right, copied = scores("pearson", [[0, 1, 2, 3], [3, 2, 1, 0]], record, form="delta")
    assert (right, copied) == (pytest.approx(1.0), 0.0)
    # changes of G0..G3: 3 1 -1 -3, the copy has none: sqrt(20 / 4)
    assert scores("rmse", [[3, 2, 1, 0]], record, form="delta") == pytest.approx((-math.sqrt(5),))


def test_delta_looks_at_the_genes_that_change_most():
    # only G0 and G3 change by 3; the answer moves them right and ruins the others
    record = make_record("a", target=(0, 1, 2, 3), control=(3, 2, 1, 0))
    assert scores("pearson", [[0, 8, 9, 3]], record, form="delta", top_genes=2) == (
        pytest.approx(1.0),
    )


@pytest.mark.parametrize("name", ["pearson", "rmse"])
def test_a_target_that_says_nothing_abstains(name, sets):
    silent = make_record("a", target=(7, 8))
    assert scores(name, [[0], [1]], silent, program=f"{sets}:FOUR") == (None, None)
    assert scores(name, [[0], [1]], make_record("a", target=())) == (None, None)
    same = make_record("a", target=(0, 1), control=(0, 1))
    assert scores(name, [[0], [1]], same, form="delta") == (None, None)


@pytest.mark.parametrize("name", ["pearson", "rmse"])
def test_many_random_answers_have_finite_scores(name):
    rng = np.random.default_rng(0)
    cells = [rng.permutation(12)[: rng.integers(0, 12)].tolist() for _ in range(500)]
    assert all(math.isfinite(value) for value in scores(name, cells))
    assert score_checked(load_reward(name, {}), make_batch(MATERIAL), name).scores == ()


@pytest.mark.parametrize("name", ["pearson", "rmse"])
def test_what_is_missing_is_named(name, sets):
    with pytest.raises(DataError, match="got none of the 1 of OTHER"):
        load_reward(name, {"program": f"{sets}:OTHER"}).score(make_batch(MATERIAL))
    batch = make_batch(MATERIAL, make_group([[0]], make_record("a")))
    with pytest.raises(DataError, match="needs a control cell in the prompt, got none in prompt"):
        load_reward(name, {"form": "delta"}).score(batch)
    homeless = make_batch(RewardMaterial(), *batch.groups)
    with pytest.raises(DataError, match="needs cell and prompt shards"):
        load_reward(name, {}).score(homeless)
    with pytest.raises(ConfigError, match="hallmark_apoptosis"):
        load_reward(name, {"program": "hallmark_apoptosi"})
