"""The held-out line: which cells belong to the test side, and the proof that nothing crosses it.

The line is drawn once, through cells; a prompt stands on the side of all its cells. SFT, rewards
and evaluation share it. Rules add up: a cell that matches any held-out value, or all columns of any
tier (cell type A under perturbation B), is held out. Left out: what tiers are called (`tiers.py`).

Shape suffix: C cells.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from c2s_rl.cells.rank import stable_hash
from c2s_rl.cells.vocabulary import shown
from c2s_rl.config import FrozenConfig
from c2s_rl.errors import DataError
from c2s_rl.types import Split

BoolArray = npt.NDArray[np.bool_]


class TierConfig(FrozenConfig):
    """Conditions to hold out together; entries of one name are one tier."""

    name: str | None = Field(
        None,
        min_length=1,
        description="What tables call it; null: named after what training lacks of it.",
    )
    where: dict[str, tuple[str, ...]] = Field(
        min_length=1,
        description="obs column -> values; a cell is held out when all columns have one of theirs.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        empty = [column for column, values in self.where.items() if not values]
        if empty:
            raise ValueError(f"a column of a tier must name values, got none for {empty[0]!r}")
        return self


class SplitConfig(FrozenConfig):
    """How cells are divided into training and test; without any rule all cells train."""

    holdout: dict[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description="obs column -> values whose cells all go to the test side, controls included.",
    )
    tiers: tuple[TierConfig, ...] = Field(
        (),
        description="Combinations of cell type, perturbation and exposure that go to the test side",
    )
    test_fraction: float = Field(
        0.0, ge=0, lt=1, description="Share of the other cells that goes to the test side too."
    )
    group_column: str | None = Field(
        None, description="obs column (donor) whose groups test_fraction keeps together."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        empty = [column for column, values in self.holdout.items() if not values]
        if empty:
            raise ValueError(f"a held-out column must name values, got none for {empty[0]!r}")
        if self.group_column is not None and not self.test_fraction:
            raise ValueError(
                f"group_column needs test_fraction > 0 to divide, got {self.group_column!r} with 0"
            )
        return self


@dataclass(frozen=True, eq=False)
class CellSplit:
    """Where each cell stands."""

    is_test_C: BoolArray
    """[C] on the test side, for either reason."""
    is_held_out_C: BoolArray
    """[C] on the test side because of a held-out value."""


def split_cells(
    cell_ids: Sequence[str],
    obs: Mapping[str, npt.NDArray[np.str_]],
    config: SplitConfig,
    *,
    seed: int,
) -> CellSplit:
    """Divide cells by held-out values and tiers, then by a hash of (seed, cell id or group).

    Args:
        cell_ids: [C] unique ids.
        obs: Column name to [C] values; holds every column that `config` names.
        config: The rules.
        seed: Seed of the corpus; the order of the cells has no influence.

    Raises:
        DataError: If a held-out value does not occur (the nearest is named), no cell is in a tier,
            or the groups of `group_column` are fewer than two.
    """
    held_out = matches(obs, config.holdout)
    for tier in config.tiers:
        held_out |= matches_all(obs, tier.where)
    if config.group_column is not None:
        drawn = _draw_groups(obs[config.group_column], config, held_out, seed)
    elif config.test_fraction:
        # A 64-bit hash below fraction x 2^64 is a coin of that bias, tossed once per cell id.
        limit = int(config.test_fraction * 2**64)
        drawn = np.array([stable_hash(f"split|{c}", seed) < limit for c in cell_ids], dtype=bool)
    else:
        drawn = np.zeros(len(cell_ids), dtype=bool)
    return CellSplit(is_test_C=held_out | drawn, is_held_out_C=held_out)


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


def _draw_groups(
    group_C: npt.NDArray[np.str_], config: SplitConfig, held_out: BoolArray, seed: int
) -> BoolArray:
    """Send whole groups to the test side: the nearest whole number to the fraction, at least one.

    Held-out cells are left aside, so that a donor who has no others is not drawn in vain.
    """
    groups = [str(group) for group in np.unique(group_C[~held_out])]
    if len(groups) < 2:
        raise DataError(
            f"a group column must divide the cells into 2 groups or more, got {shown(groups)} "
            f"in {config.group_column}"
        )
    num_test = min(max(1, round(config.test_fraction * len(groups))), len(groups) - 1)
    order = sorted(groups, key=lambda group: stable_hash(f"split|{group}", seed))
    return np.isin(group_C, order[:num_test])


class HasCells(Protocol):
    """What the check needs to know of a prompt: a record or its draft."""

    @property
    def split(self) -> Split:
        """Its side."""

    @property
    def condition(self) -> str:
        """Population that the answer belongs to."""

    @property
    def context_id(self) -> str:
        """The first cell shown, or ''."""

    @property
    def target_id(self) -> str:
        """The first cell of the answer, or ''."""

    @property
    def context_ids(self) -> tuple[str, ...]:
        """All cells shown."""

    @property
    def target_ids(self) -> tuple[str, ...]:
        """All cells of the answer."""


def check_leaks(
    records: Iterable[HasCells],
    *,
    held_out_cells: frozenset[str],
    held_out_conditions: frozenset[str],
) -> None:
    """Prove that training and test prompts share neither cells nor held-out conditions.

    Args:
        records: All prompts of a corpus, or their drafts.
        held_out_cells: Ids of the cells that a held-out value keeps from training.
        held_out_conditions: Conditions that a held-out value keeps from training.

    Raises:
        DataError: Naming the kind of leak and the cells or conditions.
    """
    contexts: dict[Split, set[str]] = {split: set() for split in Split}
    targets: dict[Split, set[str]] = {split: set() for split in Split}
    train_conditions: set[str] = set()
    for record in records:
        contexts[record.split].update((record.context_id, *record.context_ids))
        targets[record.split].update((record.target_id, *record.target_ids))
        if record.split is Split.TRAIN:
            train_conditions.add(record.condition)
    train, test = Split.TRAIN, Split.TEST
    _refuse("a context cell", contexts[train] & contexts[test])
    _refuse("a target cell", targets[train] & targets[test])
    _refuse("a target cell and a context cell", targets[train] & contexts[test])
    _refuse("a context cell and a target cell", contexts[train] & targets[test])
    _refuse("a held-out cell", (contexts[train] | targets[train]) & held_out_cells)
    _refuse("a held-out condition", train_conditions & held_out_conditions)


def _refuse(what: str, shared: set[str] | frozenset[str]) -> None:
    shared = shared - {""}  # '' stands for no cell
    if shared:
        raise DataError(
            f"training and test prompts must not share {what}, got {shown(sorted(shared))}"
        )
