"""Samples of several cells: one donor, tissue, study, treatment and side; texts and answers."""

import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from c2s_rl.cells.sentence import write_sentence
from c2s_rl.data.cell_source import TableSource
from c2s_rl.data.corpus import Corpus, build_corpus
from c2s_rl.data.corpus_config import CorpusConfig
from c2s_rl.data.corpus_sections import SAMPLE_TASKS
from c2s_rl.data.token_budget import estimated_costs
from c2s_rl.errors import DataError
from c2s_rl.prompts.render import load_all_templates
from c2s_rl.types import PromptRecord, Split, Task

Cells = Sequence[tuple[str, str, str, str]]
MakeSource = Callable[[Cells], TableSource]
Columns = Mapping[str, Sequence[str]]


def with_columns(source: TableSource, columns: Columns) -> TableSource:
    """Return the same cells with more obs columns."""
    obs = {name: np.array(values) for name, values in columns.items()}
    return replace(source, table=replace(source.table, obs={**source.table.obs, **obs}))


def alternating(source: TableSource, names: Sequence[str]) -> list[str]:
    """Give every cell one of the names, by the number that its id ends with."""
    return [names[int(i.rsplit("-", 1)[1]) % len(names)] for i in source.table.cell_ids]


@pytest.fixture
def source(source_of: MakeSource, toy_cells: Cells) -> TableSource:
    """80 cells of 2 types, 2 treatments, 2 donors; half of each from blood, half from liver."""
    cells = source_of(toy_cells)
    return with_columns(
        cells,
        {
            "tissue": alternating(cells, ["blood", "liver"]),
            "study": ["s1" if "-d1-" in i else "s2" for i in cells.table.cell_ids],
        },
    )


def config(*tasks: Task, **changes: object) -> CorpusConfig:
    multi_cell = {
        "cells_per_sample": 3,
        "samples_per_group": 4,
        "tissue_column": "tissue",
        "donor_column": "donor",
        **dict(changes.pop("multi_cell", {})),
    }
    return CorpusConfig.model_validate(
        {
            "tasks": tasks,
            "num_genes": 4,
            "condition_column": "condition",
            "control": "control",
            "multi_cell": multi_cell,
            **changes,
        }
    )


def build(source: TableSource, corpus: CorpusConfig) -> Corpus:
    return build_corpus(source, corpus, load_all_templates(corpus.tasks, corpus.templates))


def sentences_of(record: PromptRecord, source: TableSource, num_genes: int = 4) -> str:
    """Write the cells that the record names, as its text must show them."""
    row_of = {cell_id: row for row, cell_id in enumerate(source.table.cell_ids)}
    genes = [source.table.genes_of(row_of[i]) for i in record.context_ids or record.target_ids]
    sentences = [write_sentence(one, source.vocabulary, num_genes) for one in genes]
    return "\n".join(f"Cell {number}: {text}" for number, text in enumerate(sentences, start=1))


def label(source: TableSource, column: str, cell_id: str) -> str:
    return str(source.table.obs[column][source.table.cell_ids.index(cell_id)])


def test_cells_are_asked_for_in_numbered_lines(source: TableSource) -> None:
    corpus = build(source, config(Task.MULTI_CELL_LANGUAGE_MODELLING))
    # 2 donors x 2 tissues x 2 treatments, 4 samples of each.
    assert len(corpus.records) == 8 * 4
    for record in corpus.records:
        assert len(set(record.target_ids)) == 3
        assert record.target_id == record.target_ids[0]
        assert (record.context_id, record.context_ids) == ("", ())
        assert record.target == f" {sentences_of(record, source)}"
        assert "3" in record.prompt
        assert len(record.target_genes_K) == 0
    assert len({record.target for record in corpus.records}) > 20


def test_tissue_is_asked_of_shown_cells(source: TableSource) -> None:
    for record in build(source, config(Task.TISSUE_ANNOTATION)).records:
        tissue = label(source, "tissue", record.context_id)
        assert record.target == f" {tissue}"
        assert tissue not in record.prompt
        assert sentences_of(record, source) in record.prompt
        assert record.condition in {f"{tissue} | control", f"{tissue} | IFN-beta"}
        assert (record.target_id, record.target_ids) == ("", ())


def test_types_are_told_cell_by_cell(source: TableSource) -> None:
    for record in build(source, config(Task.SAMPLE_CELL_TYPE_ANNOTATION)).records:
        types = [label(source, "cell_type", i) for i in record.context_ids]
        lines = [f"Cell {number}: {name}" for number, name in enumerate(types, start=1)]
        assert record.target == " " + "\n".join(lines)


