"""From toy cells to prompt records: tasks, pairing, held-out sides, pseudobulks, counters."""

import random
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from c2s_rl.data.corpus_config import CorpusConfig
from c2s_rl.data.pseudobulk import mean_expression
from c2s_rl.errors import DataError
from c2s_rl.types import Split, Task
from tests.data.corpus_cases import (
    CELL_TASKS,
    HELD_OUT,
    PERTURBATION,
    Cells,
    MakeSource,
    build,
    changed,
    plain,
)


def test_generation_asks_for_a_cell_type_and_answers_with_a_real_cell(
    source_of: MakeSource, toy_cells: Cells
) -> None:
    source = source_of(toy_cells)
    corpus = build(source, CorpusConfig(num_genes=4))
    assert len(corpus.records) == 80
    row_of = {cell_id: row for row, cell_id in enumerate(source.table.cell_ids)}
    for record in corpus.records:
        genes = source.table.genes_of(row_of[record.target_id])
        assert record.condition == record.target_id.split("-")[0]
        assert record.condition in record.prompt
        assert record.target == "".join(f" G{gene}" for gene in genes[:4])
        assert record.target_genes_K.tolist() == genes.tolist()
        assert (record.context_id, record.context_genes_K.tolist()) == ("", [])


def test_generation_beside_perturbations_keeps_to_control_cells(
    source_of: MakeSource, toy_cells: Cells
) -> None:
    corpus = build(source_of(toy_cells), changed(PERTURBATION, tasks=[Task.CELL_GENERATION]))
    assert {r.condition for r in corpus.records} == {"T cell | control", "B cell | control"}
    assert corpus.dropped["not_control"] == 40


def test_annotation_shows_the_cell_and_answers_with_its_type(
    source_of: MakeSource, toy_cells: Cells
) -> None:
    source = source_of(toy_cells)
    corpus = build(source, changed(PERTURBATION, tasks=[Task.CELL_TYPE_ANNOTATION]))
    assert len(corpus.records) == 80
    row_of = {cell_id: row for row, cell_id in enumerate(source.table.cell_ids)}
    for record in corpus.records:
        cell_type, condition, *_ = re.split("-(?!beta)", record.context_id)
        genes = source.table.genes_of(row_of[record.context_id])
        assert record.target == f" {cell_type}"
        assert cell_type not in record.prompt
        assert " ".join(f"G{gene}" for gene in genes[:4]) in record.prompt
        assert record.context_genes_K.tolist() == genes.tolist()
        assert (record.target_id, record.target_genes_K.tolist()) == ("", [])
        assert record.condition == f"{cell_type} | {condition}"


def test_perturbation_pairs_a_control_of_the_same_type_donor_and_side(
    source_of: MakeSource, toy_cells: Cells
) -> None:
    config = changed(HELD_OUT, donor_column="donor", pairs_per_cell=2)
    corpus = build(source_of(toy_cells), config)
    assert len(corpus.records) + corpus.dropped["too_few_controls"] == 80
    side = {}
    for record in corpus.records:
        shown_type, shown, shown_donor, _ = re.split("-(?!beta)", record.context_id)
        cell_type, condition, donor, _ = re.split("-(?!beta)", record.target_id)
        assert (shown, condition) == ("control", "IFN-beta")
        assert (shown_type, shown_donor) == (cell_type, donor)
        assert record.condition == f"{cell_type} | IFN-beta"
        assert "IFN-beta" in record.prompt
        assert side.setdefault(record.context_id, record.split) is record.split
    pairs = Counter((r.target_id, r.context_id) for r in corpus.records)
    assert set(pairs.values()) == {1}


def test_held_out_type_is_tested_only(source_of: MakeSource, toy_cells: Cells) -> None:
    corpus = build(source_of(toy_cells), changed(HELD_OUT, tasks=CELL_TASKS))
    for record in corpus.records:
        is_b = "B cell" in (record.context_id + record.target_id)
        assert record.split is Split.TEST or not is_b
    held_out = [r for r in corpus.records if r.condition == "B cell | IFN-beta"]
    # An untreated cell is what generation asks for, so that of treated cells is left out.
    assert {r.task for r in held_out} == set(CELL_TASKS) - {Task.CELL_GENERATION}


