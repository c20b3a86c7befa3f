"""Columns that stay in the file read as the whole column does, in any ranges."""

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest

from c2s_rl.data.stored_texts import stored_texts
from c2s_rl.data.text_column import HeldLabels, HeldNames, JoinedTexts, held_labels
from c2s_rl.errors import DataError

COLUMNS = {
    "text": (np.array(["a", "b c", "", "é"], dtype=object), ["a", "b c", "", "é"]),
    "category": (pd.Categorical(["T", None, "B", "T"]), ["T", "", "B", "T"]),
    "numbers as category": (pd.Categorical([10, 2, 2, None]), ["10", "2", "2", ""]),
    "whole": (np.array([10, 2, 2, -1]), ["10", "2", "2", "-1"]),
    # Shortest digits of its own precision, and not-a-number is missing.
    "float32": (np.array([0.1, np.nan, 3, 1e-6], dtype=np.float32), ["0.1", "", "3.0", "1e-06"]),
    "bool": (np.array([True, False, True, True]), ["True", "False", "True", "True"]),
    "nullable whole": (pd.array([1, None, 3, 4], dtype="Int64"), ["1", "", "3", "4"]),
    "nullable bool": (pd.array([True, None, False, True]), ["True", "", "False", "True"]),
}


@pytest.fixture(scope="module")
def obs(tmp_path_factory):
    path = tmp_path_factory.mktemp("obs") / "a.h5ad"
    frame = pd.DataFrame(
        {name: values for name, (values, _) in COLUMNS.items()}, index=list("wxyz")
    )
    anndata.AnnData(np.ones((4, 1), dtype=np.float32), obs=frame).write_h5ad(path)
    with h5py.File(path) as file:
        yield file["obs"]


@pytest.mark.parametrize("name", COLUMNS)
def test_every_type_reads_as_text_in_any_ranges(obs, name):
    column = stored_texts(obs[name], name=name, place="a.h5ad")
    expected = COLUMNS[name][1]
    assert len(column) == 4
    for start in range(5):
        for stop in range(start, 5):
            assert column.read(start, stop).tolist() == expected[start:stop]


@pytest.mark.parametrize("name", COLUMNS)
def test_held_and_stored_columns_agree(obs, name):
    whole = held_labels(pd.Series(anndata.io.read_elem(obs[name])))
    assert whole.read(0, 4).tolist() == COLUMNS[name][1]


def test_a_code_without_category_is_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        anndata.io.write_elem(file, "kind", pd.Categorical(["a", "b"]))
        file["kind/codes"][1] = 7
        column = stored_texts(file["kind"], name="kind", place="a.h5")
        with pytest.raises(DataError, match=r"must be in -1\.\.1, got 7 for 'kind' in a\.h5"):
            column.read(0, 2)


def test_a_mask_of_another_length_is_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        anndata.io.write_elem(file, "n", pd.array([1, None], dtype="Int64"))
        del file["n/mask"]
        file["n/mask"] = np.zeros(3, dtype=bool)
        with pytest.raises(DataError, match="a mask for each value, got 2 values and 3 for 'n'"):
            stored_texts(file["n"], name="n", place="a.h5")


def test_joined_texts_leave_missing_parts_out():
    drug = HeldLabels(np.array([0, 1, -1]), ("DMSO", "dasatinib"))
    joined = JoinedTexts((drug, HeldNames(["", "10 um", ""])))
    assert joined.read(0, 3).tolist() == ["DMSO", "dasatinib 10 um", ""]
    assert joined.read(1, 2).tolist() == ["dasatinib 10 um"]
    assert len(joined) == 3