@pytest.mark.parametrize("task", [Task.TISSUE_SAMPLE_GENERATION, Task.CELL_TYPE_SAMPLE_GENERATION])
def test_samples_named_without_a_treatment_are_untreated(source: TableSource, task: Task) -> None:
    corpus = build(source, config(task))
    assert len(corpus.records) == 4 * 4
    assert corpus.dropped["not_control"] == 40
    for record in corpus.records:
        assert {label(source, "condition", i) for i in record.target_ids} == {"control"}
        asked = (
            label(source, "tissue", record.target_id)
            if task is Task.TISSUE_SAMPLE_GENERATION
            else "\n".join(
                f"Cell {number}: {label(source, 'cell_type', i)}"
                for number, i in enumerate(record.target_ids, start=1)
            )
        )
        assert asked in record.prompt


def test_abstracts_stand_on_either_side(source: TableSource, tmp_path: Path) -> None:
    table = tmp_path / "abstracts.tsv"
    table.write_text("s1\tFirst  study.\ns2\tSecond study.\ns3\tNo cells of it.\n")
    multi_cell = {"dataset_column": "study", "abstracts": table}
    tasks = (Task.ABSTRACT_SAMPLE_GENERATION, Task.NATURAL_LANGUAGE_INTERPRETATION)
    texts = {"s1": "First study.", "s2": "Second study."}
    records = build(source, config(*tasks, multi_cell=multi_cell)).records
    assert {r.condition for r in records} == {"s1", "s2"}
    for record in records:
        ids = record.context_ids or record.target_ids
        (study,) = {label(source, "study", i) for i in ids}
        is_asked = record.task is Task.NATURAL_LANGUAGE_INTERPRETATION
        assert texts[study] in (record.target if is_asked else record.prompt)
        assert (record.target == f" {texts[study]}") is is_asked


def test_abstracts_may_be_an_obs_column(source: TableSource) -> None:
    texts = [f"About {name}." for name in source.table.obs["study"].tolist()]
    told = with_columns(source, {"text": texts})
    multi_cell = {"abstract_column": "text", "donor_column": None}
    records = build(
        told, config(Task.NATURAL_LANGUAGE_INTERPRETATION, multi_cell=multi_cell)
    ).records
    # Without donors and studies, the text itself keeps studies apart: 2 x 2 tissues x 2 treatments.
    assert len(records) == 8 * 4
    for record in records:
        assert {f" {label(told, 'text', i)}" for i in record.context_ids} == {record.target}


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.sampled_from(["blood", "liver", "lung", ""]), min_size=80, max_size=80),
    st.integers(0, 2**32),
    st.tuples(st.integers(2, 4), st.integers(4, 9)),
)
def test_a_sample_keeps_to_one_donor_tissue_treatment_and_side(
    source: TableSource, tissues: list[str], seed: int, sizes: tuple[int, int]
) -> None:
    mixed = with_columns(source, {"tissue": tissues})
    corpus_config = config(
        Task.MULTI_CELL_LANGUAGE_MODELLING,
        multi_cell={"cells_per_sample": sizes, "samples_per_group": 2},
        split={"test_fraction": 0.5},
        seed=seed,
    )
    try:
        corpus = build(mixed, corpus_config)
    except DataError as error:  # all groups of one side may be too small
        assert "too_few_cells_for_sample" in str(error)  # noqa: PT017
        return
    group_of = {}
    sides: dict[Split, set[str]] = {side: set() for side in Split}
    for row, cell_id in enumerate(mixed.table.cell_ids):
        obs = mixed.table.obs
        group_of[cell_id] = tuple(str(obs[c][row]) for c in ("donor", "tissue", "condition"))
    for record in corpus.records:
        (group,) = {group_of[i] for i in record.target_ids}
        assert group[1]
        assert sizes[0] <= len(record.target_ids) == len(set(record.target_ids)) <= sizes[1]
        sides[record.split] |= set(record.target_ids)
    assert not sides[Split.TRAIN] & sides[Split.TEST]
    assert corpus.dropped.get("no_tissue", 0) == tissues.count("")


def test_groups_that_are_too_small_are_counted(source: TableSource) -> None:
    tissues = ["rare"] * 2 + ["blood"] * 78
    rare = with_columns(source, {"tissue": tissues})
    corpus = build(rare, config(Task.MULTI_CELL_LANGUAGE_MODELLING))
    assert corpus.dropped["too_few_cells_for_sample"] == 4
    assert {r.condition for r in corpus.records} == {"blood | control", "blood | IFN-beta"}


