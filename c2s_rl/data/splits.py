"""The held-out line: which cells belong to the test side.

The line is drawn once, through cells; a prompt stands on the side of all its cells. SFT, rewards
and evaluation share it. Rules add up: a cell that matches any held-out value, all columns of any
tier (cell type A under perturbation B), or a drawn line of its perturbation is held out; blocks and
groups are drawn among the others. Left out: the proof that nothing crosses (`leaks.py`), what tiers
are called (`tiers.py`) and how they are drawn (`tier_draws.py`, `spatial_blocks.py`).

Shape suffix: C cells.
"""

import difflib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from c2s_rl.cells.rank import stable_hash
from c2s_rl.cells.vocabulary import shown
from c2s_rl.data.spatial_blocks import split_blocks
from c2s_rl.data.split_config import LabelColumns, SplitConfig, TierDraw
from c2s_rl.data.tier_draws import draw_tiers
from c2s_rl.data.tiers import ConditionParts
from c2s_rl.errors import DataError
from c2s_rl.types import BoolArray

TextArray = npt.NDArray[np.str_]

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class HeldOutTier:
    """One tier of the config, found in the cells."""

    name: str | None
    """The config's name for it."""
    is_in_C: BoolArray
    """[C] cells that it holds out."""


@dataclass(frozen=True, eq=False)
class CellSplit:
    """Where each cell stands."""

    is_test_C: BoolArray
    """[C] on the test side, for any reason."""
    is_held_out_C: BoolArray
    """[C] on the test side because of what it is: a value, a tier, a line of a perturbation."""
    is_condition_held_out_C: BoolArray
    """[C] of those, the ones whose whole condition is: all of it is on the test side."""
    is_left_out_C: BoolArray
    """[C] on neither side: in the strip around a tested spatial block."""
    groups: tuple[TextArray, ...]
    """[C] each: name of the group (donor, block) that a rule moves as one; '' where none does."""
    tiers: tuple[HeldOutTier, ...]
    """In the order of the config."""


def split_cells(
    cell_ids: Sequence[str],
    obs: Mapping[str, TextArray],
    config: SplitConfig,
    *,
    seed: int,
    labels: LabelColumns | None = None,
) -> CellSplit:
    """Divide cells by what they are, then by blocks, then by a hash of (seed, cell id or group).

    Args:
        cell_ids: [C] unique ids.
        obs: Column name to [C] values; holds every column that `config` and `labels` name.
        config: The rules.
        seed: Seed of the corpus; the order of the cells has no influence.
        labels: Columns of the conditions; rules that draw perturbations cannot do without.

    Raises:
        DataError: If a held-out value does not occur (the nearest is named), no cell is in a tier,
            there is too little to draw from, or the groups of `group_column` are fewer than two.
    """
    held_out = matches(obs, config.holdout)
    known = labels.names if labels is not None else ()
    rules = {column: values for column, values in config.holdout.items() if column in known}
    is_condition = matches(obs, rules)
    is_control = np.zeros(len(cell_ids), dtype=bool)
    if labels is not None and labels.perturbation is not None:
        is_control = obs[labels.perturbation] == labels.control
    tiers = _find_tiers(obs, config, labels, excluded_C=held_out | is_control, seed=seed)
    for tier in tiers:
        is_condition |= tier.is_in_C
    held_out |= is_condition
    if config.per_perturbation is not None and labels is not None:
        of_line = _hold_out_lines(obs, config, labels, excluded_C=held_out | is_control, seed=seed)
        held_out |= of_line
        if config.per_perturbation.column in known:
            is_condition |= of_line
    drawn = held_out.copy()
    left_out = np.zeros(len(cell_ids), dtype=bool)
    groups: list[TextArray] = []
    if config.spatial_blocks is not None:
        blocks = split_blocks(cell_ids, obs, config.spatial_blocks, held_out_C=held_out, seed=seed)
        drawn |= blocks.is_test_C
        left_out = blocks.is_buffer_C & ~drawn
        groups.append(blocks.block_C)
    if config.group_column is not None:
        group_C = np.where(drawn | left_out, "", obs[config.group_column])
        groups.append(group_C)
        drawn |= _draw_groups(group_C, config, seed)
    elif config.divides_controls:
        drawn |= _toss(cell_ids, is_control, config, seed) & ~left_out
    return CellSplit(
        is_test_C=drawn,
        is_held_out_C=held_out,
        is_condition_held_out_C=is_condition,
        is_left_out_C=left_out,
        groups=tuple(groups),
        tiers=tiers,
    )


def matches(
    obs: Mapping[str, npt.NDArray[np.str_]], rules: Mapping[str, Sequence[str]]
) -> BoolArray:
    """Find the cells that have any of the named values.

    Args:
        obs: Column name to [C] values, at least one column.
        rules: Column name to values.

    Returns:
        [C] True where a cell matches at least one rule.

    Raises:
        DataError: If a value does not occur in its column; names the nearest that does.
    """
    is_match = np.zeros(len(next(iter(obs.values()))), dtype=bool)
    for column, values in rules.items():
        for value in values:
            require_value(obs[column], value, f"a held-out value of {column}")
        is_match |= np.isin(obs[column], values)
    return is_match


def matches_all(
    obs: Mapping[str, npt.NDArray[np.str_]], where: Mapping[str, Sequence[str]]
) -> BoolArray:
    """Find the cells of a tier: those that have one of the named values in every column.

    Args:
        obs: Column name to [C] values.
        where: Column name to values, at least one column.

    Returns:
        [C] True where a cell matches all columns.

    Raises:
        DataError: If a value does not occur in its column, or no cell has the combination.
    """
    for column, values in where.items():
        for value in values:
            require_value(obs[column], value, f"a value of {column} in a tier")
    is_match: BoolArray = np.logical_and.reduce(
        [np.isin(obs[column], values) for column, values in where.items()]
    )
    if not is_match.any():
        asked = {column: list(values) for column, values in where.items()}
        raise DataError(f"a tier must hold cells, got none with {asked}")
    return is_match


