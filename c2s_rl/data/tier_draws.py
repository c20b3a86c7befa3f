"""Held-out tiers by lot: which conditions a drawn tier takes out of training.

The three kinds are those of the Dong et al. data in C2S-Scale, section 4.5. Each draw leaves in
training what makes the tier what it is called: for a cell type that is not trained under a
perturbation, another one that is; for an exposure, another exposure. Left out: tiers by name
(`splits.py`) and what a table calls them (`tiers.py`, which tells the kind from the prompts).
"""

import logging
from collections.abc import Collection, Iterable, Sequence

from c2s_rl.cells.rank import stable_hash
from c2s_rl.cells.vocabulary import shown
from c2s_rl.data.split_config import DrawKind, TierDraw
from c2s_rl.data.tiers import ConditionParts, is_combination
from c2s_rl.errors import DataError

log = logging.getLogger(__name__)

# Hardest first: what a later draw takes must not change what an earlier one was.
ORDER = (DrawKind.COMBINATION, DrawKind.PER_CELL_TYPE, DrawKind.EXPOSURE)


def draw_tiers(
    draws: Sequence[TierDraw], conditions: Iterable[ConditionParts], *, seed: int
) -> tuple[frozenset[ConditionParts], ...]:
    """Draw the conditions of every tier by a hash of (seed, names).

    Args:
        draws: Kinds and numbers; combinations are drawn first, exposures last, whatever the order.
        conditions: Perturbed conditions that nothing else holds out, without controls.
        seed: Seed of the corpus; the order of the conditions has no influence.

    Returns:
        The conditions of each draw, in the order of `draws`; no condition is in two.

    Raises:
        DataError: If there are fewer combinations than asked for, or no cell type can give one.
    """
    trained = set(conditions)
    drawn: dict[int, frozenset[ConditionParts]] = {}
    for place in sorted(range(len(draws)), key=lambda i: (ORDER.index(draws[i].kind), i)):
        draw = draws[place]
        if draw.kind is DrawKind.COMBINATION:
            taken = _combinations(trained, draw.num, seed)
        else:
            taken = _per_cell_type(trained, draw, seed)
        trained -= taken
        drawn[place] = frozenset(taken)
    return tuple(drawn[place] for place in range(len(draws)))


def _combinations(trained: set[ConditionParts], num: int, seed: int) -> set[ConditionParts]:
    perturbations = sorted({t.perturbation for t in trained})
    several = [name for name in perturbations if is_combination(name)]
    if len(several) < num or len(perturbations) <= num:
        raise DataError(
            f"a drawn tier needs {num} combinations ('A + B') and other perturbations to train, "
            f"got {shown(several) or 'no combination'} among {len(perturbations)} perturbations"
        )
    picked = _first(several, num, "combination", seed)
    return {t for t in trained if t.perturbation in picked}


def _per_cell_type(trained: set[ConditionParts], draw: TierDraw, seed: int) -> set[ConditionParts]:
    """Draw for one cell type after the other, each from what the others left in training."""
    remaining = set(trained)
    lacking: list[str] = []
    cell_types = sorted({t.cell_type for t in trained})
    for cell_type in cell_types:
        for _ in range(draw.num):
            possible = _possible(remaining, cell_type, draw.kind, taken=trained - remaining)
            if not possible:
                lacking.append(cell_type)
                break
            perturbation = _first(sorted(possible), 1, f"{draw.kind}|{cell_type}", seed)[0]
            chosen = possible[perturbation]
            if draw.kind is DrawKind.EXPOSURE:
                key = f"{draw.kind}|{cell_type}|{perturbation}"
                exposure = _first(sorted(t.exposure for t in chosen), 1, key, seed)[0]
                chosen = {t for t in chosen if t.exposure == exposure}
            remaining -= chosen
    if remaining == trained:
        raise DataError(
            f"a tier drawn {draw.kind} needs cell types with 2 or more "
            f"{'exposures' if draw.kind is DrawKind.EXPOSURE else 'perturbations, shared by 2'}, "
            f"got none among {shown(cell_types) or 'no cell types'}"
        )
    if lacking:
        log.warning("tier drawn %s: too little to draw from for %s", draw.kind, shown(lacking))
    return trained - remaining


def _possible(
    remaining: Collection[ConditionParts],
    cell_type: str,
    kind: DrawKind,
    *,
    taken: Collection[ConditionParts],
) -> dict[str, set[ConditionParts]]:
    """Perturbations that this cell type can lose, with the conditions that it has under each."""
    own: dict[str, set[ConditionParts]] = {}
    for parts in remaining:
        if parts.cell_type == cell_type:
            own.setdefault(parts.perturbation, set()).add(parts)
    if kind is DrawKind.EXPOSURE:
        # One exposure a perturbation: another draw of the same would leave too little of it.
        touched = {t.perturbation for t in taken if t.cell_type == cell_type}
        return {p: c for p, c in own.items() if len(c) > 1 and p not in touched}
    if len(own) < 2:  # else nothing of the cell type would be trained
        return {}
    elsewhere = {t.perturbation for t in remaining if t.cell_type != cell_type}
    return {p: c for p, c in own.items() if p in elsewhere}


def _first(names: Sequence[str], num: int, key: str, seed: int) -> list[str]:
    return sorted(names, key=lambda name: stable_hash(f"tier|{key}|{name}", seed))[:num]