def test_number_of_cells_varies_within_its_range(source: TableSource) -> None:
    multi_cell = {"cells_per_sample": [2, 5], "samples_per_group": 25}
    corpus = build(source, config(Task.MULTI_CELL_LANGUAGE_MODELLING, multi_cell=multi_cell))
    sizes = Counter(len(record.target_ids) for record in corpus.records)
    # 200 draws of 4 sizes: the rarest below 20 has probability 1e-6.
    assert set(sizes) == {2, 3, 4, 5}
    assert min(sizes.values()) >= 20
    assert all(f"{len(r.target_ids)}" in r.prompt for r in corpus.records)


def test_order_of_cells_changes_no_sample(
    source_of: MakeSource, toy_cells: Cells, source: TableSource
) -> None:
    tasks = [task for task in SAMPLE_TASKS if "abstract" not in task and "natural" not in task]
    wanted = config(*tasks, split={"test_fraction": 0.4})
    shuffled = list(toy_cells)
    random.Random(1).shuffle(shuffled)
    moved = source_of(shuffled)
    again = with_columns(moved, {"tissue": alternating(moved, ["blood", "liver"])})
    first, second = build(source, wanted), build(again, wanted)
    texts = [[(r.prompt_id, r.prompt, r.target) for r in c.records] for c in (first, second)]
    assert texts[0] == texts[1]
    assert first.counts == second.counts


def test_counts_of_a_tissue_name_the_cells_in_its_samples(source: TableSource) -> None:
    corpus = build(source, config(Task.TISSUE_ANNOTATION))
    for count in corpus.counts:
        used = {i for r in corpus.records if r.condition == count.condition for i in r.context_ids}
        assert (count.num_prompts, count.num_cells) == (2 * 4, len(used))


def test_a_sample_is_shortened_equally_and_then_loses_cells(source: TableSource) -> None:
    most, multi_cell = 76, {"cells_per_sample": 5}
    roomy = build(source, config(Task.TISSUE_ANNOTATION, num_genes=6, multi_cell=multi_cell))
    budget = {"max_tokens": most, "tokens_per_gene": 2, "min_genes": 4}
    tight_config = config(
        Task.TISSUE_ANNOTATION, num_genes=6, multi_cell=multi_cell, token_budget=budget
    )
    tight = build(source, tight_config)
    count = estimated_costs(2, 12).count_text
    by_id = {r.prompt_id: r for r in roomy.records}
    sizes: Counter[tuple[int, int]] = Counter()
    num_left_out = 0
    for record in tight.records:
        whole = by_id[record.prompt_id]
        assert record.context_ids == whole.context_ids[: len(record.context_ids)]
        assert record.target == whole.target
        num_left_out += len(whole.context_ids) - len(record.context_ids)
        shown = re.findall(r"Cell \d+: ([G\d ]+)", record.prompt)
        num_genes = max(len(sentence.split()) for sentence in shown)
        assert sentences_of(record, source, num_genes) in record.prompt
        # A gene is a word with a capital, 2 tokens as in the budget, so whole texts can be counted.
        total = count(record.prompt) + count(record.target) + 1
        assert total <= most
        longer = sum(
            len(source.table.genes_of(source.table.cell_ids.index(i))) > num_genes
            for i in record.context_ids
        )
        assert num_genes == 6 or not longer or total + 2 * longer > most
        sizes[len(shown), num_genes] += 1
    assert all(num_cells >= 2 and num_genes >= 4 for num_cells, num_genes in sizes)
    assert {num_cells for num_cells, _ in sizes} >= {3, 4}
    assert len({num_genes for _, num_genes in sizes}) > 1
    assert tight.dropped["cells_over_token_budget"] == num_left_out
    assert tight.dropped.get("over_token_budget", 0) == len(by_id) - len(tight.records)


@pytest.mark.parametrize(
    ("columns", "rows", "message"),
    [
        (
            {"dataset_column": "study"},
            "s1\tOne.\ns22\tTwo.\n",
            r"a study of obs study must be one of 's1', 's22', got 's2' in .*did you mean 's22'",
        ),
        ({}, "s1\tOne.\ns2\tTwo.\n", "abstracts of several studies need multi_cell.dataset_column"),
    ],
)
def test_a_study_without_an_abstract_is_named(
    source: TableSource, tmp_path: Path, columns: dict[str, str], rows: str, message: str
) -> None:
    table = tmp_path / "abstracts.tsv"
    table.write_text(rows)
    multi_cell = {**columns, "abstracts": table}
    with pytest.raises(DataError, match=message):
        build(source, config(Task.ABSTRACT_SAMPLE_GENERATION, multi_cell=multi_cell))


def test_a_corpus_without_a_single_sample_says_why(source: TableSource) -> None:
    with pytest.raises(
        DataError,
        match=r"none for tissue_annotation .*left out: 32 too_few_cells_for_sample; "
        "samples need cells_per_sample cells of a donor",
    ):
        build(source, config(Task.TISSUE_ANNOTATION, multi_cell={"cells_per_sample": 50}))
