"""Correlations between rewards by hand, and their picture."""

import numpy as np
import pytest

from c2s_rl.data.completions import write_completions
from c2s_rl.evaluation.correlation_plot import correlation_picture
from c2s_rl.evaluation.reward_correlation import (
    PairCorrelation,
    RewardCorrelation,
    reward_correlation,
    run_correlation,
)
from c2s_rl.types import ScoredGroup
from tests.reward_fixtures import make_group, make_record


def test_coefficients_by_hand_and_within_prompts():
    # y = x^3: ranks agree entirely. numpy: r of (1, 2, 3, 4) and (1, 8, 27, 64)
    found = reward_correlation({"x": [1, 2, 3, 4], "y": [1, 8, 27, 64]}, [0, 0, 0, 0])
    assert found.names == ("x", "y")
    (pair,) = found.pairs
    assert pair.spearman == pytest.approx(1.0)
    assert pair.pearson == pytest.approx(np.corrcoef([1, 2, 3, 4], [1, 8, 27, 64])[0, 1])
    assert pair.within == pytest.approx(pair.pearson)


def test_prompts_that_differ_hide_what_grpo_sees():
    # over both prompts x and y rise together; within each, y falls as x rises
    x, y = [0.0, 1.0, 10.0, 11.0], [1.0, 0.0, 11.0, 10.0]
    (pair,) = reward_correlation({"x": x, "y": y}, [0, 0, 1, 1]).pairs
    assert pair.pearson > 0.9
    assert pair.within == pytest.approx(-1.0)


def test_only_completions_that_both_scored_are_compared():
    x, y = [1.0, 2.0, 3.0, None, 9.0], [3.0, 2.0, 1.0, 5.0, None]
    (pair,) = reward_correlation({"x": x, "y": y}, [0] * 5).pairs
    assert (pair.num_completions, pair.pearson) == (3, pytest.approx(-1.0))


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ([0.1] * 4, [1.0, 2.0, 3.0, 4.0]),  # never varies
        ([1.0, 2.0, None, None], [1.0, 2.0, 3.0, 4.0]),  # two points
        ([None] * 4, [1.0, 2.0, 3.0, 4.0]),
        ([], []),
    ],
)
def test_where_nothing_can_be_said_there_is_no_number(x, y):
    (pair,) = reward_correlation({"x": x, "y": y}, [0] * len(x)).pairs
    assert (pair.pearson, pair.spearman, pair.within) == (None, None, None)


def test_a_reward_that_only_differs_between_prompts_has_no_correlation_within():
    x, y = [0.1, 0.1, 0.1, 0.7, 0.7, 0.7], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    (pair,) = reward_correlation({"x": x, "y": y}, [0, 0, 0, 1, 1, 1]).pairs
    assert pair.pearson is not None
    assert pair.within is None


def test_columns_of_unequal_length_are_an_error():
    with pytest.raises(ValueError, match="y must have 2 scores, got 1"):
        reward_correlation({"x": [1.0, 2.0], "y": [1.0]}, [0, 0])


def write(path, scores, *, prompt_id="p"):
    num = len(scores["a"])
    group = make_group([" G0"] * num, make_record(prompt_id))
    totals = tuple(sum(values) for values in zip(*scores.values(), strict=True))
    components = {name: tuple(values) for name, values in scores.items()}
    write_completions(path, [ScoredGroup(group, totals, components)], [(0.0,) * num])


def test_a_run_is_read_over_all_its_files(tmp_path):
    write(tmp_path / "step-00000.parquet", {"a": [0.0, 1.0], "b": [1.0, 0.0]})
    write(tmp_path / "step-00001.parquet", {"a": [10.0, 11.0], "b": [11.0, 10.0]})
    found = run_correlation(tmp_path)
    assert found.names == ("a", "b", "total")
    # as above: two files are two groups, though the prompt is the same
    assert found.pairs[0].within == pytest.approx(-1.0)
    assert found.pairs[0].num_completions == 4


def test_one_reward_or_no_completions_give_nothing(tmp_path):
    assert run_correlation(tmp_path / "none") is None
    assert run_correlation(tmp_path) is None
    write(tmp_path / "step-00000.parquet", {"a": [0.0, 1.0]})
    assert run_correlation(tmp_path) is None


def test_the_picture_shows_both_sides_and_leaves_out_what_is_not_there():
    pairs = (
        PairCorrelation("tau <b>", "words", 64, 0.5, 0.25, None),
        PairCorrelation("tau <b>", "total", 64, 0.5, 0.75, -0.87),
        PairCorrelation("words", "total", 64, 0.5, 1.0, 0.5),
    )
    picture = correlation_picture(RewardCorrelation(("tau <b>", "words", "total"), pairs))
    assert ">All completions (Spearman)</text>" in picture.svg
    assert picture.svg.count(">0.25</text>") == 2  # both triangles
    assert picture.svg.count(">-0.87</text>") == 2
    # 9 + 7 numbers: one pair has none on the right
    assert picture.svg.count(">1.00</text>") == 3 + 2 + 3
    assert "tau &lt;b&gt;" in picture.svg
    assert "http" not in picture.svg
    assert "the 64 completions" in picture.caption
