"""The command line as a process: the script `c2s-rl`, and `python -m c2s_rl` in Ray jobs."""

from c2s_rl.cli import main
from c2s_rl.leaving import run_and_leave


def run() -> None:
    """Run the command line and end the process with its status, whatever libraries left behind."""
    run_and_leave(main)


if __name__ == "__main__":
    run()
