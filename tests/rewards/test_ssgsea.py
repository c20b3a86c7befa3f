"""Program activity as a reward, by hand."""

import math

import pytest

from c2s_rl.errors import ConfigError, DataError
from rewards import load_reward
from rewards.checking import raise_failures, score_checked
from tests.reference_cells import make_batch, make_group, make_material, make_record

MATERIAL = make_material({"a": [[0, 1, 5, 6], [5, 6, 7, 8]]})


@pytest.fixture
def options(tmp_path):
    sets = tmp_path / "sets.gmt"
    sets.write_text("TWO\tx\tG0\tG1\nOTHER\tx\tXIST\n", encoding="utf-8")
    return {"program": f"{sets}:TWO", "num_genes": 4}


def score(options, cells, record=None):
    batch = make_batch(MATERIAL, make_group(cells, record or make_record("a")))
    return raise_failures(score_checked(load_reward("ssgsea", options), batch, "ssgsea"))


# Of 12 genes the two of the program have mean rank m, the other ten (78 - 2 m) / 10; the score is
# their difference over 6. First two places: m = 1.5, 7.5: 1. Not named beside 4 others: ranks
# 5..12, mean 8.5, others 6.1: -0.4. One at place 1, one not named (last three... 2..12 hold 11 - 3
# named): ranks 1 and 8.5, m = 4.75, others 6.85: 0.35.
TOP, ABSENT, HALF = 1.0, -0.4, 0.35


def test_raise_is_the_activity_itself(options):
    result = score(options | {"goal": "raise"}, [[0, 1, 5, 6], [5, 6, 7, 8], [0, 5, 6, 7], []])
    assert result.scores == pytest.approx((TOP, ABSENT, HALF, 0.0))
    assert result.diagnostics["activity"] == pytest.approx(result.scores)


def test_match_and_reach_compare_with_the_target(options):
    cells = [[0, 1, 5, 6], [5, 6, 7, 8], [0, 5, 6, 7]]
    record = make_record("a", target=(0, 5, 6, 7))
    match, reach = (score(options | {"goal": goal}, cells, record) for goal in ("match", "reach"))
    assert match.scores == pytest.approx((HALF - TOP, ABSENT - HALF, 0.0))
    assert reach.scores == pytest.approx((0.0, ABSENT - HALF, 0.0))
    assert match.diagnostics["wanted"] == pytest.approx((HALF,) * 3)


def test_the_condition_is_the_mean_of_its_real_cells(options):
    result = score(options | {"reference": "condition"}, [[0, 1, 5, 6]])
    wanted = (TOP + ABSENT) / 2
    assert result.scores == pytest.approx((wanted - TOP,))
    unknown = score(options | {"reference": "condition"}, [[0], [1]], make_record("b"))
    assert unknown.scores == (None, None)


def test_groups_keep_their_own_goals(options):
    batch = make_batch(
        MATERIAL,
        make_group([[0, 1, 5, 6]], make_record("a", target=(0, 1, 5, 6))),
        make_group([[0], []], make_record("b", target=())),
        make_group([[0, 1, 5, 6]], make_record("c", target=(5, 6, 7, 8))),
    )
    result = raise_failures(score_checked(load_reward("ssgsea", options), batch, "ssgsea"))
    assert result.scores == (pytest.approx(0.0), None, None, pytest.approx(ABSENT - TOP))


def test_answers_and_targets_are_cut_alike(options):
    long = score(options, [[5, 6, 7, 8, 0, 1]], make_record("a", target=(5, 6, 7, 8, 9, 0)))
    assert long.scores == pytest.approx((0.0,))


def test_no_and_many_completions(options):
    assert score_checked(load_reward("ssgsea", options), make_batch(MATERIAL), "s").scores == ()
    values = score(options, [[0, 5], []] * 200).scores
    assert all(math.isfinite(value) for value in values)


def test_what_is_missing_is_named(options):
    other = options | {"program": options["program"].replace("TWO", "OTHER")}
    with pytest.raises(DataError, match="got none of the 1 of OTHER"):
        load_reward("ssgsea", other).score(make_batch(MATERIAL))
    with pytest.raises(ConfigError, match="'match', 'reach' or 'raise'"):
        load_reward("ssgsea", options | {"goal": "win"})
