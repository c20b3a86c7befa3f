"""The held-out line, and every kind of leak across it."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2s_rl.config import validate
from c2s_rl.data.splits import SplitConfig, check_leaks, matches, split_cells
from c2s_rl.errors import ConfigError, DataError
from c2s_rl.types import PromptRecord, Split, Task

NO_GENES = np.zeros(0, dtype=np.int32)
NOTHING: frozenset[str] = frozenset()


def record(
    split: Split, *, context: str = "", target: str = "", condition: str = "T | IFN"
) -> PromptRecord:
    return PromptRecord(
        prompt_id=f"{split}/{context}/{target}",
        prompt="p",
        target=" t",
        task=Task.PERTURBATION_RESPONSE,
        condition=condition,
        context_id=context,
        target_id=target,
        split=split,
        target_genes_K=NO_GENES,
        context_genes_K=NO_GENES,
    )


def obs(**columns: list[str]) -> dict[str, np.ndarray]:
    return {name: np.array(values) for name, values in columns.items()}


def test_held_out_values_add_up_and_take_controls_along() -> None:
    columns = obs(
        cell_type=["T", "T", "B", "B", "NK"],
        condition=["control", "IFN", "control", "IFN", "IL6"],
    )
    config = SplitConfig(holdout={"cell_type": ("B",), "condition": ("IL6",)})
    split = split_cells(["a", "b", "c", "d", "e"], columns, config, seed=0)
    assert split.is_test_C.tolist() == [False, False, True, True, True]
    assert split.is_held_out_C.tolist() == [False, False, True, True, True]


def test_without_rules_all_cells_train() -> None:
    split = split_cells(["a", "b"], obs(cell_type=["T", "B"]), SplitConfig(), seed=0)
    assert not split.is_test_C.any()


@given(st.permutations([f"cell{i}" for i in range(30)]), st.integers(0, 2**32))
def test_side_of_a_cell_does_not_depend_on_the_others(order: list[str], seed: int) -> None:
    config = SplitConfig(test_fraction=0.3)

    def sides(ids: list[str]) -> dict[str, bool]:
        columns = obs(cell_type=["T"] * len(ids))
        is_test = split_cells(ids, columns, config, seed=seed).is_test_C.tolist()
        return dict(zip(ids, is_test, strict=True))

    everyone = sides(order)
    some = order[:10]
    assert sides(some) == {cell: everyone[cell] for cell in some}


def test_fraction_is_met_on_average() -> None:
    ids = [f"cell{i}" for i in range(10_000)]
    config = SplitConfig(test_fraction=0.2)
    split = split_cells(ids, obs(cell_type=["T"] * 10_000), config, seed=1)
    # 2,000 expected, standard deviation sqrt(10,000 * 0.2 * 0.8) = 40; five of them allowed.
    assert 1_800 < split.is_test_C.sum() < 2_200


def test_groups_stay_together_and_both_sides_get_one() -> None:
    donors = ["d1", "d2", "d3", "d4"] * 5
    ids = [f"cell{i}" for i in range(20)]
    for fraction, num_test in ((0.01, 1), (0.5, 2), (0.99, 3)):
        config = SplitConfig(test_fraction=fraction, group_column="donor")
        is_test = split_cells(ids, obs(donor=donors), config, seed=3).is_test_C
        assert len({d for d, t in zip(donors, is_test, strict=True) if t}) == num_test
        assert is_test.sum() == 5 * num_test


def test_donor_of_held_out_cells_only_is_not_drawn() -> None:
    # Every seed must pick d1 or d2: d3 has no cell that is not held out already.
    columns = obs(donor=["d1", "d2", "d3"], cell_type=["T", "T", "B"])
    config = SplitConfig(holdout={"cell_type": ("B",)}, test_fraction=0.5, group_column="donor")
    for seed in range(20):
        is_test = split_cells(["a", "b", "c"], columns, config, seed=seed).is_test_C
        assert is_test.tolist() in ([True, False, True], [False, True, True])


def test_one_group_cannot_be_divided() -> None:
    config = SplitConfig(test_fraction=0.5, group_column="donor")
    with pytest.raises(DataError, match="2 groups or more, got 'd1' in donor"):
        split_cells(["a", "b"], obs(donor=["d1", "d1"]), config, seed=0)


def test_unknown_held_out_value_names_the_nearest() -> None:
    message = "a held-out value of cell_type must occur in the cells, got 'CD16 monocytes'; did you"
    with pytest.raises(DataError, match=re.escape(message) + r" mean 'CD16 Mono'\?"):
        matches(obs(cell_type=["CD14 Mono", "CD16 Mono"]), {"cell_type": ("CD16 monocytes",)})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"group_column": "donor"}, "group_column needs test_fraction > 0 to divide, got 'donor'"),
        ({"holdout": {"donor": []}}, "a held-out column must name values, got none for 'donor'"),
        ({"test_fraction": 1.0}, "less than 1, got 1.0 at 'test_fraction'"),
        ({"hold_out": {}}, "got 'hold_out' in c.yaml; did you mean 'holdout'"),
    ],
)
def test_rules_that_cannot_hold_are_refused(data: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        validate(SplitConfig, data, "c.yaml")


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ({"context": "c1"}, {"context": "c1"}, "a context cell, got 'c1'"),
        ({"target": "c1"}, {"target": "c1"}, "a target cell, got 'c1'"),
        ({"target": "c1"}, {"context": "c1"}, "a target cell and a context cell, got 'c1'"),
        ({"context": "c1"}, {"target": "c1"}, "a context cell and a target cell, got 'c1'"),
        ({"context": "held"}, {"context": "c2"}, "a held-out cell, got 'held'"),
        ({"target": "held"}, {"context": "c2"}, "a held-out cell, got 'held'"),
        ({"condition": "B | IFN"}, {"condition": "B | IFN"}, "a held-out condition, got 'B | IFN'"),
    ],
)
def test_leak_is_refused_by_name(train: dict[str, str], test: dict[str, str], message: str) -> None:
    records = [record(Split.TRAIN, **train), record(Split.TEST, **test)]
    with pytest.raises(DataError, match=re.escape(f"must not share {message}")):
        check_leaks(
            records,
            held_out_cells=frozenset({"held"}),
            held_out_conditions=frozenset({"B | IFN"}),
        )


def test_condition_that_is_not_held_out_may_stand_on_both_sides() -> None:
    records = [
        record(Split.TRAIN, context="c1", target="t1"),
        record(Split.TRAIN, context="c1", target="t2"),
        record(Split.TEST, context="c2", target="t3"),
        record(Split.TEST),
        record(Split.TRAIN),
    ]
    check_leaks(records, held_out_cells=NOTHING, held_out_conditions=NOTHING)
    records.append(record(Split.TEST, target="t1"))
    with pytest.raises(DataError, match="a target cell, got 't1'"):
        check_leaks(records, held_out_cells=NOTHING, held_out_conditions=NOTHING)