def require_value(column_C: npt.NDArray[np.str_], value: str, what: str) -> None:
    """Check that a value occurs in an obs column.

    Raises:
        DataError: If it does not; names the nearest one, or some of the values there are.
    """
    known = [str(v) for v in np.unique(column_C)]
    if value not in known:
        near = difflib.get_close_matches(value, known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"values: {shown(known)}"
        raise DataError(f"{what} must occur in the cells, got {value!r}; {hint}")


def _find_tiers(
    obs: Mapping[str, TextArray],
    config: SplitConfig,
    labels: LabelColumns | None,
    *,
    excluded_C: BoolArray,
    seed: int,
) -> tuple[HeldOutTier, ...]:
    """Find the cells of all tiers; drawn ones choose among what nothing else holds out."""
    found: dict[int, BoolArray] = {}
    draws: dict[int, TierDraw] = {}
    for place, tier in enumerate(config.tiers):
        if tier.draw is None:
            found[place] = matches_all(obs, tier.where)
        else:
            draws[place] = tier.draw
    if draws and labels is not None:
        is_free = ~np.logical_or.reduce([excluded_C, *found.values()])
        parts, inverse = _conditions(obs, labels)
        free = {parts[i] for i in np.unique(inverse[is_free]).tolist()}
        drawn = draw_tiers(tuple(draws.values()), free, seed=seed)
        for place, taken in zip(draws, drawn, strict=True):
            is_taken = np.array([condition in taken for condition in parts], dtype=bool)
            found[place] = is_taken[inverse] & is_free
    return tuple(HeldOutTier(config.tiers[i].name, found[i]) for i in sorted(found))


def _conditions(
    obs: Mapping[str, TextArray], labels: LabelColumns
) -> tuple[list[ConditionParts], npt.NDArray[np.intp]]:
    """List the different conditions, and for each cell [C] which one it has."""
    columns = (labels.cell_type, labels.perturbation, labels.exposure)
    blank = [""] * len(obs[labels.cell_type])
    values = (blank if column is None else obs[column].tolist() for column in columns)
    index: dict[tuple[str, str, str], int] = {}
    inverse = [index.setdefault(row, len(index)) for row in zip(*values, strict=True)]
    parts = [ConditionParts(*row, " | ".join(value for value in row if value)) for row in index]
    return parts, np.array(inverse, dtype=np.intp)


def _hold_out_lines(
    obs: Mapping[str, TextArray],
    config: SplitConfig,
    labels: LabelColumns,
    *,
    excluded_C: BoolArray,
    seed: int,
) -> BoolArray:
    """Hold a share of the lines out under each perturbation; one with a single line is trained."""
    rule = config.per_perturbation
    assert rule is not None
    assert labels.perturbation is not None
    perturbations, of_perturbation_C = np.unique(obs[labels.perturbation], return_inverse=True)
    lines, of_line_C = np.unique(obs[rule.column], return_inverse=True)
    is_there = np.zeros((len(perturbations), len(lines)), dtype=bool)
    is_there[of_perturbation_C[~excluded_C], of_line_C[~excluded_C]] = True
    is_drawn = np.zeros_like(is_there)
    single: list[str] = []
    for i in np.flatnonzero(is_there.any(axis=1)).tolist():
        name = str(perturbations[i])
        own = np.flatnonzero(is_there[i]).tolist()
        if len(own) < 2:
            single.append(name)
            continue
        own.sort(key=lambda j: stable_hash(f"line|{name}|{lines[j]}", seed))
        is_drawn[i, own[: min(max(1, round(rule.fraction * len(own))), len(own) - 1)]] = True
    if not is_drawn.any():
        raise DataError(
            f"per_perturbation must find perturbations in 2 or more values of {rule.column}, "
            f"got none among {len(single)}: {shown(single) or 'no perturbed cells'}"
        )
    if single:
        log.warning("in one %s only, so trained as a whole: %s", rule.column, shown(single))
    drawn: BoolArray = is_drawn[of_perturbation_C, of_line_C] & ~excluded_C
    return drawn


def _toss(
    cell_ids: Sequence[str], is_control_C: BoolArray, config: SplitConfig, seed: int
) -> BoolArray:
    """Toss a coin of each cell's bias once per cell id: a 64-bit hash below fraction x 2^64."""
    controls = config.control_fraction
    limits = (
        int(config.test_fraction * 2**64),
        int((config.test_fraction if controls is None else controls) * 2**64),
    )
    return np.array(
        [
            stable_hash(f"split|{cell_id}", seed) < limits[is_control]
            for cell_id, is_control in zip(cell_ids, is_control_C.tolist(), strict=True)
        ],
        dtype=bool,
    )


def _draw_groups(group_C: TextArray, config: SplitConfig, seed: int) -> BoolArray:
    """Send whole groups to the test side: the nearest whole number to the fraction, at least one.

    Cells that another rule has placed are '' here, so that a donor who has no others is not drawn
    in vain.
    """
    groups = [str(group) for group in np.unique(group_C[group_C != ""])]
    if len(groups) < 2:
        raise DataError(
            f"a group column must divide the cells into 2 groups or more, got {shown(groups)} "
            f"in {config.group_column}"
        )
    num_test = min(max(1, round(config.test_fraction * len(groups))), len(groups) - 1)
    order = sorted(groups, key=lambda group: stable_hash(f"split|{group}", seed))
    return np.isin(group_C, order[:num_test])
