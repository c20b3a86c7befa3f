"""Which unit a bootstrap draws."""

import numpy as np
import pytest

from c2s_rl.data.cell_table import CellTable
from c2s_rl.errors import ConfigError
from c2s_rl.evaluation.donors import choose_units, donor_column
from c2s_rl.evaluation.real_cells import gather_real_cells

KNOWN = ["cell_type", "donor"]


def test_auto_takes_the_donors_of_the_corpus_where_the_cells_have_them():
    assert donor_column("auto", "donor", KNOWN) == "donor"
    assert donor_column("auto", None, KNOWN) is None
    assert donor_column("auto", "patient", KNOWN) is None
    assert donor_column("cell", "donor", KNOWN) is None
    assert donor_column("cell_type", "donor", KNOWN) == "cell_type"


def test_an_unknown_column_names_the_nearest():
    with pytest.raises(ConfigError, match=r"bootstrap\.by must be one of .*got 'donr'.*'donor'"):
        donor_column("donr", None, KNOWN)


@pytest.fixture
def prompts_of(record):
    def make(donors):
        num = len(donors)
        cells = CellTable(
            tuple(f"c{i}" for i in range(num)),
            np.arange(num + 1),
            np.zeros(num, dtype=np.int32),
            np.ones(num, dtype=np.float32),
            {"donor": np.array(donors)},
        )
        records = [record(f"p{i}", target_id=f"c{i}") for i in range(num)]
        return records, gather_real_cells(records, cells, 1)

    return make


def test_prompts_of_one_donor_share_a_unit_and_cells_without_one_stand_alone(prompts_of):
    units = choose_units("auto", "donor", *prompts_of(["a", "b", "c", "d", "e", "a", ""]))
    assert units.units_P == ("a", "b", "c", "d", "e", "a", "p6")
    assert [units.of_cell(row) for row in (0, 5, 6)] == ["a", "a", "cell 6"]
    assert (units.column, units.note) == ("donor", "5 of donor in the held-out prompts")


def test_auto_goes_by_prompt_where_donors_are_few_and_says_so(prompts_of):
    few = prompts_of(["a", "b", "a", "b"])
    units = choose_units("auto", "donor", *few)
    assert units.units_P == ("p0", "p1", "p2", "p3")
    assert units.note == "by prompt and not by donor: 2 in the held-out prompts, 5 needed"
    assert units.of_cell(0) == "cell 0"
    asked = choose_units("donor", "donor", *few)
    assert asked.units_P == ("a", "b", "a", "b")
    assert asked.note.endswith("with so few the intervals are too narrow")


def test_a_column_of_one_value_is_refused(prompts_of):
    with pytest.raises(ConfigError, match="2 values or more in the held-out prompts, got 1 of"):
        choose_units("donor", "donor", *prompts_of(["a", "a"]))
