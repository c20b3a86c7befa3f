"""Following the metrics.jsonl that another process writes, for progress bars in this one."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

POLL_SECONDS = 0.5  # a step of the smallest model takes about as long

OnMetrics = Callable[[Mapping[str, float | None]], None]


@contextmanager
def followed(path: Path, on_metrics: OnMetrics | None) -> Iterator[None]:
    """Call `on_metrics` with each line that is written while the block runs, in a thread.

    A run that goes on first cuts its file back, that is, replaces it: what stood in the file
    before that is not passed on, and what was kept is passed on once more.

    Args:
        path: The file; it need not exist yet.
        on_metrics: Gets one line's figures; None where a figure is no number. No function: nothing
            is followed.
    """
    if on_metrics is None:
        yield
        return
    stop = threading.Event()
    thread = threading.Thread(
        target=_follow, args=(path, on_metrics, stop, _inode(path)), daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _follow(path: Path, on_metrics: OnMetrics, stop: threading.Event, stale: int | None) -> None:
    current = stale
    offset = 0
    is_last = False
    while not is_last:
        is_last = stop.wait(POLL_SECONDS)
        inode = _inode(path)
        if inode is None or inode == stale:
            continue
        if inode != current:
            current, offset = inode, 0
        with path.open("rb") as file:
            file.seek(offset)
            whole, newline, _ = file.read().rpartition(b"\n")
        offset += len(whole) + len(newline)
        for line in whole.splitlines():
            on_metrics(json.loads(line))


def _inode(path: Path) -> int | None:
    return path.stat().st_ino if path.exists() else None
