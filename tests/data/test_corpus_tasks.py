"""Tasks of one cell and what a corpus does with them: pairs, matches, budgets, blocks, leaks."""

import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from c2s_rl.data import corpus as corpus_module
from c2s_rl.data.corpus_config import CorpusConfig
from c2s_rl.data.drafts import Draft
from c2s_rl.data.labels import label_cells
from c2s_rl.data.leaks import check_leaks
from c2s_rl.errors import ConfigError, DataError
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


def test_any_cell_is_asked_for_without_a_condition(source_of: MakeSource, toy_cells: Cells) -> None:
    source = source_of(toy_cells)
    config = changed(PERTURBATION, tasks=[Task.SINGLE_CELL_LANGUAGE_MODELLING], target="pseudobulk")
    corpus = build(source, config)
    assert len(corpus.records) == 80  # treated cells too: the prompt names nothing
    row_of = {cell_id: row for row, cell_id in enumerate(source.table.cell_ids)}
    for record in corpus.records:
        # A certain cell, never the mean of a condition that the prompt does not name.
        genes = source.table.genes_of(row_of[record.target_id])
        assert record.target == "".join(f" G{gene}" for gene in genes[:4])
        assert record.context_ids == ()
        assert record.target_ids == (record.target_id,)
        assert not any(w in record.prompt for w in ("B cell", "T cell", "IFN-beta"))


def test_response_is_trained_in_reverse_too(source_of: MakeSource, toy_cells: Cells) -> None:
    source = source_of(toy_cells)
    config = changed(PERTURBATION, tasks=[Task.PERTURBATION_ANNOTATION], exposure_column="donor")
    corpus = build(source, config)
    assert len(corpus.records) == 80
    row_of = {cell_id: row for row, cell_id in enumerate(source.table.cell_ids)}
    for record in corpus.records:
        cell_type, condition, donor, _ = re.split("-(?!beta)", record.context_id)
        exposure = "none" if condition == "control" else donor
        assert record.target == (
            f" cell type: {cell_type}; perturbation: {condition}; exposure: {exposure}"
        )
        assert "cell type, perturbation and exposure" in record.prompt
        assert "IFN-beta" not in record.prompt
        assert "Control cell" not in record.prompt
        genes = source.table.genes_of(row_of[record.context_id])
        assert " ".join(f"G{gene}" for gene in genes[:4]) in record.prompt
        assert record.target_ids == ()


def test_reverse_may_show_the_control_that_the_response_would(
    source_of: MakeSource, toy_cells: Cells
) -> None:
    source = source_of(toy_cells)
    both = [Task.PERTURBATION_RESPONSE, Task.PERTURBATION_ANNOTATION]
    config = changed(PERTURBATION, tasks=both, annotate_with_control=True, pairs_per_cell=2, seed=3)
    records = build(source, config).records
    pairs = {task: set() for task in both}
    for record in records:
        if record.task is Task.PERTURBATION_RESPONSE:
            pairs[record.task].add((record.target_id, record.context_id))
        else:
            pairs[record.task].add(record.context_ids)
            control = source.table.genes_of(source.table.cell_ids.index(record.context_ids[1]))
            shown = " ".join(f"G{gene}" for gene in control[:4])
            assert record.prompt.startswith(f"Control cell: {shown}\n")
            assert "perturbation: IFN-beta" in record.target
    assert pairs[both[0]] == pairs[both[1]]
    assert len(pairs[both[0]]) == 80


def test_controls_match_by_all_named_columns(
    source_of: MakeSource, caplog: pytest.LogCaptureFixture
) -> None:
    # id, type, condition, plate; the time is added below. s3 has no control of its plate and
    # time, s4 none of its time, s5 no time at all.
    cells = [
        ("c1", "A375", "control", "p1"),
        ("c2", "A375", "control", "p2"),
        ("s1", "A375", "IFN-beta", "p1"),
        ("s2", "A375", "IFN-beta", "p2"),
        ("s3", "A375", "IFN-beta", "p3"),
        ("s4", "A375", "IFN-beta", "p1"),
        ("s5", "A375", "IFN-beta", "p1"),
    ]
    source = source_of(cells)
    times = np.array(["24h", "24h", "24h", "24h", "24h", "6h", ""])
    timed = replace(source, table=replace(source.table, obs={**source.table.obs, "time": times}))
    corpus = build(timed, changed(PERTURBATION, control_match=["donor", "time"]))
    pairs = {(r.target_id, r.context_id) for r in corpus.records}
    assert pairs == {("s1", "c1"), ("s2", "c2")}
    assert corpus.dropped["no_control"] == 3
    assert "A375 | IFN-beta | p3 | 24h (train): 1" in caplog.text
    assert "A375 | IFN-beta | p1 | 6h (train): 1" in caplog.text


def test_what_does_not_fit_the_token_budget_is_counted(
    source_of: MakeSource, toy_cells: Cells
) -> None:
    source = source_of(toy_cells)
    budget = {"max_tokens": 106, "tokens_per_gene": 6, "min_genes": 3}
    whole = build(source, PERTURBATION)
    tight = build(source, changed(PERTURBATION, token_budget=budget))
    # Control and response are shortened alike; what needs fewer than 3 genes is left out.
    targets = {r.prompt_id: r.target.split() for r in whole.records}
    lengths = Counter(len(r.target.split()) for r in tight.records)
    assert set(lengths) == {3, 4}
    assert all(
        r.target.split() == targets[r.prompt_id][: len(r.target.split())] for r in tight.records
    )
    assert len(tight.records) + tight.dropped["over_token_budget"] == len(whole.records)
    assert tight.dropped["over_token_budget"] > 0
    hopeless = {"max_tokens": 20, "tokens_per_gene": 6, "min_genes": 3}
    with pytest.raises(
        DataError, match=r"none for perturbation_response .*left out: 40 over_token_budget"
    ):
        build(source, changed(PERTURBATION, token_budget=hopeless))


def test_blocks_of_prompts_change_nothing(
    source_of: MakeSource, toy_cells: Cells, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = source_of(toy_cells)
    config = changed(HELD_OUT, tasks=CELL_TASKS, reward_target="pseudobulk")
    expected = build(source, config)
    monkeypatch.setattr(corpus_module, "CELLS_PER_BLOCK", 3)
    again = build(source, config)
    assert plain(again.records) == plain(expected.records)
    assert (again.counts, again.dropped) == (expected.counts, expected.dropped)


def test_every_cell_of_a_prompt_is_known_to_the_leak_check(source_of: MakeSource) -> None:
    cells = source_of([("a", "T", "control", "d"), ("b", "T", "control", "d")])
    shown = label_cells(cells.labels, CorpusConfig()).cells
    drafts = [
        Draft(
            prompt_id=split,
            task=Task.CLUSTER_CAPTIONING,
            condition="T",
            split=split,
            shown=shown if split is Split.TRAIN else (shown[1],),
            answer="T cells.",
        )
        for split in Split
    ]
    # 'b' is the second cell of the training prompt and the first of the test prompt.
    assert {draft.context_id for draft in drafts} == {"a", "b"}
    with pytest.raises(DataError, match="must not share a context cell, got 'b'"):
        check_leaks(drafts)


def test_a_task_that_no_corpus_is_made_for_is_refused(
    source_of: MakeSource, toy_cells: Cells, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus_module, "DRAFTERS", {})
    with pytest.raises(ConfigError, match=r"a task of a corpus must be one of .*got cell_gener"):
        corpus_module.plan_corpus(source_of(toy_cells), CorpusConfig())
