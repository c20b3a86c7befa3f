"""The ledger of stages: reuse, continue, refuse, replace."""

import pytest

from actors.stages import StageKey, StageLedger
from c2s_rl.errors import DataError, StageError


@pytest.fixture
def ledger(tmp_path):
    return StageLedger(tmp_path)


def key(**changes):
    values = {"stage": "sft", "sections": {"sft": {"lr": 0.1}}, "upstream": {"corpus": "abc"}}
    return StageKey(**(values | changes))


def test_a_new_stage_runs_and_a_finished_one_is_reused(ledger, tmp_path):
    output = tmp_path / "sft"
    assert ledger.begin(key(), output, overwrite=False)
    with ledger.running(key(), output):
        output.mkdir()
    assert not ledger.begin(key(), output, overwrite=False)
    assert ledger.fingerprint("sft") == key().fingerprint


def test_a_killed_stage_goes_on_with_what_it_left(ledger, tmp_path):
    output = tmp_path / "sft"
    ledger.begin(key(), output, overwrite=False)
    output.mkdir()
    (output / "checkpoint").write_text("kept")
    assert ledger.fingerprint("sft") is None
    assert ledger.begin(key(), output, overwrite=False)
    assert (output / "checkpoint").read_text() == "kept"


def test_a_finished_stage_whose_output_was_deleted_runs_again(ledger, tmp_path):
    ledger.begin(key(), tmp_path / "sft", overwrite=False)
    with ledger.running(key(), tmp_path / "sft"):
        pass
    assert ledger.begin(key(), tmp_path / "sft", overwrite=False)


def test_another_config_is_refused_and_what_is_there_stays(ledger, tmp_path):
    output = tmp_path / "sft"
    ledger.begin(key(), output, overwrite=False)
    output.mkdir()
    changed = key(sections={"sft": {"lr": 0.2}})
    with pytest.raises(StageError, match=r"got sft\.lr 0\.1 -> 0\.2; choose another name"):
        ledger.begin(changed, output, overwrite=False)
    assert output.is_dir()


def test_a_stage_that_failed_before_it_wrote_anything_takes_another_config(ledger, tmp_path):
    output = tmp_path / "corpus"
    ledger.begin(key(), output, overwrite=False)
    assert ledger.begin(key(sections={"sft": {"lr": 0.2}}), output, overwrite=False)
    assert ledger.fingerprint("sft") is None


def test_work_that_was_begun_beside_the_output_is_not_given_up_for_another_config(ledger, tmp_path):
    output = tmp_path / "cells"
    ledger.begin(key(), output, overwrite=False)
    (tmp_path / ".cells.work").mkdir()
    with pytest.raises(StageError, match=r"got sft\.lr 0\.1 -> 0\.2; choose another name"):
        ledger.begin(key(sections={"sft": {"lr": 0.2}}), output, overwrite=False)


def test_another_input_is_refused_by_its_stage(ledger, tmp_path):
    (tmp_path / "sft").mkdir()
    ledger.begin(key(), tmp_path / "new", overwrite=False)
    with pytest.raises(StageError, match="got another output of corpus"):
        ledger.begin(key(upstream={"corpus": "xyz"}), tmp_path / "sft", overwrite=False)


def test_a_folder_that_no_stage_wrote_is_never_taken(ledger, tmp_path):
    (tmp_path / "sft").mkdir()
    with pytest.raises(StageError, match="got no record of one"):
        ledger.begin(key(), tmp_path / "sft", overwrite=False)


def test_overwrite_replaces_a_folder_or_a_file(ledger, tmp_path):
    folder, file = tmp_path / "folder", tmp_path / "file"
    folder.mkdir()
    file.write_text("x")
    assert ledger.begin(key(stage="a"), folder, overwrite=True)
    assert ledger.begin(key(stage="b"), file, overwrite=True)
    assert not folder.exists()
    assert not file.exists()


