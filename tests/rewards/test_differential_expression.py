"""Overlap and direction of differential expression, with each completion's share."""

import math

import numpy as np
import pytest

from c2s_rl.errors import DataError
from c2s_rl.evaluation.expression_change import (
    EffectKind,
    cell_effects,
    changed_genes,
    mean_effect,
    recovered_change,
    separation,
    sign_match,
    top_overlap,
)
from c2s_rl.models.cell_embedder import CellEmbedderConfig, ExpressionEmbedder
from c2s_rl.types import Split
from rewards import load_reward
from rewards.base import RewardScope
from rewards.checking import raise_failures, score_checked
from tests.reference_cells import (
    RANK_MODEL,
    VOCABULARY,
    int32,
    make_batch,
    make_group,
    make_material,
    make_record,
    random_cells,
)

# Treated cells put genes 8-11 where the controls have the low ones.
CONTROLS = random_cells(0, 15)
TREATED = [[11 - g for g in cell] for cell in random_cells(1, 12)]
MATERIAL = make_material({"a": TREATED}, {"a": CONTROLS})
GENERATED = [*TREATED[:3], *CONTROLS[:3], *random_cells(2, 3)]
FORMS = {
    ("de_overlap", "separation"): separation,
    ("de_overlap", "top_k"): top_overlap,
    ("de_direction", "recovered"): recovered_change,
    ("de_direction", "sign"): sign_match,
}
each = pytest.mark.parametrize("name", ["de_overlap", "de_direction"])


def embed(cells):
    embedder = ExpressionEmbedder(CellEmbedderConfig(), VOCABULARY, RANK_MODEL)
    return embedder.embed([int32(cell) for cell in cells])


def score(name, batch, **options):
    return raise_failures(score_checked(load_reward(name, {"top_k": 3} | options), batch, name))


@pytest.mark.parametrize(("name", "form"), FORMS)
@pytest.mark.parametrize("effect", EffectKind)
def test_reward_is_the_scaled_agreement_of_all_minus_that_without_the_completion(
    name, form, effect
):
    result = score(
        name,
        make_batch(MATERIAL, make_group(GENERATED, make_record("a"))),
        form=form,
        effect=effect,
    )
    real = changed_genes(mean_effect(cell_effects(embed(TREATED), embed(CONTROLS), effect)), 3)

    def agreement(cells):
        effect_N = mean_effect(cell_effects(embed(cells), embed(CONTROLS), effect))
        return FORMS[name, form](effect_N[None], real)[0]

    of_all = agreement(GENERATED)
    expected = [8 * (of_all - agreement(GENERATED[:i] + GENERATED[i + 1 :])) for i in range(9)]
    np.testing.assert_allclose(result.scores, expected, atol=1e-9)
    assert result.diagnostics[name] == pytest.approx((of_all,) * 9)


@each
def test_treated_cells_earn_more_than_copies_of_controls(name):
    cells = [*TREATED[:3], *CONTROLS[:9]]
    scores = score(name, make_batch(MATERIAL, make_group(cells, make_record("a")))).scores
    assert np.mean(scores[:3]) > np.mean(scores[3:]) + 0.3


@each
def test_all_treated_cells_agree_and_all_controls_do_not(name):
    copies, answers = (
        score(name, make_batch(MATERIAL, make_group(cells, make_record("a")))).diagnostics[name][0]
        for cells in (CONTROLS, TREATED)
    )
    assert answers == pytest.approx(1.0)
    assert copies < 0.1


@each
def test_order_of_groups_has_no_influence(name):
    parts = [make_group(GENERATED[:4], make_record()), make_group(GENERATED[4:], make_record())]
    straight = score(name, make_batch(MATERIAL, *parts)).scores
    turned = score(name, make_batch(MATERIAL, *parts[::-1])).scores
    np.testing.assert_allclose(turned, straight[4:] + straight[:4], atol=1e-9)


@each
@pytest.mark.parametrize(
    ("material", "num", "record"),
    [
        (MATERIAL, 1, make_record("a")),  # no siblings
        (MATERIAL, 4, make_record("b")),  # no real cells of this condition
        (MATERIAL, 4, make_record("a", split=Split.TEST)),  # none on this side
        (make_material({"a": TREATED}), 4, make_record("a")),  # no controls
        (make_material({"a": TREATED}, {"a": TREATED}), 4, make_record("a")),  # nothing changes
        (MATERIAL, 4, make_record("a", target=())),  # the answer is text
    ],
)
def test_where_no_change_can_be_told_completions_abstain(name, material, num, record):
    result = score(name, make_batch(material, make_group(GENERATED[:num], record)))
    assert result.scores == (None,) * num
    assert all(math.isnan(value) for value in result.diagnostics[name])


@each
@pytest.mark.parametrize("effect", EffectKind)
def test_empty_answers_and_many_answers_have_finite_scores(name, effect):
    group = make_group([[]] * 3 + random_cells(5, 100) * 5, make_record("a"))
    scores = score(name, make_batch(MATERIAL, group), effect=effect).scores
    assert all(math.isfinite(value) for value in scores)
    assert score(name, make_batch(MATERIAL)).scores == ()


@each
def test_only_genes_of_the_programs_are_looked_at(name, tmp_path):
    sets = tmp_path / "sets.gmt"
    sets.write_text("SOME\tx\tG0\tG11\nOTHER\tx\tXIST\n", encoding="utf-8")
    batch = make_batch(MATERIAL, make_group([[11, 5], [5, 11], [0, 1]], make_record("a")))
    scores = score(name, batch, programs=[f"{sets}:SOME"]).scores
    assert scores[2] == min(scores)
    with pytest.raises(DataError, match="got none of the 1 of OTHER"):
        load_reward(name, {"programs": [f"{sets}:OTHER"]}).score(batch)


@each
def test_scope_is_the_condition(name):
    assert load_reward(name, {}).scope is RewardScope.CONDITION
