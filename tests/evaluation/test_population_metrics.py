"""Populations measured and averaged, by hand on ten genes."""

import numpy as np
import pytest

from c2s_rl.evaluation.bootstrap import Interval
from c2s_rl.evaluation.population_cells import CellSample, ConditionCells, Populations
from c2s_rl.evaluation.population_metrics import (
    ACTIVITY,
    ACTIVITY_ERROR,
    CHANGED_GENES,
    DISCRIMINATION,
    Estimate,
    Measuring,
    measure_populations,
    metric_rows,
)
from c2s_rl.evaluation.population_summary import (
    PopulationTable,
    add_to_difference,
    add_to_method,
)
from c2s_rl.evaluation.result import MethodKind

SCFID = "scfid/all genes"


class Positions:
    """Embeds a cell as the vector of its first gene's index alone."""

    name = "first gene"

    def embed(self, cells):
        return np.array([[float(cell[0]), 0.0] for cell in cells], dtype=np.float32)


def sample(*cells, prefix="p"):
    return CellSample(
        [np.array(cell, dtype=np.int32) for cell in cells],
        tuple(f"{prefix}{i}" for i in range(len(cells))),
    )


@pytest.fixture
def measuring(yardstick):
    return Measuring({"all genes": Positions()}, yardstick, draws=40, seed=0, is_by_donor=False)


@pytest.fixture
def populations():
    """Program 0-3. Real cells of A hold it, those of B do not; controls hold gene 9 alone."""
    on, off = (0, 1, 2, 3), (4, 5, 6, 7)
    controls = sample((9,), (9,), prefix="c")

    def condition(right, wrong):
        return ConditionCells(
            reference=sample(right, right[1:] + right[:1], prefix="r"),
            by_method={"GRPO": sample(right, right), "SFT": sample(wrong, wrong)},
            single={"mean cell": sample(right)},
            controls=controls,
        )

    return Populations({"A": condition(on, off), "B": condition(off, on)}, {})


def test_distances_are_those_of_the_embedded_cells(populations, measuring):
    found = measure_populations(populations, measuring)
    # A: real 0 and 1, GRPO 0 and 0: means 0.5 and 0, variances 0.5 and 0: 0.25 + 0.5.
    assert found["GRPO"][SCFID]["A"].value == pytest.approx(0.75)
    # SFT 4 and 4: (4 - 0.5)^2 + 0.5.
    assert found["SFT"][SCFID]["A"].value == pytest.approx(12.75)
    assert SCFID not in found["mean cell"]
    assert found["SFT"][SCFID]["A"].draws_S.shape == (40,)


def test_activity_is_ssgsea_of_the_cells(populations, measuring):
    found = measure_populations(populations, measuring)
    # The four program genes are the highest of ten: mean rank 2.5 against 7.5 of the others, 5 / 5.
    assert found["GRPO"][ACTIVITY]["A"].value == pytest.approx(1.0)
    # Four others are the highest: the program ties with two more at ranks 5-10, mean 7.5; the
    # others have mean (2.5 * 4 + 7.5 * 2) / 6 = 25 / 6: (25 / 6 - 7.5) / 5 = -2 / 3.
    assert found["SFT"][ACTIVITY]["A"].value == pytest.approx(-2 / 3)
    assert found["SFT"][ACTIVITY_ERROR]["A"].value == pytest.approx(5 / 3)
    assert found["GRPO"][ACTIVITY_ERROR]["A"].value == pytest.approx(0.0)
    assert found["mean cell"][ACTIVITY]["A"].value == pytest.approx(1.0)


def test_changed_genes_are_those_against_controls(populations, measuring):
    found = measure_populations(populations, measuring)
    # Real A: 0-3 rise and 9 falls. SFT raises 4-7, and 9 falls with it too: 1 of 5.
    assert found["GRPO"][CHANGED_GENES]["A"].value == pytest.approx(1.0)
    assert found["SFT"][CHANGED_GENES]["A"].value == pytest.approx(0.2)


def test_discrimination_asks_which_condition_an_answer_is_nearest_to(populations, measuring):
    found = measure_populations(populations, measuring)
    # GRPO's effects are nearest to their own condition: 1 - 0 / 2; SFT's to the other: 1 - 1 / 2.
    assert [found["GRPO"][DISCRIMINATION][c].value for c in "AB"] == [1.0, 1.0]
    assert [found["SFT"][DISCRIMINATION][c].value for c in "AB"] == [0.5, 0.5]


