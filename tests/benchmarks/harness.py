"""What every benchmark shares: sides in processes of their own, in turns, and one form of result.

A benchmark module has `main()`; called with `--side NAME` it measures one side in this process and
prints one JSON object, else it runs all sides and prints one line per result. Its `results(quick)`
does the same for `python -m tests.benchmarks`.
Ratios are what is claimed; absolute times are noise on shared cores.
"""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]

Figures = dict[str, float]


@dataclass(frozen=True)
class Result:
    """One line of the benchmark table."""

    what: str
    against: str
    workload: str
    """Shapes, model, threads: enough to measure it again."""
    ratio: float
    """As `bound` reads it: how many times faster, or the share of the peer's memory or time."""
    bound: float
    is_upper: bool = False
    """True where the ratio must stay at or below the bound."""

    @property
    def is_reached(self) -> bool:
        return self.ratio <= self.bound if self.is_upper else self.ratio >= self.bound

    def __str__(self) -> str:
        sign = "<=" if self.is_upper else ">="
        word = "reached" if self.is_reached else "MISSED"
        return (
            f"{self.what} against {self.against}: {self.ratio:.2f} "
            f"({word}, {sign} {self.bound:g}) [{self.workload}]"
        )


def peak_megabytes() -> float:
    """Most memory that this process has had.

    Not `ru_maxrss`: that begins with what the parent had when it started this process.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return float(line.split()[1]) / 1024


def table(results: Sequence[Result]) -> str:
    """One row a result, without its workload."""
    rows = [("what", "against", "ratio", "bound", "")]
    for result in results:
        sign = "<=" if result.is_upper else ">="
        word = "reached" if result.is_reached else "MISSED"
        rows.append(
            (result.what, result.against, f"{result.ratio:.2f}", f"{sign} {result.bound:.3g}", word)
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def run_side(
    module: str, side: str, options: Sequence[str] = (), env: Mapping[str, str] | None = None
) -> Figures:
    """Measure one side in its own process; its last line of output is its JSON object."""
    done = subprocess.run(
        [sys.executable, "-m", module, "--side", side, *options],
        cwd=PROJECT,
        env={**os.environ, **(env or {})},
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise RuntimeError(f"side {side!r} of {module} must exit 0, got {done.returncode}:\n"
                           f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}")  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def in_turns(
    module: str,
    sides: Sequence[str],
    *,
    rounds: int,
    options: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
) -> dict[str, Figures]:
    """Measure the sides A B A B ... and return the median of each figure."""
    measured: dict[str, list[Figures]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side in sides:
            measured[side].append(run_side(module, side, options, env))
    return {
        side: {key: statistics.median(r[key] for r in runs) for key in runs[0]}
        for side, runs in measured.items()
    }


def report(results: Sequence[Result], output: Path | None = None) -> None:
    """Print results, and keep them as JSON lines where a file is named."""
    for result in results:
        print(result)
    if output is not None:
        with output.open("a", encoding="utf-8") as file:
            for result in results:
                file.write(json.dumps(asdict(result)) + "\n")
