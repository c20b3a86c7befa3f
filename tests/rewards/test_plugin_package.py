"""The template package: installed by pip, used from YAML by name, its own test passing."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.conftest import PROJECT

TEMPLATE = PROJECT / "tests" / "plugin_template"

RUN = """
name: x
corpus: {tasks: [cell_generation]}
align: {task: cell_generation, num_steps: 10}
rewards: [{name: marker_share, options: {markers: [CD3D, CD3E, IL7R]}}]
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """Folder of the installed template, and of its source beside it."""
    folder = tmp_path_factory.mktemp("template")
    source, target = folder / "source", folder / "installed"
    # a copy: building leaves files behind
    shutil.copytree(TEMPLATE, source, ignore=shutil.ignore_patterns("__pycache__"))
    options = "--quiet --no-build-isolation --no-deps --no-index --disable-pip-version-check"
    run(folder, "-m", "pip", "install", *options.split(), "--target", target, source)
    return target


def run(installed, *arguments, code=0):
    """Run Python where the package is installed; what it printed."""
    paths = [str(installed), str(PROJECT), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "COLUMNS": "200", "NO_COLOR": "1"},
        cwd=installed,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def test_pip_installs_one_module_and_its_entry_point(package):
    assert (package / "marker_share.py").read_text() == (TEMPLATE / "marker_share.py").read_text()
    (entry_points,) = package.glob("marker_share-*.dist-info/entry_points.txt")
    assert "marker_share = marker_share:MarkerShare" in entry_points.read_text()


def test_the_command_line_lists_and_shows_it(package):
    listed = run(package, "-m", "c2s_rl", "rewards", "list")
    (line,) = [line for line in listed.splitlines() if line.startswith("marker_share")]
    assert "group" in line
    assert "package marker-share" in line
    assert "Share of some marker genes" in line
    shown = run(package, "-m", "c2s_rl", "rewards", "show", "marker_share")
    assert "markers" in shown
    assert "list of str" in shown
    assert "- name: marker_share" in shown


def test_a_run_names_it_in_yaml(package, tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text(RUN)
    code = f"""
from pathlib import Path
from actors.run_config import load_run
from rewards.composite import build_reward
(spec,) = load_run(Path({str(config)!r}), []).rewards
print(type(build_reward(spec)).__name__, build_reward(spec).markers)
"""
    assert run(package, "-c", code).strip() == "MarkerShare ('CD3D', 'CD3E', 'IL7R')"


def test_its_own_test_passes(package):
    source = package.parent / "source"
    arguments = ("-m", "pytest", "-q", "-p", "no:cacheprovider", source)
    assert "1 passed" in run(package, *arguments)


def test_the_readme_shows_the_same_code():
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    code = (TEMPLATE / "marker_share.py").read_text(encoding="utf-8")
    assert code in readme