def test_held_out_perturbation_is_tested_with_controls_of_its_own(source_of: MakeSource) -> None:
    cells = [
        (f"{condition}-{i}", "T", condition, "d")
        for condition in ("control", "IFN-beta", "IL6")
        for i in range(30)
    ]
    split = {"holdout": {"condition": ["IL6"]}, "test_fraction": 0.3}
    corpus = build(source_of(cells), changed(PERTURBATION, split=split))
    train = [r for r in corpus.records if r.split is Split.TRAIN]
    test = [r for r in corpus.records if r.split is Split.TEST]
    assert sum(r.condition == "T | IL6" for r in test) == 30
    assert not any(r.condition == "T | IL6" for r in train)
    assert not {r.context_id for r in train} & {r.context_id for r in test}


EXPOSED = [
    (f"{cell_type}-{perturbation}-{exposure}-{i}", cell_type, perturbation, exposure)
    for cell_type in ("B", "T")
    for perturbation in ("IL4", "IL6", "IL4 + IL6")
    for exposure in ("acute", "chronic")
    for i in range(12)
]
# Controls without exposure, as vehicles often are.
UNTREATED = [
    (f"{cell_type}-c-{i}", cell_type, "control", "") for cell_type in "BT" for i in range(30)
]
TIERED = {
    "exposure_column": "donor",  # the toy cells' fourth column
    "split": {
        "test_fraction": 0.4,
        "tiers": [
            {"where": {"condition": ["IL4 + IL6"]}},
            {"where": {"cell_type": ["B"], "condition": ["IL6"]}},
            {"where": {"cell_type": ["T"], "condition": ["IL4"], "donor": ["acute"]}},
        ],
    },
}


def test_tiers_hold_combinations_out_and_are_named_after_what_training_lacks(
    source_of: MakeSource,
) -> None:
    corpus = build(source_of([*EXPOSED, *UNTREATED]), changed(PERTURBATION, **TIERED))
    tiers = {r.condition: r.tier for r in corpus.records if r.split is Split.TEST}
    assert tiers == {
        "B | IL4 + IL6 | acute": "unseen combination",
        "B | IL4 + IL6 | chronic": "unseen combination",
        "T | IL4 + IL6 | acute": "unseen combination",
        "T | IL4 + IL6 | chronic": "unseen combination",
        "B | IL6 | acute": "unseen per cell type",
        "B | IL6 | chronic": "unseen per cell type",
        "T | IL4 | acute": "unseen exposure",
        # The share of other cells that test_fraction holds out, so that there are controls.
        "B | IL4 | acute": "seen condition",
        "B | IL4 | chronic": "seen condition",
        "T | IL4 | chronic": "seen condition",
        "T | IL6 | acute": "seen condition",
        "T | IL6 | chronic": "seen condition",
    }
    train = [r for r in corpus.records if r.split is Split.TRAIN]
    assert {r.tier for r in train} == {""}
    assert {r.condition for r in train} == {c for c, t in tiers.items() if t == "seen condition"}
    assert {c.condition: c.tier for c in corpus.counts if c.split is Split.TEST} == tiers
    asked = next(r for r in corpus.records if r.condition == "T | IL4 | acute")
    assert "IL4, acute" in asked.prompt


def test_a_tier_may_have_a_name_of_its_own(source_of: MakeSource) -> None:
    split = {"test_fraction": 0.4, "tiers": [{"name": "B lab", "where": {"cell_type": ["B"]}}]}
    corpus = build(source_of([*EXPOSED, *UNTREATED]), changed(PERTURBATION, split=split))
    tiers = {r.condition: r.tier for r in corpus.records if r.split is Split.TEST}
    assert {tier for condition, tier in tiers.items() if condition[0] == "B"} == {"B lab"}
    assert {tier for condition, tier in tiers.items() if condition[0] == "T"} == {"seen condition"}


