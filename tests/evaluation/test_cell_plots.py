"""Pictures of cells and of the primary metric."""

import numpy as np
import pytest

from c2s_rl.cells.sentence import RankForm, RankModel
from c2s_rl.data.cell_table import CellTable
from c2s_rl.evaluation.cell_map import CellMap
from c2s_rl.evaluation.cell_plots import rank_fit, rank_profile, umap_picture
from c2s_rl.evaluation.forest_plot import forest


def test_rank_profile_averages_the_cells_that_reach_a_rank():
    # Values by rank: cell a 4 2 1, cell b 2 1.
    cells = CellTable(
        cell_ids=("a", "b"),
        indptr=np.array([0, 3, 5]),
        genes=np.array([0, 1, 2, 0, 1], dtype=np.int32),
        values=np.array([4, 2, 1, 2, 1], dtype=np.float32),
    )
    profile = rank_profile(cells)
    assert profile.ranks_R.tolist() == [1, 2, 3]
    assert profile.mean_R.tolist() == [3.0, 1.5, 1.0]
    assert profile.low_R[0] == pytest.approx(2.2)  # 10 % of the way from 2 to 4
    assert profile.high_R[0] == pytest.approx(3.8)
    picture = rank_fit(profile, RankModel(RankForm.LOG_RANK, -2.0, 3.0, 0.87), num_genes=2)
    assert "R² = 0.87" in picture.svg
    assert "(2 genes)" in picture.svg
    assert "mathdefault" not in picture.svg
    assert "87 % of the variance" in picture.caption


def test_the_map_names_origins_and_frequent_conditions():
    num = 30
    conditions = tuple(f"type {i % 10}" for i in range(num))
    cell_map = CellMap(
        xy_C_2=np.random.default_rng(0).normal(size=(num, 2)).astype(np.float32),
        source_C=("real",) * 10 + ("SFT",) * 10 + ("<b>GRPO</b>",) * 10,
        condition_C=conditions,
        num_genes=80,
    )
    svg = umap_picture(cell_map).svg
    assert "real (10)" in svg
    assert "SFT (10)" in svg
    assert "&lt;b&gt;GRPO&lt;/b&gt; (10)" in svg
    assert "2 other conditions" in svg  # ten conditions, eight colours


def test_forest_has_a_row_for_all_and_for_each_condition(evaluation):
    picture = forest(evaluation)
    for text in ("All conditions (8)", "B cell (4)", ">mean cell<", ">SFT<", ">GRPO<"):
        assert text in picture.svg
    assert "copy control" not in picture.svg  # it has no answers
    # Names are text: no markup, and no formula between dollar signs.
    assert "NK &lt;b&gt;$x_i$&lt;/b&gt; (4)" in picture.svg


def test_forest_of_many_conditions_says_what_it_leaves_out(evaluation):
    names = [f"condition {i}" for i in range(50)]
    metrics = evaluation.methods[0].metrics
    methods = tuple(
        m.model_copy(update={"per_condition": dict.fromkeys(names, metrics)})
        for m in evaluation.methods
    )
    many = evaluation.model_copy(
        update={"conditions": dict.fromkeys(names, 1), "methods": methods, "difference": None}
    )
    assert "10 further conditions are in the table below" in forest(many).caption