CHANGED = {"sections": {"sft": {"lr": 0.2}}}


def make(ledger, output, text, *, overwrite=False, **changes):
    """Do a stage that writes one file."""
    assert ledger.begin(key(**changes), output, overwrite=overwrite)
    with ledger.running(key(**changes), output):
        output.mkdir()
        (output / "weights").write_text(text)


def test_what_is_overwritten_is_kept_until_its_successor_is_done(ledger, tmp_path):
    output = tmp_path / "sft"
    make(ledger, output, "first")
    assert ledger.begin(key(**CHANGED), output, overwrite=True)
    assert not output.exists()
    assert (tmp_path / ".former-sft" / "weights").read_text() == "first"
    with ledger.running(key(**CHANGED), output):
        output.mkdir()
    assert ledger.fingerprint("sft") == key(**CHANGED).fingerprint
    names = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
    assert names == {"sft", "stages", "stages/sft.json"}


def test_what_was_overwritten_comes_back_if_the_successor_fails_before_it_writes(ledger, tmp_path):
    output = tmp_path / "sft"
    make(ledger, output, "first")
    assert ledger.begin(key(**CHANGED), output, overwrite=True)
    with pytest.raises(DataError), ledger.running(key(**CHANGED), output):
        raise DataError("no such column")
    assert (output / "weights").read_text() == "first"
    assert not ledger.begin(key(), output, overwrite=False)  # done, as before


def _interrupted(output):
    output.mkdir()
    raise KeyboardInterrupt


def test_a_successor_that_wrote_something_goes_on_and_the_finished_one_waits(ledger, tmp_path):
    output = tmp_path / "sft"
    make(ledger, output, "first")
    for changes in (CHANGED, {"sections": {"sft": {"lr": 0.3}}}):
        assert ledger.begin(key(**changes), output, overwrite=True)
        with pytest.raises(KeyboardInterrupt), ledger.running(key(**changes), output):
            _interrupted(output)
    assert ledger.fingerprint("sft") is None
    assert (tmp_path / ".former-sft" / "weights").read_text() == "first"
    assert output.is_dir()


def test_a_file_of_another_version_is_suspected_and_noted_when_it_is_the_same(ledger, tmp_path):
    first = {"inputs": {"a.h5ad": "monday", "b.h5ad": "monday"}}
    assert ledger.suspects(key(**first)) == []  # nothing is done yet
    make(ledger, tmp_path / "cells", "first", **first)
    assert ledger.suspects(key(**first)) == []
    touched = key(inputs={"a.h5ad": "tuesday"})  # and b.h5ad is gone, of which nothing is known
    assert ledger.suspects(touched) == ["a.h5ad"]
    assert not ledger.begin(touched, tmp_path / "cells", overwrite=False)  # the same contents
    both = {"a.h5ad": "tuesday", "b.h5ad": "monday"}
    assert ledger.suspects(key(inputs=both)) == []


def test_other_contents_are_refused_and_replaced_on_demand(ledger, tmp_path):
    output = tmp_path / "cells"
    make(ledger, output, "first")
    with pytest.raises(StageError, match=r"got other contents of a\.h5ad; choose another name"):
        ledger.begin(key(), output, overwrite=False, changed=["a.h5ad"])
    assert ledger.begin(key(), output, overwrite=True, changed=["a.h5ad"])
    assert not output.exists()


def test_stages_after_one_that_read_other_files_are_not_reused(ledger, tmp_path):
    """Two outputs of one config are told apart by their manifests."""
    output = tmp_path / "cells"
    make(ledger, output, "first")
    seen = {ledger.fingerprint("sft")}
    for text in ("one", "two"):
        assert ledger.begin(key(), output, overwrite=True, changed=["a.h5ad"])
        with ledger.running(key(), output):
            output.mkdir()
            (output / "manifest.json").write_text(text)
        seen.add(ledger.fingerprint("sft"))
    assert len(seen) == 3