@pytest.mark.parametrize(
    ("tier", "message"),
    [
        (
            {"name": "unseen exposure", "where": {"cell_type": ["B"], "condition": ["IL6"]}},
            "must hold such conditions, got 'B | IL6', which is 'unseen per cell type'",
        ),
        ({"where": {"condition": ["IL-6"]}}, "a value of condition in a tier must occur"),
        (
            {"where": {"cell_type": ["NK"], "condition": ["IL6"]}},
            "a tier must hold cells, got none with {'cell_type': ['NK'], 'condition': ['IL6']}",
        ),
    ],
)
def test_a_tier_must_be_what_it_is_called(
    source_of: MakeSource, tier: dict[str, object], message: str
) -> None:
    cells = [*EXPOSED, *UNTREATED, *((f"nk{i}", "NK", "control", "") for i in range(9))]
    split = {"test_fraction": 0.4, "tiers": [tier]}
    with pytest.raises(DataError, match=re.escape(message)):
        build(source_of(cells), changed(PERTURBATION, split=split))


def test_pseudobulk_is_of_the_same_condition_and_side(
    source_of: MakeSource, toy_cells: Cells
) -> None:
    source = source_of(toy_cells)
    config = changed(HELD_OUT, target="pseudobulk", reward_target="pseudobulk")
    corpus = build(source, config)
    everyone = build(source, changed(config, tasks=[Task.CELL_TYPE_ANNOTATION])).records
    side = {r.context_id: r.split for r in everyone}
    targets = {}
    for record in corpus.records:
        cell_type = record.target_id.split("-")[0]
        rows = [
            row
            for row, cell in enumerate(source.table.cell_ids)
            if cell.startswith(f"{cell_type}-IFN-beta") and side[cell] is record.split
        ]
        mean = mean_expression(source.table, rows, 12)
        genes = record.target_genes_K
        assert set(genes.tolist()) == set(np.flatnonzero(mean).tolist())
        assert (np.diff(mean[genes]) <= 0).all()
        # The sentence is cut at num_genes, the ranking for rewards is not.
        assert record.target.split() == [f"G{gene}" for gene in genes[:4]]
        assert len(genes) > 4
        targets.setdefault((record.condition, record.split), set()).add(record.target)
    assert all(len(texts) == 1 for texts in targets.values())
    # 2 sides of T cells and the held-out B cells.
    assert len(targets) == 3


def test_reward_target_and_text_target_are_chosen_apart(
    source_of: MakeSource, toy_cells: Cells
) -> None:
    source = source_of(toy_cells)
    single = build(source, HELD_OUT).records
    mixed = build(source, changed(HELD_OUT, reward_target="pseudobulk")).records
    assert [r.target for r in mixed] == [r.target for r in single]
    assert [r.target_genes_K.tolist() for r in mixed] != [r.target_genes_K.tolist() for r in single]


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.randoms(use_true_random=False))
def test_order_of_cells_changes_nothing(
    source_of: MakeSource, toy_cells: Cells, shuffler: random.Random
) -> None:
    config = changed(
        HELD_OUT, tasks=CELL_TASKS, reward_target="pseudobulk", limits={"train": 5, "test": 3}
    )
    expected = build(source_of(toy_cells), config)
    shuffled = list(toy_cells)
    shuffler.shuffle(shuffled)
    again = build(source_of(shuffled), config)
    assert plain(again.records) == plain(expected.records)
    assert (again.counts, again.dropped) == (expected.counts, expected.dropped)


def test_another_seed_gives_another_corpus(source_of: MakeSource, toy_cells: Cells) -> None:
    source = source_of(toy_cells)
    first, second = (build(source, changed(HELD_OUT, seed=seed)).records for seed in (0, 1))
    assert {r.prompt_id: r.split for r in first} != {r.prompt_id: r.split for r in second}
    pairs = [{(r.target_id, r.context_id) for r in records} for records in (first, second)]
    assert pairs[0] != pairs[1]


