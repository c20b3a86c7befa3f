"""The held-out line."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2s_rl.config import validate
from c2s_rl.data.split_config import LabelColumns, SplitConfig
from c2s_rl.data.splits import CellSplit, matches, split_cells
from c2s_rl.errors import ConfigError, DataError


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


LABELS = LabelColumns("cell_type", "condition", "course", "control")
WELLS = [
    (line, drug, replicate)
    for line in ("A375", "MCF7", "PC3", "VCAP")
    for drug in ("control", "torin", "taxol")
    for replicate in range(6)
] + [("A375", "only here", replicate) for replicate in range(3)]


def well_columns(wells: list[tuple[str, str, int]]) -> tuple[list[str], dict[str, np.ndarray]]:
    ids = [f"{line}/{drug}/{replicate}" for line, drug, replicate in wells]
    lines, drugs, _ = zip(*wells, strict=True)
    return ids, obs(
        cell_line=list(lines), cell_type=["tumour"] * len(ids), condition=list(drugs), course=lines
    )


def test_half_the_cell_lines_of_each_perturbation_are_held_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ids, columns = well_columns(WELLS)
    config = SplitConfig(per_perturbation={"column": "cell_line"}, control_fraction=0.5)
    split = split_cells(ids, columns, config, seed=1, labels=LABELS)
    tested = {i.rpartition("/")[0] for i, t in zip(ids, split.is_held_out_C, strict=True) if t}
    # 4 lines under each of two drugs: 2 are held out, with all their wells.
    for drug in ("torin", "taxol"):
        assert len({pair for pair in tested if pair.endswith(drug)}) == 2
    assert split.is_held_out_C.sum() == 2 * 2 * 6
    assert "in one cell_line only, so trained as a whole: 'only here'" in caplog.text
    # Controls are divided by their own fraction, other wells train.
    is_control = columns["condition"] == "control"
    assert (split.is_test_C & ~is_control).tolist() == split.is_held_out_C.tolist()
    assert 0 < (split.is_test_C & is_control).sum() < is_control.sum()
    # The line is no part of the condition here, so no condition is held out as a whole; where it is
    # the cell type, it is.
    assert not split.is_condition_held_out_C.any()
    as_type = LabelColumns("cell_line", "condition", None, "control")
    split = split_cells(ids, columns, config, seed=1, labels=as_type)
    assert split.is_condition_held_out_C.tolist() == split.is_held_out_C.tolist()


@given(st.permutations(WELLS), st.integers(0, 99))
def test_lines_of_a_perturbation_do_not_depend_on_the_order(
    order: list[tuple[str, str, int]], seed: int
) -> None:
    config = SplitConfig(per_perturbation={"column": "cell_line"}, control_fraction=0.5)

    def sides(wells: list[tuple[str, str, int]]) -> dict[str, bool]:
        ids, columns = well_columns(wells)
        is_test = split_cells(ids, columns, config, seed=seed, labels=LABELS).is_test_C
        return dict(zip(ids, is_test.tolist(), strict=True))

    assert sides(order) == sides(WELLS)


def test_perturbations_of_one_line_only_cannot_be_divided() -> None:
    ids, columns = well_columns([well for well in WELLS if well[0] == "PC3"])
    config = SplitConfig(per_perturbation={"column": "cell_line"}, control_fraction=0.5)
    with pytest.raises(DataError, match="in 2 or more values of cell_line, got none among 2: 'tax"):
        split_cells(ids, columns, config, seed=0, labels=LABELS)


def test_drawn_tier_leaves_what_other_rules_hold_out_alone() -> None:
    cells = [
        (t, p, e) for t in "AB" for p in ("IL4", "IL6", "IL4 + IL6") for e in ("acute", "long")
    ]
    types, perturbations, courses = zip(*cells, strict=True)
    columns = obs(cell_type=types, condition=perturbations, course=courses)
    config = SplitConfig.model_validate(
        {
            "tiers": [
                {"where": {"cell_type": ["A"], "condition": ["IL4"]}},
                {"name": "once", "draw": {"kind": "exposure"}},
                {"draw": {"kind": "combination"}},
            ],
            "control_fraction": 0.5,
        }
    )
    ids = ["/".join(cell) for cell in cells]
    split = split_cells(ids, columns, config, seed=3, labels=LABELS)
    by_tier = [{i for i, t in zip(ids, tier.is_in_C, strict=True) if t} for tier in split.tiers]
    assert by_tier[0] == {"A/IL4/acute", "A/IL4/long"}
    assert by_tier[2] == {f"{t}/IL4 + IL6/{e}" for t in "AB" for e in ("acute", "long")}
    # A has IL6 left, B has IL4 or IL6: one exposure of one of them each.
    assert [cell[0] for cell in sorted(by_tier[1])] == ["A", "B"]
    assert by_tier[1] < {f"{t}/{p}/{e}" for t, p, e in cells if p != "IL4 + IL6"} - by_tier[0]
    assert [tier.name for tier in split.tiers] == [None, "once", None]
    assert {i for i, t in zip(ids, split.is_test_C, strict=True) if t} == set().union(*by_tier)
    assert split.is_condition_held_out_C.tolist() == split.is_test_C.tolist()


def test_blocks_groups_and_values_each_place_their_own_cells() -> None:
    # One slide of 4 x 1 blocks of side 1; a donor's cells are in all of them.
    num = 80
    x = [(i // 2) % 4 + 0.5 for i in range(num)]
    columns = obs(
        x=[str(v) for v in x],
        y=["0.5"] * num,
        donor=[f"d{i % 2}" for i in range(num)],
        cell_type=["B" if i < 8 else "T" for i in range(num)],
    )
    config = SplitConfig.model_validate(
        {
            "holdout": {"cell_type": ["B"]},
            "spatial_blocks": {"size": 1, "fraction": 0.25, "buffer": 0.0},
            "test_fraction": 0.5,
            "group_column": "donor",
        }
    )
    split = split_cells([f"c{i}" for i in range(num)], columns, config, seed=0)
    blocks, donors = split.groups
    # The 8 held-out cells are in no block; the tested block's cells are in no group of donors.
    assert (blocks == "").tolist() == [i < 8 for i in range(num)]
    tested = set(blocks[(donors == "") & (blocks != "")].tolist())
    assert len(tested) == 1
    for i in range(num):
        is_tested = columns["cell_type"][i] == "B" or blocks[i] in tested
        assert split.is_test_C[i] == (is_tested or donors[i] == split_donor(split, donors))
    assert not split.is_left_out_C.any()


def split_donor(split: CellSplit, donors: np.ndarray) -> str:
    """The one donor that was drawn."""
    (drawn,) = set(donors[split.is_test_C & (donors != "")].tolist())
    return str(drawn)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"group_column": "donor"}, "group_column needs test_fraction > 0 to divide, got 'donor'"),
        ({"holdout": {"donor": []}}, "a held-out column must name values, got none for 'donor'"),
        ({"test_fraction": 1.0}, "less than 1, got 1.0 at 'test_fraction'"),
        (
            {"control_fraction": 0.5, "test_fraction": 0.5, "group_column": "donor"},
            "control_fraction must not stand beside group_column",
        ),
        (
            {"spatial_blocks": {"num": [2, 2]}, "test_fraction": 0.1},
            "must not stand beside a test_fraction of single cells, whose neighbours would train",
        ),
        ({"spatial_blocks": {}}, "exactly one of num and size, got num=None and size=None"),
        ({"spatial_blocks": {"num": [1, 1]}}, "2 or more along one, got (1, 1)"),
        ({"spatial_blocks": {"size": 0}}, "greater than 0, got 0 at 'spatial_blocks.size'"),
        ({"spatial_blocks": {"size": 1, "buffer": -1}}, "greater than or equal to 0, got -1"),
        ({"per_perturbation": {"fraction": 1.0}}, "less than 1, got 1.0"),
        (
            {"tiers": [{"draw": {"kind": "celltype"}}]},
            "'combination', 'per_cell_type' or 'exposure', got 'celltype'",
        ),
        (
            {"tiers": [{"draw": {"kind": "exposure"}, "where": {"a": ["b"]}}]},
            "exactly one of where and draw, got both",
        ),
        ({"hold_out": {}}, "got 'hold_out' in c.yaml; did you mean 'holdout'"),
    ],
)
def test_rules_that_cannot_hold_are_refused(data: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        validate(SplitConfig, data, "c.yaml")
