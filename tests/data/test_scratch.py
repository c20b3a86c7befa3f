"""Scratch folders: made once, whole or not there, another version of the source another folder."""

import numpy as np
import pytest

from c2s_rl.data.scratch import NumpyRows, identity_of, made_once


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("one")
    return path


def test_files_are_made_once_for_each_version_of_a_source(tmp_path, source):
    calls = []

    def make(folder):
        calls.append(folder)
        (folder / "x").write_text(source.read_text())

    first = made_once(tmp_path / "scratch", source, "copy", make)
    assert made_once(tmp_path / "scratch", source, "copy", make) == first
    assert (len(calls), (first / "x").read_text()) == (1, "one")
    assert made_once(tmp_path / "scratch", source, "other copy", make) != first
    source.write_text("another")
    assert (made_once(tmp_path / "scratch", source, "copy", make) / "x").read_text() == "another"


def test_a_failure_leaves_nothing(tmp_path, source):
    def fail(folder):
        (folder / "x").touch()
        raise ValueError("half-way")

    with pytest.raises(ValueError, match="half-way"):
        made_once(tmp_path / "scratch", source, "copy", fail)
    assert list((tmp_path / "scratch").iterdir()) == []


def test_who_comes_second_takes_what_the_first_made(tmp_path, source):
    def make_slowly(folder):
        made_once(tmp_path / "scratch", source, "copy", lambda f: (f / "x").write_text("first"))
        (folder / "x").write_text("second")

    folder = made_once(tmp_path / "scratch", source, "copy", make_slowly)
    assert (folder / "x").read_text() == "first"
    assert list((tmp_path / "scratch").iterdir()) == [folder]


def test_a_folder_is_another_when_a_file_in_it_changes(tmp_path):
    (tmp_path / "z" / "sub").mkdir(parents=True)
    (tmp_path / "z" / "sub" / "0").write_text("a")
    before = identity_of(tmp_path / "z")
    assert identity_of(tmp_path / "z") == before
    (tmp_path / "z" / "sub" / "0").write_text("ab")
    assert identity_of(tmp_path / "z") != before


def test_an_array_file_grows_row_by_row(tmp_path):
    with NumpyRows(tmp_path / "a.npy", np.dtype(np.float32), 3) as rows:
        rows.append(np.array([[1, 2, 3]]))
        rows.append(np.array([[4, 5, 6], [7, 8, 9]]))
    read = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert (read.dtype, read.tolist()) == (np.float32, [[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    with NumpyRows(tmp_path / "b.npy", np.dtype(np.int64), None) as rows:
        rows.append(np.arange(5))
    assert np.load(tmp_path / "b.npy").tolist() == [0, 1, 2, 3, 4]