def test_policies_of_the_same_prompts_get_the_same_draws(populations, measuring):
    cells = populations.by_condition["A"]
    same = ConditionCells(
        cells.reference,
        {"SFT": sample((0,), (5,), (7,)), "GRPO": sample((0,), (5,), (7,))},
        {},
        cells.controls,
    )
    found = measure_populations(Populations({"A": same}, {}), measuring)
    draws = [found[name][SCFID]["A"].draws_S for name in ("SFT", "GRPO")]
    np.testing.assert_array_equal(*draws)
    assert len(set(draws[0].tolist())) > 3
    assert DISCRIMINATION not in found["SFT"]  # one condition alone


@pytest.fixture
def table():
    """scFID of SFT 4 and 8, of GRPO 2 and 4; draws two apart on either side."""

    def around(value, spread):
        return Estimate(value, np.array([value - spread, value + spread]))

    estimates = {
        "SFT": {SCFID: {"B cell": around(4.0, 1.0), "NK <b>$x_i$</b>": around(8.0, 1.0)}},
        "GRPO": {SCFID: {"B cell": around(2.0, 1.0), "NK <b>$x_i$</b>": around(4.0, 3.0)}},
    }
    conditions = list(estimates["SFT"][SCFID])
    return PopulationTable(
        estimates,
        {SCFID: metric_rows(["all genes"])[SCFID]},
        dict.fromkeys(conditions, 4),
        {conditions[0]: "near", conditions[1]: "far"},
        bootstrap_draws=100,
        seed=0,
    )


def test_conditions_are_averaged_draw_by_draw(method, table):
    result = method("SFT", MethodKind.POLICY, 0.3)
    result = result.model_copy(update={"per_tier": {"near": result.metrics, "far": result.metrics}})
    found = add_to_method(result, table)
    # Mean 6; draws 5 and 7: standard error sqrt(2).
    half = 1.959964 * 2**0.5
    mean = found.metrics[SCFID]
    assert (mean.mean, mean.num_prompts, mean.num_conditions) == (6.0, 8, 2)
    assert (mean.low, mean.high) == pytest.approx((6 - half, 6 + half))
    assert found.per_condition["B cell"][SCFID].mean == 4.0
    assert (found.per_tier["near"][SCFID].mean, found.per_tier["far"][SCFID].mean) == (4.0, 8.0)
    assert found.not_applicable == {}


def test_differences_are_paired_and_gains_are_shares_of_the_baseline(difference, table):
    found = add_to_difference(difference(), table)
    # -2 and -4; draws of B cell do not move, those of NK by -2 and 2: the mean by -1 and 1.
    half = 1.959964 * 2**0.5
    change = found.metrics[SCFID]
    assert change.mean == -3.0
    assert (change.low, change.high) == pytest.approx((-3 - half, -3 + half))
    assert found.per_condition["B cell"][SCFID] == Interval(-2.0, -2.0, -2.0, 4, 1)
    assert found.gains[SCFID] == pytest.approx(-0.5)


def test_a_distance_has_no_end_below_zero(method, table):
    assert (
        add_to_method(method("GRPO", MethodKind.POLICY, 0.3), table)
        .per_condition["NK <b>$x_i$</b>"][SCFID]
        .low
        == 0.0
    )


def test_a_repeated_cell_has_a_reason_instead_of_a_distance(method, table):
    found = add_to_method(method("mean cell", MethodKind.NULL, 0.1), table)
    assert found.not_applicable == {SCFID: "one cell, repeated, is no population"}
    assert SCFID not in found.metrics


def test_discrimination_draws_conditions_where_there_are_enough(method):
    def scored(num):
        conditions = [f"c{i}" for i in range(num)]
        scores = {c: Estimate(float(i % 2), np.empty(0)) for i, c in enumerate(conditions)}
        return PopulationTable(
            {"SFT": {DISCRIMINATION: scores}},
            metric_rows([]),
            dict.fromkeys(conditions, 2),
            dict.fromkeys(conditions, ""),
            bootstrap_draws=2000,
            seed=0,
        )

    policy = method("SFT", MethodKind.POLICY, 0.3)
    assert add_to_method(policy, scored(4)).metrics[DISCRIMINATION] == Interval(
        0.5, None, None, 8, 4
    )
    # 100 conditions, half 0 and half 1: Binomial(100, 0.5) / 100, see test_bootstrap.
    drawn = add_to_method(policy, scored(100)).metrics[DISCRIMINATION]
    assert (drawn.low, drawn.high) == pytest.approx((0.40, 0.60), abs=0.015)
