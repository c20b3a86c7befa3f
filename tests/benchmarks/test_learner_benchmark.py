"""The benchmark runs; its figures are read by people, not tested."""

import pytest

from tests.benchmarks.learner import QUICK, SIDES, Case, measure


def test_all_sides_find_the_same_gradient():
    figures = {side: measure(side, QUICK[0]) for side in SIDES}
    assert figures["c2s_rl"]["gradient"] > 1e-3
    for side in ("padded", "padded_kept"):
        assert figures[side]["gradient"] == pytest.approx(figures["c2s_rl"]["gradient"], rel=1e-4)


def test_bounds_count_tokens_and_matrix_operations():
    case = Case(prompt=4, completion=1, group=16, vocabulary=12, hidden=2, layers=1)
    # 16 rows of 5 tokens; packed 4 + 16 x 1
    assert case.tokens_ratio == 80 / 20
    # body 12 x 1 x 2^2 = 48, head 12 x 2 = 24, 16 completion tokens projected on both sides
    assert case.operations_ratio == (48 * 80 + 24 * 16) / (48 * 20 + 24 * 16)
    assert Case.parse(case.option) == case
