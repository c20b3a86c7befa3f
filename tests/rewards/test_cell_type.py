"""Agreement of a classifier of real cells with the prompt."""

import numpy as np
import pytest

from c2s_rl.data.cell_table import CellTable
from c2s_rl.errors import DataError
from c2s_rl.evaluation import cell_labels
from c2s_rl.types import Split
from rewards import load_reward
from rewards.checking import raise_failures, score_checked
from tests.reference_cells import make_batch, make_group, make_material, make_record

# Two kinds of cells that share no gene, and controls that are a third.
LOW, HIGH, CONTROL = [[0, 1, 2, 3], [1, 0, 2, 3]] * 5, [[8, 9, 10, 11], [9, 8, 10, 11]] * 5, [
    [4, 5, 6, 7],
    [5, 4, 6, 7],
] * 5  # fmt: skip
MATERIAL = make_material({"low": LOW, "high": HIGH}, {"low": CONTROL})
ANSWERS = [[0, 1, 3, 2], [8, 9, 11, 10], [4, 5, 7, 6], []]
each = pytest.mark.parametrize("classifier", ["knn", "centroid"])
# the toy cells of a label are nearly equal
pytestmark = pytest.mark.filterwarnings("ignore:self.within_class_std_dev_ has at least 1 zero")


def scores(cells, record, material=MATERIAL, **options):
    batch = make_batch(material, make_group(cells, record))
    reward = load_reward("cell_type", {"num_neighbours": 5} | options)
    return raise_failures(score_checked(reward, batch, "cell_type")).scores


@each
@pytest.mark.parametrize("form", ["probability", "hit"])
def test_a_cell_of_the_condition_passes_and_others_and_the_control_do_not(classifier, form):
    options = {"classifier": classifier, "form": form}
    assert scores(ANSWERS, make_record("low"), **options) == pytest.approx((1, 0, 0, 0), abs=0.01)
    assert scores(ANSWERS, make_record("high"), **options) == pytest.approx((0, 1, 0, 0), abs=0.01)


def test_knn_probability_is_the_share_of_neighbours():
    # 2 training cells of 'a' like the answer, 1 of 'b' like it and 1 far away: 3 nearest, 2 of 'a'
    material = make_material({"a": [[0, 1], [0, 1]], "b": [[0, 1], [8, 9]]})
    assert scores([[0, 1]], make_record("a"), material, num_neighbours=3) == pytest.approx((2 / 3,))


@each
def test_conditions_without_training_cells_abstain(classifier):
    options = {"classifier": classifier}
    assert scores(ANSWERS, make_record("unseen"), **options) == (None,) * 4
    assert scores(ANSWERS, make_record("low", target=()), **options) == (None,) * 4


@each
def test_held_out_prompts_are_judged_by_training_cells(classifier):
    record = make_record("low", split=Split.TEST)
    assert scores(ANSWERS[:1], record, classifier=classifier) == pytest.approx((1,), abs=0.01)


def test_labels_can_be_an_obs_column(monkeypatch):
    # the column calls every cell of 'low' a T cell and the others B cells, one without label
    table = MATERIAL.reference.real.cells
    kinds = ["T cell" if i.startswith("low-treated") else "B cell" for i in table.cell_ids]
    kinds[-1] = ""

    def read(_folder, columns):
        obs = {columns[0]: np.array(kinds)}
        return CellTable(table.cell_ids, table.indptr, table.genes, table.values, obs)

    monkeypatch.setattr(cell_labels, "read_cells", read)
    material = make_material({"low": LOW, "high": HIGH}, {"low": CONTROL}, cells="shards")
    options = {"material": material, "label": "cell_type"}
    # by the target cell of the prompt, and by the condition's cells where it has none
    named = make_record("anything", target_id="low-treated-003")
    assert scores(ANSWERS, named, **options) == pytest.approx((1, 0, 0, 0))
    assert scores(ANSWERS, make_record("high"), **options) == pytest.approx((0, 1, 1, 0))
    assert scores(ANSWERS, make_record("unseen"), **options) == (None,) * 4


def test_one_label_is_no_choice():
    batch = make_batch(make_material({"low": LOW}), make_group(ANSWERS, make_record("low")))
    with pytest.raises(DataError, match=r"at least 2 labels .* got 10 cells of 1 labels"):
        load_reward("cell_type", {}).score(batch)


@each
def test_no_and_many_completions(classifier):
    reward = load_reward("cell_type", {"classifier": classifier})
    assert reward.score(make_batch(MATERIAL)).scores == ()
    rng = np.random.default_rng(0)
    cells = [rng.permutation(12)[:4].tolist() for _ in range(300)]
    values = scores(cells, make_record("low"), classifier=classifier)
    assert 0.0 <= min(values) <= max(values) <= 1.0
