"""Runs of the command line that must end with one line and leave nothing half-made."""

import json
from pathlib import Path

import pytest

from c2s_rl.cli import main


class Refused:
    """Runs `c2s-rl convert` where it must end with one line."""

    def __init__(self, folder: Path, capsys, monkeypatch) -> None:
        self.folder, self._capsys, self._monkeypatch = folder, capsys, monkeypatch
        self._num_runs = 0

    def __call__(self, path: Path, *words: str, **options: object) -> str:
        """Return the line; it has a rule, what was got, and all `words`."""
        before = contents(self.folder)
        self._num_runs += 1
        name = f"bad{self._num_runs}"
        config: dict[str, object] = {"name": name, "runs_dir": str(self.folder / "runs")}
        config["convert"] = {"path": str(path), **options}
        file = self.folder / "run.yaml"
        file.write_text(json.dumps(config))
        self._monkeypatch.setattr("sys.argv", ["c2s-rl", "convert", "--config", str(file)])
        with pytest.raises(SystemExit) as stopped:
            main()
        output = self._capsys.readouterr().err
        assert stopped.value.code == 2, output
        lines = [line for line in output.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1
        assert ", got " in lines[0]
        assert [word for word in words if word not in lines[0]] == [], lines[0]
        file.unlink()
        assert not (self.folder / "runs" / name / "cells").exists()
        assert (
            contents(self.folder) == before
        )  # the source is as it was, and nothing lies beside it
        return lines[0]


def contents(folder: Path) -> dict[str, bytes]:
    """All files but those of runs."""
    found = (file for file in folder.rglob("*") if file.is_file())
    names = {file.relative_to(folder): file for file in found}
    return {str(n): file.read_bytes() for n, file in names.items() if n.parts[0] != "runs"}
