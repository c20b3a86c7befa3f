"""Tiers by lot: each condition taken out is of the kind that it was drawn as."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2s_rl.data.split_config import DrawKind, TierDraw
from c2s_rl.data.tier_draws import draw_tiers
from c2s_rl.data.tiers import ConditionParts, TierKind, tier_kind
from c2s_rl.errors import DataError

KINDS = {
    DrawKind.COMBINATION: TierKind.COMBINATION,
    DrawKind.PER_CELL_TYPE: TierKind.PER_CELL_TYPE,
    DrawKind.EXPOSURE: TierKind.EXPOSURE,
}
ALL = tuple(TierDraw(kind=kind) for kind in KINDS)


def parts(cell_type: str, perturbation: str, exposure: str = "") -> ConditionParts:
    name = " | ".join(part for part in (cell_type, perturbation, exposure) if part)
    return ConditionParts(cell_type, perturbation, exposure, name)


# As in Dong et al.: every cell type under single cytokines and one pair, acute and chronic.
DONG = [
    parts(cell_type, cytokine, exposure)
    for cell_type in ("B", "CD4", "CD8", "NK")
    for cytokine in ("IFN-beta", "IL-6", "TNF", "IFN-beta + IL-6")
    for exposure in ("acute", "chronic")
]


@given(st.permutations(DONG), st.integers(0, 999), st.permutations(ALL))
def test_every_drawn_condition_is_of_its_kind(
    conditions: list[ConditionParts], seed: int, draws: list[TierDraw]
) -> None:
    drawn = draw_tiers(draws, conditions, seed=seed)
    trained = set(conditions).difference(*drawn)
    for draw, taken in zip(draws, drawn, strict=True):
        assert taken
        assert {tier_kind(t, trained) for t in taken} == {KINDS[draw.kind]}
    # The order of neither list matters.
    again = dict(zip(ALL, draw_tiers(ALL, DONG, seed=seed), strict=True))
    assert again == dict(zip(draws, drawn, strict=True))


def test_numbers_are_those_of_the_paper() -> None:
    combination, per_cell_type, exposure = draw_tiers(ALL, DONG, seed=0)
    # The one pair, in 4 cell types and 2 exposures.
    assert {t.perturbation for t in combination} == {"IFN-beta + IL-6"}
    assert len(combination) == 4 * 2
    # One cytokine a cell type in both exposures; one more in one exposure only.
    assert sorted(t.cell_type for t in per_cell_type) == sorted(["B", "CD4", "CD8", "NK"] * 2)
    assert len({(t.cell_type, t.perturbation) for t in per_cell_type}) == 4
    assert sorted(t.cell_type for t in exposure) == ["B", "CD4", "CD8", "NK"]


def test_a_cell_type_that_cannot_lose_more_gives_what_it_can(
    caplog: pytest.LogCaptureFixture,
) -> None:
    # B and T share IL4 and IL6; T alone has IL2. Two each: T could not lose IL2, of its own.
    conditions = [parts("B", "IL4"), parts("B", "IL6")]
    conditions += [parts("T", name) for name in ("IL2", "IL4", "IL6")]
    draw = TierDraw(kind=DrawKind.PER_CELL_TYPE, num=2)
    (taken,) = draw_tiers([draw], conditions, seed=0)
    # B loses one of its two and T the other: nothing more is trained by another cell type.
    assert {t.cell_type for t in taken} == {"B", "T"}
    assert {t.perturbation for t in taken} == {"IL4", "IL6"}
    assert len(taken) == 2
    assert "tier drawn per_cell_type: too little to draw from for 'B', 'T'" in caplog.text


@pytest.mark.parametrize(
    ("kind", "num", "conditions", "message"),
    [
        ("combination", 1, [parts("B", "IL4"), parts("B", "CD4+")], "got no combination among 2"),
        ("combination", 2, DONG, "needs 2 combinations ('A + B') and other perturbations to train"),
        ("combination", 1, [parts("B", "IL4 + IL6")], "got 'IL4 + IL6' among 1 perturbations"),
        ("per_cell_type", 1, [parts("B", "IL4"), parts("T", "IL4")], "got none among 'B', 'T'"),
        ("exposure", 1, [parts("B", "IL4", "acute")], "with 2 or more exposures, got none among"),
        ("exposure", 1, [], "got none among no cell types"),
    ],
)
def test_too_little_to_draw_from_is_an_error(
    kind: str, num: int, conditions: list[ConditionParts], message: str
) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        draw_tiers([TierDraw(kind=DrawKind(kind), num=num)], conditions, seed=0)
