"""Which completions and which real cells form a population."""

import numpy as np

from c2s_rl.evaluation.populations import draw_cells, populations
from c2s_rl.types import Split
from tests.reference_cells import make_record


def test_conditions_and_sides_are_kept_apart():
    records = [
        make_record("a"),
        make_record("b"),
        make_record("a"),
        make_record("a", split=Split.TEST),
    ]
    assert list(populations(records, 10)) == [[0, 2], [1], [3]]


def test_many_completions_are_dealt_into_equal_parts():
    records = [make_record("a")] * 7
    assert list(populations(records, 3)) == [[0, 3, 6], [1, 4], [2, 5]]


def test_prompts_with_text_answers_are_in_no_population():
    assert list(populations([make_record("a", target=())], 10)) == []


def test_cells_are_drawn_once_by_name_and_seed():
    cells = [np.array([n], dtype=np.int32) for n in range(50)]

    def drawn(name, seed):
        return [int(cell[0]) for cell in draw_cells(cells, 10, name, seed)]

    assert len(set(drawn("a", 0))) == 10
    assert drawn("a", 0) == sorted(drawn("a", 0)) == drawn("a", 0)
    assert drawn("a", 0) != drawn("b", 0)
    assert drawn("a", 0) != drawn("a", 1)
    assert draw_cells(cells, 50, "a", 0) == cells
