"""Rank correlation of changes, against scipy."""

import math

import numpy as np
import pytest
import scipy.stats

from c2s_rl.errors import DataError
from c2s_rl.types import Split
from rewards import load_reward
from rewards.checking import raise_failures, score_checked
from tests.reference_cells import make_batch, make_group, make_material, make_record, random_cells

# expression 4 3 2 1 by place: treated G8 G9 G1 G0, control G0 G1 G2 G3 (both twice)
MATERIAL = make_material({"a": [[8, 9, 1, 0]] * 2}, {"a": [[0, 1, 2, 3]] * 2})


def scores(cells, record=None, material=MATERIAL, **options):
    batch = make_batch(material, make_group(cells, record or make_record("a")))
    return raise_failures(
        score_checked(load_reward("de_spearman", options), batch, "de_spearman")
    ).scores


def test_reward_is_scipys_rho_over_the_changed_genes():
    # changes of G0 G1 G2 G3 G8 G9: -3 -1 -2 -1 4 3; answer G8 G2 G9: -4 -3 +1 -1 4 2
    real, answer = [-3, -1, -2, -1, 4, 3], [-4, -3, 1, -1, 4, 2]
    expected = scipy.stats.spearmanr(answer, real).statistic
    assert scores([[8, 2, 9], [8, 9, 1, 0]]) == pytest.approx((expected, 1.0))


def test_copying_the_control_has_no_change():
    assert scores([[0, 1, 2, 3]]) == (0.0,)


def test_only_the_top_genes_count():
    # the two strongest each way: G8 +4, G9 +3, G0 -3, G2 -2; the answer moves them +4 0 -4 0
    expected = scipy.stats.spearmanr([4, 0, -4, 0], [4, 3, -3, -2]).statistic
    assert scores([[8, 1, 2, 3]], top_k=2) == pytest.approx((expected,))


@pytest.mark.parametrize(
    ("record", "material"),
    [
        (make_record("b"), MATERIAL),
        (make_record("a", split=Split.TEST), MATERIAL),
        (make_record("a", target=()), MATERIAL),
        (make_record("a"), make_material({"a": [[0, 1]]})),
        (make_record("a"), make_material({"a": [[0, 1]]}, {"a": [[0, 1]]})),
    ],
)
def test_where_no_change_can_be_told_completions_abstain(record, material):
    assert scores([[0], [1]], record, material) == (None, None)


def test_any_answer_has_a_finite_score():
    material = make_material({"a": random_cells(0, 8)}, {"a": random_cells(1, 8)})
    values = scores([[], *random_cells(2, 300)], material=material)
    assert all(math.isfinite(value) for value in values)
    assert np.abs(values).max() <= 1.0


def test_a_program_without_known_gene_is_named(tmp_path):
    sets = tmp_path / "sets.gmt"
    sets.write_text("OTHER\tx\tXIST\n", encoding="utf-8")
    with pytest.raises(DataError, match="got none of the 1 of OTHER"):
        load_reward("de_spearman", {"programs": [f"{sets}:OTHER"]}).score(make_batch(MATERIAL))
