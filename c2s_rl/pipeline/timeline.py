"""Who worked when: seconds that each phase of a step was busy, and how much of it was side by side.

Phases are entered and left from any thread; a phase counts once however many calls of it are under
way. Left out: what each of several workers of a phase does.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Timeline:
    """Busy seconds by phase since the last `lap`."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        """Start the first lap.

        Args:
            now: A clock that never goes back, seconds.
        """
        self._now = now
        self._lock = threading.Lock()
        self._under_way: defaultdict[str, int] = defaultdict(int)
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._last = now()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the length of the block."""
        self.enter(name)
        try:
            yield
        finally:
            self.leave(name)

    def enter(self, name: str) -> None:
        """One more piece of work of a phase begins."""
        with self._lock:
            self._advance()
            self._under_way[name] += 1

    def leave(self, name: str) -> None:
        """One piece of work of a phase ends."""
        with self._lock:
            self._advance()
            self._under_way[name] -= 1

    def lap(self) -> dict[str, float]:
        """Return the figures since the last lap and start the next.

        Returns:
            `seconds_<phase>` of every phase ever seen; `seconds_step` from lap to lap;
            `seconds_<phase>_alone`, in which it was busy and no other: what the step waited for it;
            `seconds_overlap`, what phases side by side saved: their sum less the time in which any
            was busy; `seconds_idle`, in which none was.
        """
        with self._lock:
            self._advance()
            alone = (f"{phase}_alone" for phase in self._under_way)
            names = ("step", "overlap", "idle", *self._under_way, *alone)
            figures = {f"seconds_{name}": self._seconds[name] for name in names}
            self._seconds.clear()
        return figures

    def _advance(self) -> None:
        now = self._now()
        passed, self._last = now - self._last, now
        busy = [name for name, count in self._under_way.items() if count]
        for name in ("step", *busy):
            self._seconds[name] += passed
        if len(busy) == 1:
            self._seconds[f"{busy[0]}_alone"] += passed
        self._seconds["overlap"] += passed * max(0, len(busy) - 1)
        self._seconds["idle"] += 0.0 if busy else passed
