"""Which cells are compared as populations."""

import numpy as np
import pytest

from c2s_rl.data.cell_table import CellTable
from c2s_rl.evaluation.donors import Units
from c2s_rl.evaluation.methods import (
    COPY_CONTROL,
    MEAN_CELL,
    REAL_CELL,
    REAL_MEAN,
    SHUFFLED,
    Method,
    MethodKind,
)
from c2s_rl.evaluation.population_cells import (
    PopulationConfig,
    PopulationSource,
    embedding_label,
    gather_populations,
)
from c2s_rl.evaluation.real_cells import gather_real_cells
from c2s_rl.models.cell_embedder import CellEmbedderConfig

CONFIG = PopulationConfig(min_cells=2, max_cells=3)


@pytest.fixture
def source_of(record, answer):
    """Condition A: 7 real cells in 7 prompts; B: 3 real cells. Cell i holds gene i alone."""

    def make(num_controls=4):
        num = 14
        cells = CellTable(
            tuple(f"c{i:02d}" for i in range(num)),
            np.arange(num + 1),
            np.arange(num, dtype=np.int32),
            np.ones(num, dtype=np.float32),
        )
        controls = [f"c{7 + i % num_controls:02d}" for i in range(7)]
        records = [
            record(f"a{i}", "A", target_id=f"c{i:02d}", context_id=controls[i]) for i in range(7)
        ]
        records += [record(f"b{i}", "B", target_id=f"c{11 + i:02d}") for i in range(3)]
        answers_P = [[answer(p, 20), answer(p, 21)] for p in range(len(records))]
        null, policy, ceiling = MethodKind.NULL, MethodKind.POLICY, MethodKind.CEILING
        methods = [
            Method(MEAN_CELL, null, "", answers_P),
            Method(SHUFFLED, null, "", answers_P),
            Method(COPY_CONTROL, null, "", [[]] * len(records)),
            Method("SFT", policy, "", answers_P),
            Method(REAL_CELL, ceiling, "", [[]] * len(records)),
            Method(REAL_MEAN, ceiling, "", answers_P),
        ]
        units = Units(tuple(r.prompt_id for r in records), None, None, "")
        real = gather_real_cells(records, cells, 30)
        return PopulationSource(methods, records, real, units, num_genes=2, seed=0)

    return make


@pytest.fixture
def source(source_of):
    return source_of()


def genes(sample):
    return [cell.tolist() for cell in sample.cells]


def test_all_methods_give_the_same_number_and_halves_share_no_cell(source):
    found = gather_populations(source, CONFIG).by_condition["A"]
    # Halves of 7: 4 and 3; 4 controls; 14 answers; at most 3.
    assert {name: len(s.cells) for name, s in found.by_method.items()} == {
        SHUFFLED: 3,
        COPY_CONTROL: 3,
        "SFT": 3,
        REAL_CELL: 3,
    }
    assert len(found.reference.cells) == 3
    reference = {cell[0] for cell in genes(found.reference)}
    ceiling = {cell[0] for cell in genes(found.by_method[REAL_CELL])}
    assert reference | ceiling <= set(range(7))
    assert not reference & ceiling
    assert {cell[0] for cell in genes(found.by_method[COPY_CONTROL])} <= {7, 8, 9, 10}


def test_answers_are_taken_in_rounds_with_their_prompt_as_unit(source):
    found = gather_populations(source, CONFIG.model_copy(update={"max_cells": 9}))
    sample = found.by_condition["A"].by_method["SFT"]
    assert genes(sample) == [[0, 20], [1, 20], [2, 20]]
    assert sample.units == ("a0", "a1", "a2")


def test_one_repeated_cell_is_no_population(source):
    found = gather_populations(source, CONFIG).by_condition["A"]
    assert REAL_MEAN not in found.by_method
    assert MEAN_CELL not in found.by_method
    assert genes(found.single[MEAN_CELL]) == [[0, 20]]


def test_a_condition_with_too_few_cells_is_counted(source):
    # B has 3 real cells: halves of 2 and 1.
    found = gather_populations(source, CONFIG)
    assert (list(found.by_condition), found.skipped) == (["A"], {"B": 1})


def test_a_baseline_that_lacks_cells_is_left_out_alone(source_of):
    config = CONFIG.model_copy(update={"min_cells": 3})
    found = gather_populations(source_of(num_controls=2), config)
    assert set(found.by_condition["A"].by_method) == {SHUFFLED, "SFT", REAL_CELL}
    assert {len(s.cells) for s in found.by_condition["A"].by_method.values()} == {3}


def test_embeddings_are_called_by_kind_and_genes(tmp_path):
    assert embedding_label(CellEmbedderConfig()) == "all genes"
    two = CellEmbedderConfig(programs=("hallmark_apoptosis", "sets.gmt:MY_SET"))
    assert embedding_label(two) == "HALLMARK_APOPTOSIS, MY_SET"
    scgpt = CellEmbedderConfig(kind="scgpt", folder=tmp_path / "blood")
    assert embedding_label(scgpt) == "scgpt blood, all genes"


def test_rules_of_the_config():
    with pytest.raises(ValueError, match="embeddings must differ, got 'all genes' twice"):
        PopulationConfig(embeddings=(CellEmbedderConfig(), CellEmbedderConfig()))
    with pytest.raises(ValueError, match="max_cells must be at least min_cells, got 5 and 10"):
        PopulationConfig(max_cells=5)
