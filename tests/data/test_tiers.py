"""Which tier a condition is of."""

import pytest

from c2s_rl.data.tiers import ConditionParts, TierKind, name_tiers, tier_kind


def parts(cell_type: str, perturbation: str = "", exposure: str = "") -> ConditionParts:
    name = " | ".join(part for part in (cell_type, perturbation, exposure) if part)
    return ConditionParts(cell_type, perturbation, exposure, name)


TRAINED = [parts("B", "IL4", "acute"), parts("B", "IL6", "acute"), parts("T", "IL4", "chronic")]


@pytest.mark.parametrize(
    ("tested", "kind"),
    [
        (parts("NK", "IL4", "acute"), TierKind.CELL_TYPE),
        (parts("B", "IL4 + IL6", "acute"), TierKind.COMBINATION),
        (parts("B", "IL4+IL6", "acute"), TierKind.COMBINATION),
        (parts("B", "IL2", "acute"), TierKind.PERTURBATION),
        (parts("B", "anti-CD4+", "acute"), TierKind.PERTURBATION),
        (parts("T", "IL6", "acute"), TierKind.PER_CELL_TYPE),
        (parts("T", "IL4", "acute"), TierKind.EXPOSURE),
        (parts("T", "IL4", "chronic"), TierKind.SEEN),
    ],
)
def test_tier_is_what_training_lacks(tested: ConditionParts, kind: TierKind) -> None:
    assert tier_kind(tested, TRAINED) is kind


def test_without_perturbations_only_cell_types_can_be_unseen() -> None:
    trained = [parts("B")]
    assert tier_kind(parts("B"), trained) is TierKind.SEEN
    assert tier_kind(parts("T"), trained) is TierKind.CELL_TYPE


def test_own_names_go_first_and_the_result_is_sorted() -> None:
    tested = [parts("T", "IL6", "acute"), parts("B", "IL2", "acute")]
    assert list(name_tiers(tested, TRAINED, {"T | IL6 | acute": "hard"}).items()) == [
        ("B | IL2 | acute", "unseen perturbation"),
        ("T | IL6 | acute", "hard"),
    ]
