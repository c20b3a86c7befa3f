"""Plug-ins with every kind of failure, for the processes that rewards run in.

Imported by those processes too, so it must load quickly.
"""

import asyncio
import ctypes
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

from c2s_rl.config import FrozenConfig
from c2s_rl.models.encoding_cache import EncodingCache, content_key
from rewards.base import RewardResult, RewardScope

# What a call comes to that meets a bad completion: it never returns scores for the good ones.
RETURNED = {
    "none": None,
    "list": [1.0, 2.0],
    "short": RewardResult((1.0,)),
    "no_scores": RewardResult(None),
    "no_names": RewardResult((1.0, 1.0), 3),
}
# The score of a bad completion; the good ones of its call have theirs.
SCORES = {"nan": float("nan"), "inf": float("-inf"), "text": "2.0", "huge": 10**400}


def leak():
    blocks = []
    while True:
        blocks.append(np.ones(4_000_000))  # 32 MB, written to
        time.sleep(0.01)


def hang_with_children():
    subprocess.Popen(["sleep", "600"])
    subprocess.Popen(["sleep", "600"], start_new_session=True)
    time.sleep(600)


def crash_with_children():
    if os.fork() == 0:
        time.sleep(600)  # holds the pipe open
    os._exit(7)


ACTIONS = {
    "hang": lambda: time.sleep(600),
    "hang_with_children": hang_with_children,
    "crash_with_children": crash_with_children,
    "exit": lambda: os._exit(7),
    "sys_exit": lambda: sys.exit(3),
    "segfault": lambda: ctypes.string_at(0),
    "leak": leak,
    "raise": lambda: 1 / 0,
}


class MoodyOptions(FrozenConfig):
    trouble: str = "raise"


class Moody:
    """Counts words; completions that hold the word BAD get it into trouble."""

    scope = RewardScope.GROUP
    Options = MoodyOptions

    def __init__(self, options):
        self._trouble = options.trouble

    def score(self, batch):
        samples = list(batch.samples())
        scores = [float(sample.cell.num_words) for sample in samples]
        bad = [i for i, sample in enumerate(samples) if "BAD" in sample.text]
        if bad and self._trouble in RETURNED:
            return RETURNED[self._trouble]
        if bad and self._trouble in ACTIONS:
            ACTIONS[self._trouble]()
        for i in bad:
            scores[i] = SCORES[self._trouble]
        return RewardResult(tuple(scores), {"length": tuple(float(len(s.text)) for s in samples)})


class MoodyPopulation(Moody):
    """Counts the words of the whole condition."""

    scope = RewardScope.CONDITION

    def score(self, batch):
        counts = super().score(batch)
        return RewardResult((sum(counts.scores),) * len(batch))


class AsyncMoody(Moody):
    """Scores in an event loop."""

    async def score(self, batch):
        await asyncio.sleep(0)
        if any("STUCK" in sample.text for sample in batch.samples()):
            await asyncio.sleep(600)
        return super().score(batch)


class Noisy(Moody):
    """Prints, changes folders and leaves a thread behind."""

    def score(self, batch):
        print("{" * 100_000)  # noqa: T201
        os.write(1, b"\x00" * 1000)
        os.chdir("/")
        threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
        return super().score(batch)


class Once(Moody):
    """Fails on the first call that it ever sees, in whatever process, and not again."""

    class Options(FrozenConfig):
        file: Path

    def __init__(self, options):
        self._file = options.file

    def score(self, batch):
        if not self._file.exists():
            self._file.touch()
            os._exit(7)
        return RewardResult((float(len(batch)),) * len(batch))


class Cached(Moody):
    """Looks every text up."""

    def __init__(self, options):
        super().__init__(options)
        self._cache = EncodingCache()

    def score(self, batch):
        texts = [sample.text for sample in batch.samples()]
        keys = [content_key(text.encode()) for text in texts]
        lengths = self._cache.encode(texts, keys, lambda new: [np.float32([len(t)]) for t in new])
        return RewardResult(tuple(float(length[0]) for length in lengths))


class Crowd(Moody):
    """Breaks its promise: scores depend on how many completions are in the call."""

    def score(self, batch):
        return RewardResult((1.0 / len(batch),) * len(batch))


class Unbuildable(Moody):
    """Cannot be loaded."""

    def __init__(self, options):
        raise OSError("no weights")
