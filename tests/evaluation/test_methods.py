"""Null baselines and ceilings from real cells."""

import numpy as np
import pytest

from c2s_rl.data.cell_table import CellTable
from c2s_rl.errors import DataError
from c2s_rl.evaluation.methods import Drawing, ceilings, null_baselines, policy_method
from c2s_rl.evaluation.real_cells import gather_real_cells
from c2s_rl.types import Split

# Six cells over five genes; values fall within a cell.
CELLS = CellTable(
    cell_ids=("a", "b", "c", "d", "e", "ctrl"),
    indptr=np.array([0, 2, 4, 6, 8, 10, 12]),
    genes=np.array([0, 1, 1, 0, 2, 3, 3, 2, 4, 0, 0, 4], dtype=np.int32),
    values=np.array([3, 1, 2, 1.5, 5, 1, 3, 2, 1, 0.5, 2, 1], dtype=np.float32),
)
DRAWING = Drawing(num_genes=2, num_draws=8, seed=0)


@pytest.fixture
def corpus(record):
    """B cells a (training) and b, c (held out); NK cells d (training) and e (held out)."""
    train = Split.TRAIN
    return [
        record("1", "B", target_id="a", split=train, context_id="ctrl", control=(0, 4)),
        record("2", "B", target_id="b"),
        record("3", "B", target_id="c"),
        record("4", "NK", target_id="d", split=train),
        record("5", "NK", target_id="e"),
    ]


@pytest.fixture
def real(corpus):
    return gather_real_cells(corpus, CELLS, num_vocabulary=5)


def written(method):
    return [[answer.genes_K.tolist() for answer in answers] for answers in method.answers_P]


def test_rows_follow_the_sides_of_the_prompts(real, corpus):
    assert real.train_rows == (0, 5, 3)  # a, ctrl, d by id
    assert real.sibling_rows(corpus[1]) == [2]  # b: c, neither itself nor the training cell a
    assert real.other_rows(corpus[1]) == [3, 4]  # d and e of NK, either side


def test_mean_cell_is_the_mean_of_training_cells_for_every_prompt(real, corpus):
    # a: 0=3 1=1; ctrl: 0=2 4=1; d: 3=3 2=2. Sums: 0: 5, 3: 3, 2: 2, 1: 1, 4: 1. Cut to two: 0 3.
    mean_cell = null_baselines(corpus[1:3], real, DRAWING)[0]
    assert written(mean_cell) == [[[0, 3]], [[0, 3]]]


def test_shuffled_draws_cells_of_other_conditions(real, corpus):
    shuffled = null_baselines([corpus[1]], real, DRAWING)[1]
    assert sorted(written(shuffled)[0]) == [[3, 2], [4, 0]]  # d and e, each once


def test_copy_control_is_the_prompts_own_control(real, corpus, record):
    prompts = [record("6", "B", control=(4, 0, 1)), corpus[1]]
    copy = null_baselines(prompts, real, DRAWING)[2]
    assert written(copy) == [[[4, 0]], []]
    assert copy.absent_reason == ""
    absent = null_baselines([corpus[1]], real, DRAWING)[2]
    assert absent.absent_reason == "these prompts hold no control cell to copy"


def test_ceilings_never_use_the_targets_own_cell(real, corpus):
    single, mean = ceilings([corpus[1], corpus[4]], real, DRAWING)
    # b's only held-out sibling is c = 2 3; e has none.
    assert written(single) == [[[2, 3]], []]
    assert written(mean) == [[[2, 3]], []]
    assert single.absent_reason == ""
    assert ceilings([corpus[4]], real, DRAWING)[0].absent_reason == (
        "no condition has a second real held-out cell"
    )


def test_real_mean_averages_the_siblings(corpus, record):
    more = [*corpus, record("7", "B", target_id="d"), record("8", "B", target_id="e")]
    real = gather_real_cells(more, CELLS, num_vocabulary=5)
    _, mean = ceilings([corpus[1]], real, Drawing(num_genes=5, num_draws=1, seed=0))
    # Siblings of b: c (2=5 3=1), d (3=3 2=2), e (4=1 0=0.5): sums 2: 7, 3: 4, 4: 1, 0: 0.5.
    assert written(mean) == [[[2, 3, 4, 0]]]


def test_a_draw_depends_on_its_prompt_and_the_seed_alone(real, corpus):
    drawing = Drawing(num_genes=2, num_draws=1, seed=3)
    together = null_baselines(corpus, real, drawing)[1]
    alone = null_baselines([corpus[2]], real, drawing)[1]
    assert written(together)[2] == written(alone)[0]


def test_a_policy_answers_with_its_parsed_cells(record, answer, group):
    method = policy_method("SFT", [group(record(), ("x", answer(2, 1)), ("y", answer()))])
    assert written(method) == [[[2, 1], []]]


def test_a_cell_that_is_not_in_the_shards_is_named(record):
    with pytest.raises(DataError, match="must be in the cell shards, got no 'ghost'"):
        gather_real_cells([record(target_id="ghost")], CELLS, num_vocabulary=5)
