"""Watching a plug-in's process from outside: its time, its memory, and the processes it starts.

Memory is resident memory, summed over the process and its descendants: limits on address space do
not suit PyTorch, which reserves far more than it uses. Pages that they share count for each.
"""

import contextlib
import os
import signal
import subprocess
import threading
import time
from types import TracebackType
from typing import Self

import psutil

from rewards.base import FailureKind, RewardFailure

# How often a call under way is looked at: a leak of 1 GB/s overshoots its limit by 50 MB.
POLL_S = 0.05
# Descendants are found by reading all of /proc, which takes milliseconds.
FAMILY_POLL_S = 1.0
# Signals need no longer than this to end a process, unless it waits for a disk.
END_S = 10.0


class Family:
    """A process that leads a session of its own, and all that descend from it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        """Take a process that was started with `start_new_session`."""
        self._process = process
        self._head = psutil.Process(process.pid)
        self._others: frozenset[psutil.Process] = frozenset()
        self._looked_at = time.monotonic()
        self._lock = threading.Lock()

    @property
    def is_alive(self) -> bool:
        """Whether the first process runs."""
        if self._process.returncode is not None:
            return False
        # WNOWAIT: a dead process keeps its number until `end` has ended its session
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        try:
            return os.waitid(os.P_PID, self._process.pid, options) is None
        except ChildProcessError:  # `end` has just waited for it, on another thread
            return False

    def wait_end(self, timeout_s: float) -> None:
        """Give the first process time to end by itself, so that it tells why."""
        end = time.monotonic() + timeout_s
        while self.is_alive and time.monotonic() < end:
            time.sleep(0.01)

    def memory_bytes(self) -> int:
        """Resident memory of all of them."""
        if time.monotonic() - self._looked_at > FAMILY_POLL_S:
            self._look()
        return sum(_resident(member) for member in (self._head, *self._others))

    def end(self) -> None:
        """End all of them, and wait for the first."""
        with self._lock:
            if self._process.returncode is not None:
                return
            for _ in range(2):  # again, for one that was started between looking and killing
                # one that left the session is known by its ancestors, as long as these live
                self._look()
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)
                for member in self._others:
                    with contextlib.suppress(psutil.Error):
                        member.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(END_S)

    def _look(self) -> None:
        self._looked_at = time.monotonic()
        with contextlib.suppress(psutil.Error):
            self._others |= frozenset(self._head.children(recursive=True))


class ProcessWatch:
    """Ends a family that takes too long or too much; a context manager around one exchange."""

    def __init__(self, family: Family, name: str, *, deadline_s: float, max_bytes: float) -> None:
        """Take what is watched.

        Args:
            family: Of the process.
            name: Names the reward in messages.
            deadline_s: Longest time from entering to leaving, s.
            max_bytes: Most resident memory.
        """
        self._family = family
        self._name = name
        self._deadline_s = deadline_s
        self._max_bytes = max_bytes
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="reward-watch", daemon=True)
        self.verdict: RewardFailure | None = None

    def __enter__(self) -> Self:
        self._end = time.monotonic() + self._deadline_s
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._is_over.wait(max(0.0, min(POLL_S, self._end - time.monotonic()))):
            self.verdict = self._judge()
            if self.verdict or not self._family.is_alive:
                # a dead process too: one that it forked may hold the pipe open
                self._family.end()
                return

    def _judge(self) -> RewardFailure | None:
        num_bytes = self._family.memory_bytes()
        if num_bytes > self._max_bytes:
            return RewardFailure(
                FailureKind.MEMORY,
                f"a reward must take at most memory_gib={self._max_bytes / 2**30:g}, got "
                f"{num_bytes / 2**30:.2f} GiB in reward {self._name!r}; its process was ended",
            )
        if time.monotonic() >= self._end:
            return RewardFailure(
                FailureKind.DEADLINE,
                "a reward must answer within its share of deadline_s, got no answer in "
                f"{self._deadline_s:.3g} s from reward {self._name!r}; its process was ended",
            )
        return None


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0
