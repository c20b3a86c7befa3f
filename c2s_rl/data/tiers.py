"""How far a held-out condition is from training: the tiers that an evaluation shows apart.

A tier is told from the training prompts, not promised by a config: a condition whose perturbation
no training prompt has is not called 'one exposure left out'. Names of a user's own go before it.
Left out: which cells are held out (`splits.py`).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from c2s_rl.errors import DataError


class TierKind(StrEnum):
    """What of a held-out condition training has not seen, hardest first."""

    CELL_TYPE = "unseen cell type"
    """No training prompt is of its cell type."""
    COMBINATION = "unseen combination"
    """No training prompt has its perturbation, which is several agents joined by '+'."""
    PERTURBATION = "unseen perturbation"
    """No training prompt has its perturbation."""
    PER_CELL_TYPE = "unseen per cell type"
    """Other cell types are trained under its perturbation, its own is not, in any exposure."""
    EXPOSURE = "unseen exposure"
    """Its cell type is trained under its perturbation, but not in this exposure (dose, time)."""
    SEEN = "seen condition"
    """Training prompts ask for the same condition, with other cells."""


@dataclass(frozen=True)
class ConditionParts:
    """What a condition is made of."""

    cell_type: str
    perturbation: str
    """'' where the corpus has no perturbations."""
    exposure: str
    """'' where the corpus tells none apart."""
    name: str
    """The condition as prompts name it."""


def is_combination(perturbation: str) -> bool:
    """Tell whether a perturbation is several agents joined by '+': 'IFN-beta + IL-6'.

    Both sides must name something: 'CD4+' is no combination.
    """
    return re.search(r"\w[^+]*\+\s*\w", perturbation) is not None


def tier_kind(parts: ConditionParts, trained: Iterable[ConditionParts]) -> TierKind:
    """Tell the tier of a condition from the conditions of the training prompts.

    Source: the three held-out tiers of the Dong et al. data in C2S-Scale, section 4.5.
    """
    conditions = set(trained)
    if parts.cell_type not in {t.cell_type for t in conditions}:
        return TierKind.CELL_TYPE
    alike = {t for t in conditions if t.perturbation == parts.perturbation}
    if not alike:
        is_several = is_combination(parts.perturbation)
        return TierKind.COMBINATION if is_several else TierKind.PERTURBATION
    same_type = {t for t in alike if t.cell_type == parts.cell_type}
    if not same_type:
        return TierKind.PER_CELL_TYPE
    is_seen = parts.exposure in {t.exposure for t in same_type}
    return TierKind.SEEN if is_seen else TierKind.EXPOSURE


def name_tiers(
    tested: Iterable[ConditionParts],
    trained: Iterable[ConditionParts],
    own_names: Mapping[str, str],
) -> dict[str, str]:
    """Name the tier of every held-out condition.

    Args:
        tested: Conditions of the test prompts.
        trained: Conditions of the training prompts.
        own_names: Condition to the name that the split config gives it.

    Returns:
        Condition to tier, sorted by condition.

    Raises:
        DataError: If a config calls a tier by the name of a kind that its conditions are not of.
    """
    known = set(trained)
    tiers: dict[str, str] = {}
    for parts in sorted(set(tested), key=lambda p: p.name):
        kind = tier_kind(parts, known)
        name = own_names.get(parts.name, kind.value)
        if name in set(TierKind) and name != kind.value:
            raise DataError(
                f"a tier named {name!r} must hold such conditions, got {parts.name!r}, "
                f"which is {kind.value!r}"
            )
        tiers[parts.name] = name
    return tiers
