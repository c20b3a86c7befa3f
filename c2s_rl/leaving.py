"""How a process that used Ray ends: after Python's clean-up, before C++ destructors."""

import atexit
import logging
import os
import sys
from collections.abc import Callable

BUG = 1


def skip_destructors(status: Callable[[], int]) -> None:
    """From now on, if Ray gets imported, the process ends without running C++ destructors.

    `ray.shutdown()` leaves native threads behind (the clients of its control store, gRPC's timers
    and event engines). A normal exit destroys the static objects they work on, and now and then
    one of them touches such an object: the process of a run that had written everything then dies
    of a segmentation fault. Ray ends its own workers in the same way. Python's threads are joined
    and exit handlers run as always; call this before others register theirs, so that it comes last.

    Args:
        status: Asked at the very end: with what the process exits.
    """

    def leave() -> None:
        if "ray" not in sys.modules:
            return
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status())

    atexit.register(leave)


def run_and_leave(command: Callable[[], None]) -> None:
    """Run a command as the whole of a process that ends as `skip_destructors` says.

    Args:
        command: What to run. It may raise `SystemExit`, whose code becomes the process's.
    """
    status = BUG
    skip_destructors(lambda: status)
    try:
        command()
    except SystemExit as end:
        status = _status(end)
        raise
    status = 0


def _status(end: SystemExit) -> int:
    """What the interpreter makes of an exit: None is success, text is a failure that it prints."""
    if end.code is None:
        return 0
    return end.code if isinstance(end.code, int) else BUG