def test_limits_hold_per_task_condition_and_side(source_of: MakeSource, toy_cells: Cells) -> None:
    source = source_of(toy_cells)
    config = changed(HELD_OUT, tasks=CELL_TASKS)
    everything = build(source, config)
    limited = build(source, changed(config, limits={"train": 3, "test": 2}))
    counts = Counter((r.task, r.condition, r.split) for r in limited.records)
    assert {n for (_, _, split), n in counts.items() if split is Split.TRAIN} == {3}
    assert {n for (_, _, split), n in counts.items() if split is Split.TEST} == {2}
    assert limited.dropped["over_limit"] == len(everything.records) - len(limited.records)
    kept = {r.prompt_id for r in limited.records}
    # What stays, stays in the same order with the same text.
    assert plain(limited.records) == plain([r for r in everything.records if r.prompt_id in kept])


def test_counts_name_cells_and_prompts(source_of: MakeSource, toy_cells: Cells) -> None:
    corpus = build(source_of(toy_cells), changed(PERTURBATION, limits={"train": 7}))
    assert [c.model_dump() for c in corpus.counts] == [
        {
            "task": Task.PERTURBATION_RESPONSE,
            "split": Split.TRAIN,
            "condition": f"{cell_type} | IFN-beta",
            "num_prompts": 7,
            "num_cells": 20,
            "tier": "",
        }
        for cell_type in ("B cell", "T cell")
    ]


def test_cells_without_control_or_label_are_left_out_and_counted(
    source_of: MakeSource, caplog: pytest.LogCaptureFixture
) -> None:
    cells = [
        ("c1", "T", "control", "d"),
        ("s1", "T", "IFN-beta", "d"),
        ("s2", "Eryth", "IFN-beta", "d"),
        ("s3", "Eryth", "IFN-beta", "d"),
        ("n1", "", "control", "d"),
        ("n2", "T", "", "d"),
    ]
    with caplog.at_level("INFO"):
        corpus = build(source_of(cells), changed(PERTURBATION, pairs_per_cell=3))
    assert [r.target_id for r in corpus.records] == ["s1"]
    assert corpus.dropped == {
        "in_buffer": 0,
        "no_control": 2,
        "no_label": 2,
        "over_limit": 0,
        "too_few_controls": 2,  # 3 pairs wanted, 1 control there
    }
    assert "Eryth | IFN-beta (train): 2" in caplog.text
    assert "left out of the corpus: 2 no_label" in caplog.text


def test_short_targets_are_counted(source_of: MakeSource, toy_cells: Cells) -> None:
    source = source_of(toy_cells)
    corpus = build(source, changed(PERTURBATION, tasks=[Task.CELL_GENERATION], num_genes=6))
    lengths = [len(source.table.genes_of(row)) for row in range(80) if "control" in toy_cells[row]]
    assert corpus.num_short_targets == sum(length < 6 for length in lengths) > 0


@pytest.mark.parametrize(
    ("update", "message"),
    [
        ({"control": "ctrl"}, "the control value of condition must occur in the cells, got 'ctrl'"),
        (
            {"split": {"holdout": {"cell_type": ["B cells"]}}},
            "a held-out value of cell_type must occur in the cells, got 'B cells'; did you mean",
        ),
        (
            {"split": {"holdout": {"cell_type": ["B cell", "T cell"]}}},
            "must have prompts on the train side, got none for perturbation_response",
        ),
        (
            {"split": {"test_fraction": 1e-9}},
            "must have prompts on the test side, got none for perturbation_response",
        ),
    ],
)
def test_what_the_cells_cannot_give_is_refused(
    source_of: MakeSource, toy_cells: Cells, update: dict[str, object], message: str
) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        build(source_of(toy_cells), changed(PERTURBATION, **update))


def test_cells_without_any_label_are_refused(source_of: MakeSource) -> None:
    with pytest.raises(DataError, match=r"cells must have labels, got none with all of"):
        build(source_of([("a", "", "control", "d")]), PERTURBATION)
