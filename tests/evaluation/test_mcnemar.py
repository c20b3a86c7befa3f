"""McNemar's test against numbers by hand."""

import numpy as np
import pytest
import scipy.stats

from c2s_rl.evaluation.mcnemar import mcnemar


def answers(num_both, num_first, num_second, num_none):
    """Two classifiers with so many items right by both, only one, or none of them."""
    first = [True] * (num_both + num_first) + [False] * (num_second + num_none)
    second = [True] * num_both + [False] * num_first + [True] * num_second + [False] * num_none
    return np.array(first), np.array(second)


def test_statistic_and_p_by_hand():
    # b = 25, c = 10: (15 - 1)^2 / 35 = 5.6; chi-square tail at 5.6 with one degree: 0.017960...
    test = mcnemar(*answers(50, 25, 10, 3))
    assert (test.num_only_first, test.num_only_second, test.is_exact) == (25, 10, False)
    assert test.statistic == pytest.approx(5.6)
    # sqrt(5.6) standard normal, both tails
    assert test.p_value == pytest.approx(2 * scipy.stats.norm.sf(np.sqrt(5.6)))
    assert test.p_value == pytest.approx(0.01796, abs=1e-5)


def test_few_deciding_items_are_tested_exactly():
    # b = 5, c = 1: two-sided binomial, 2 (6C0 + 6C1) / 2^6 = 14 / 64; statistic (4 - 1)^2 / 6
    test = mcnemar(*answers(9, 5, 1, 9))
    assert test.is_exact
    assert test.statistic == pytest.approx(1.5)
    assert test.p_value == pytest.approx(14 / 64)


def test_equal_classifiers_do_not_differ():
    same = np.array([True, False, True])
    test = mcnemar(same, same)
    assert (test.statistic, test.p_value) == (0.0, 1.0)
    # b = c = 20: the correction must not make up a difference
    balanced = mcnemar(*answers(0, 20, 20, 0))
    assert (balanced.statistic, balanced.p_value) == (0.0, 1.0)


def test_sides_are_interchangeable():
    first, second = answers(4, 30, 12, 5)
    assert mcnemar(first, second).p_value == mcnemar(second, first).p_value


def test_answers_are_booleans_of_one_length():
    with pytest.raises(ValueError, match="right or wrong, got float64 and bool"):
        mcnemar([0.9, 0.1], [True, False])
    with pytest.raises(ValueError, match=r"the same items, got \(1,\), \(2,\)"):
        mcnemar([True], [True, False])
