"""What the workers of one reward did since the last step: time, waiting, caches, failures.

Shape suffixes: B completions of a call.
"""

import logging
import math
import threading
from collections import Counter
from collections.abc import Sequence

from actors.reward import HostAnswer
from rewards.base import FailureKind

logger = logging.getLogger(__name__)

# Not `reward/`: what is called that are scores, and is drawn as such.
PREFIX = "reward_worker"


class RewardFigures:
    """Counts calls; from any thread."""

    def __init__(self, name: str) -> None:
        """Start the first lap of the reward of that name."""
        self._name = name
        self._lock = threading.Lock()
        self._seen: set[str] = set()
        self._clear()

    def note(self, answer: HostAnswer, waits_s: Sequence[float]) -> None:
        """Count a call.

        Args:
            answer: Of the worker.
            waits_s: How long each of its jobs had waited, seconds.
        """
        self._log_new(answer)
        with self._lock:
            self._seconds.append(answer.seconds)
            self._waits.extend(waits_s)
            self._num["completions"] += len(answer.result.scores)
            self._num["cache_hits"] += answer.cache_hits
            self._num["cache_misses"] += answer.cache_misses
            self._num["restarts"] += answer.num_restarts
            self._kinds.update(failure.kind for failure in answer.result.failures.values())

    def lap(self) -> dict[str, float]:
        """Return the figures since the last lap and start the next.

        Returns:
            'reward_worker/<reward>/<figure>': calls, completions; latency_s and latency_max_s of a
            call with its retries; queue_s and queue_max_s, the waits before calls; cache_hits and
            cache_misses; restarts of processes; failures/<kind>, completions that were given up.
            Times are nan where there was no call.
        """
        with self._lock:
            figures = {
                "calls": float(len(self._seconds)),
                "latency_s": _mean(self._seconds),
                "latency_max_s": max(self._seconds, default=math.nan),
                "queue_s": _mean(self._waits),
                "queue_max_s": max(self._waits, default=math.nan),
            }
            figures |= {name: float(count) for name, count in self._num.items()}
            figures |= {f"failures/{kind}": float(self._kinds[kind]) for kind in FailureKind}
            self._clear()
        return {f"{PREFIX}/{self._name}/{key}": value for key, value in figures.items()}

    def _clear(self) -> None:
        self._seconds: list[float] = []
        self._waits: list[float] = []
        self._num = dict.fromkeys(("completions", "cache_hits", "cache_misses", "restarts"), 0)
        self._kinds: Counter[FailureKind] = Counter()

    def _log_new(self, answer: HostAnswer) -> None:
        """Log every message once, with how many completions it came with first."""
        failures = Counter(str(failure) for failure in answer.result.failures.values())
        messages = {text: f"{text} ({number} completions)" for text, number in failures.items()}
        if answer.warning:
            messages[answer.warning] = answer.warning
        with self._lock:
            new = [text for text in messages if text not in self._seen]
            self._seen.update(new)
        for text in new:
            logger.warning("%s", messages[text])


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
