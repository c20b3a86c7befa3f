"""A process that used Ray keeps its exit status whatever the libraries' destructors do."""

import signal
import subprocess
import sys

import pytest

# `on_exit` registers what C's exit() runs, as the destructors of C++ libraries are.
PROGRAM = """
import atexit, ctypes, sys, types
from c2s_rl.leaving import run_and_leave

def command():
    if {uses_ray}:
        sys.modules["ray"] = types.ModuleType("ray")
    libc = ctypes.CDLL(None)
    libc.on_exit(libc.abort, None)
    atexit.register(print, "cleaned up")
    sys.stdout.write("done, ")
    {ending}

run_and_leave(command)
"""


def run(ending: str, *, uses_ray: bool = True) -> subprocess.CompletedProcess[str]:
    program = PROGRAM.format(ending=ending, uses_ray=uses_ray)
    command = [sys.executable, "-c", program]
    return subprocess.run(command, check=False, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        ("pass", 0),
        ("sys.exit()", 0),
        ("sys.exit(2)", 2),
        ("sys.exit('text')", 1),
        ("raise ValueError('bug')", 1),
    ],
)
def test_status_and_output_are_those_of_the_command(ending: str, status: int) -> None:
    process = run(ending)
    assert (process.returncode, process.stdout) == (status, "done, cleaned up\n")


def test_a_traceback_is_printed() -> None:
    assert "ValueError: bug" in run("raise ValueError('bug')").stderr


def test_without_ray_the_process_ends_as_usual() -> None:
    assert run("pass", uses_ray=False).returncode == -signal.SIGABRT
