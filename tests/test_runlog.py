"""Metrics survive a kill; the manifest says what a run was made from."""

import json
import math
import subprocess
from pathlib import Path

import pytest

from c2s_rl.errors import DataError
from c2s_rl.runlog import RunLog, git_state, package_versions, read_metrics, write_manifest


def test_one_json_object_a_step(tmp_path: Path) -> None:
    with RunLog(tmp_path, use_tensorboard=False) as log:
        log.log(0, {"reward_mean": 0.5, "kl": 0.0})
        log.log(1, {"reward_mean": 0.75})
        # Flushed: readable while the run still goes on.
        assert (tmp_path / "metrics.jsonl").read_text() == (
            '{"step": 0, "reward_mean": 0.5, "kl": 0.0}\n{"step": 1, "reward_mean": 0.75}\n'
        )


def test_not_a_number_is_null_in_the_file_and_comes_back(tmp_path: Path) -> None:
    with RunLog(tmp_path, use_tensorboard=False) as log:
        log.log(0, {"kl": math.nan, "loss": math.inf})
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 0, "kl": null, "loss": null}\n'
    assert math.isnan(read_metrics(tmp_path / "metrics.jsonl")[0]["kl"])


def test_resume_cuts_back_to_the_steps_before_it(tmp_path: Path) -> None:
    with RunLog(tmp_path, use_tensorboard=False) as log:
        for step in range(4):
            log.log(step, {"loss": step / 8})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # cut by a kill
    with RunLog(tmp_path, start_step=2, use_tensorboard=False) as log:
        log.log(2, {"loss": 9.0})
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [(row["step"], row["loss"]) for row in rows] == [(0, 0.0), (1, 0.125), (2, 9.0)]


def test_fresh_start_forgets_former_metrics(tmp_path: Path) -> None:
    for _ in range(2):
        with RunLog(tmp_path, use_tensorboard=False) as log:
            log.log(0, {"loss": 1.0})
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "must be a JSON object of numbers, got '{' in line 2"),
        ("[1]", r"must be a JSON object of numbers, got '\[1\]' in line 2"),
        ('{"loss": 1}', "must name their step"),
    ],
)
def test_broken_line_inside_is_an_error_with_its_number(
    tmp_path: Path, line: str, message: str
) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 0}}\n{line}\n{{"step": 1}}\n')
    with pytest.raises(DataError, match=message):
        read_metrics(path)


def test_figure_called_step_is_refused(tmp_path: Path) -> None:
    with (
        RunLog(tmp_path, use_tensorboard=False) as log,
        pytest.raises(ValueError, match="must not be called 'step', got 3"),
    ):
        log.log(0, {"step": 3})


def test_tensorboard_mirrors_the_figures(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with RunLog(tmp_path) as log:
        log.log(0, {"reward/kendall": 0.25})
        log.log(1, {"reward/kendall": 0.5})
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    scalars = events.Scalars("reward/kendall")
    assert [(event.step, event.value) for event in scalars] == [(0, 0.25), (1, 0.5)]


def test_manifest_holds_versions_seed_and_hashes(tmp_path: Path) -> None:
    path = write_manifest(tmp_path, seed=7, config_text="abc", data_hashes={"a.h5ad": "00ff"})
    content = json.loads(path.read_text())
    assert content["seed"] == 7
    # SHA-256 of 'abc', the test vector of FIPS 180-2.
    assert content["config_sha256"].startswith("ba7816bf8f01cfea414140de5dae2223")
    assert content["data_sha256"] == {"a.h5ad": "00ff"}
    assert content["packages"]["numpy"] == package_versions(("numpy",))["numpy"]
    assert str(Path.home()) not in path.read_text()


def test_absent_packages_are_left_out() -> None:
    assert package_versions(("c2s-rl-no-such-package",)) == {}


def test_git_state_tells_clean_from_dirty(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    assert git_state(tmp_path) is None
    git("init")
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-m", "one")
    commit = git("rev-parse", "HEAD")
    assert git_state(tmp_path) == {"commit": commit, "is_dirty": False}
    (tmp_path / "file").write_text("2")
    assert git_state(tmp_path) == {"commit": commit, "is_dirty": True}
