"""Checkpoints are whole or not there."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from c2s_rl import checkpoint
from c2s_rl.checkpoint import atomic_folder, clean_leftovers, latest_checkpoint, prune, verify
from c2s_rl.errors import CheckpointError

# printf 'abc' | sha256sum: the test vector of FIPS 180-2.
SHA256_ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
# printf 'abd' | sha256sum
SHA256_ABD = "a52d159f262b2c6ddb724a61840befc36eb30c88877a4030b65cbe86298449c9"


def make(root: Path, name: str, text: str = "abc") -> Path:
    with atomic_folder(root / name) as folder:
        (folder / "policy").mkdir()
        (folder / "policy" / "weights.bin").write_text(text)
    return root / name


def test_hashes_list_size_and_sha256_of_every_file(tmp_path: Path) -> None:
    folder = make(tmp_path, "step-1")
    content = json.loads((folder / "hashes.json").read_text())
    assert content == {
        "schema_version": 1,
        "files": {"policy/weights.bin": {"size": 3, "sha256": SHA256_ABC}},
    }
    verify(folder)


def test_nothing_is_in_place_before_the_block_ends(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "step-1") as folder:
        assert folder.parent == tmp_path
        assert not (tmp_path / "step-1").exists()
    assert (tmp_path / "step-1").is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["step-1"]


def test_failed_block_leaves_the_former_folder(tmp_path: Path) -> None:
    make(tmp_path, "step-1", "abc")
    with pytest.raises(IsADirectoryError), atomic_folder(tmp_path / "step-1") as folder:
        folder.write_text("x")  # no text can be written into a folder: the block fails here
    assert [path.name for path in tmp_path.iterdir()] == ["step-1"]
    verify(tmp_path / "step-1")


def test_finished_block_replaces_the_former_folder(tmp_path: Path) -> None:
    make(tmp_path, "step-1", "abc")
    make(tmp_path, "step-1", "other")
    assert (tmp_path / "step-1" / "policy" / "weights.bin").read_text() == "other"
    assert [path.name for path in tmp_path.iterdir()] == ["step-1"]


def test_truncated_file_is_named_with_both_sizes(tmp_path: Path) -> None:
    folder = make(tmp_path, "step-1")
    (folder / "policy" / "weights.bin").write_text("ab")
    with pytest.raises(CheckpointError, match=r"size of 3 bytes, got 2 in .*policy/weights\.bin"):
        verify(folder)


def test_altered_byte_is_named_with_both_hashes(tmp_path: Path) -> None:
    folder = make(tmp_path, "step-1")
    (folder / "policy" / "weights.bin").write_text("abd")
    with pytest.raises(CheckpointError, match=f"{SHA256_ABC}, got {SHA256_ABD} in .*weights.bin"):
        verify(folder)


def test_missing_file_is_named(tmp_path: Path) -> None:
    folder = make(tmp_path, "step-1")
    (folder / "policy" / "weights.bin").unlink()
    with pytest.raises(CheckpointError, match=r"got no .*policy/weights\.bin"):
        verify(folder)


def test_folder_without_hashes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "step-1").mkdir()
    with pytest.raises(CheckpointError, match=re.escape("must hold hashes.json, got none in")):
        verify(tmp_path / "step-1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"schema_ver', "must list sizes and hashes"),
        ("[]", "must list sizes and hashes"),
        ('{"schema_version": 1}', "must list sizes and hashes"),
        ('{"schema_version": 9, "files": {}}', "must have schema_version 1, got 9"),
    ],
)
def test_unreadable_hashes_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "hashes.json").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        verify(tmp_path)


def test_latest_orders_by_number_and_ignores_other_names(tmp_path: Path) -> None:
    for name in ("step-9", "step-10", "step-last", "other-99"):
        make(tmp_path, name)
    assert latest_checkpoint(tmp_path) == tmp_path / "step-10"


def test_latest_passes_over_broken_checkpoints_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (1, 2, 3):
        make(tmp_path, f"step-{step}")
    (tmp_path / "step-3" / "hashes.json").unlink()
    (tmp_path / "step-2" / "policy" / "weights.bin").write_text("abd")
    assert latest_checkpoint(tmp_path) == tmp_path / "step-1"
    assert [record.args[0] for record in caplog.records if record.args] == ["step-3", "step-2"]


def test_latest_of_nothing_is_none(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path / "absent") is None


def test_prune_keeps_the_newest_whole_ones(tmp_path: Path) -> None:
    for step in (1, 2, 10, 11):
        make(tmp_path, f"step-{step}")
    (tmp_path / "step-11" / "hashes.json").unlink()  # broken: neither counted nor deleted
    assert prune(tmp_path, 2) == [tmp_path / "step-1"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-10", "step-11", "step-2"]


def test_prune_refuses_to_delete_all(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 1 checkpoint must be kept, got keep=0"):
        prune(tmp_path, 0)


def test_leftovers_are_removed_and_interrupted_replacement_is_undone(tmp_path: Path) -> None:
    make(tmp_path, "step-1").rename(tmp_path / ".step-1.replaced-7")
    make(tmp_path, "step-2")
    (tmp_path / ".step-2.replaced-7").mkdir()
    (tmp_path / ".step-3.partial-7").mkdir()
    gone = [path.name for path in clean_leftovers(tmp_path)]
    assert gone == [".step-1.replaced-7", ".step-2.replaced-7", ".step-3.partial-7"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-1", "step-2"]
    verify(tmp_path / "step-1")


WRITER = """
import sys, time
from pathlib import Path
from c2s_rl.checkpoint import atomic_folder
with atomic_folder(Path(sys.argv[1])) as folder:
    (folder / "weights.bin").write_text("half")
    time.sleep(60)
"""


def test_sigkill_while_writing_leaves_no_checkpoint(tmp_path: Path) -> None:
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / "step-1")])
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob(".step-1.partial-*/weights.bin")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    assert latest_checkpoint(tmp_path) is None
    make(tmp_path, "step-1")
    assert [path.name for path in tmp_path.iterdir()] == ["step-1"]


def test_sha256_of_known_text(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("abc")
    assert checkpoint.sha256_of(tmp_path / "x") == SHA256_ABC


def test_a_flush_that_was_begun_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("abc")
    checkpoint.start_flush(tmp_path / "x")
    assert checkpoint.hash_file(tmp_path / "x") == checkpoint.FileHash(3, SHA256_ABC)
