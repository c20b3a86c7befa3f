"""Encodings by the content they were made from: real cells and reference texts are encoded once.

In memory a cache keeps what was used last. With a folder it also keeps what it is told to on disk,
so that all workers of a run share it: a lock per entry lets one of them encode while others wait.

Shape suffixes: B items, D embedding.
"""

import fcntl
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from c2s_rl.types import FloatArray

ItemT = TypeVar("ItemT")


@dataclass
class CacheCounts:
    """Look-ups of all caches of this process; its owner reads the difference of two moments."""

    num_hits: int = 0
    num_misses: int = 0

    def add(self, *, hits: int = 0, misses: int = 0) -> None:
        """Count further look-ups."""
        self.num_hits += hits
        self.num_misses += misses


PROCESS_COUNTS = CacheCounts()


def content_key(*parts: bytes) -> str:
    """Hash the parts, their borders included."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


class EncodingCache:
    """Arrays by content key, least recently used ones forgotten first."""

    def __init__(self, max_items: int = 100_000, folder: Path | None = None) -> None:
        """Start empty.

        Args:
            max_items: Arrays kept in memory.
            folder: Where `shared` keeps arrays for other processes and later runs; created.
        """
        self._arrays: OrderedDict[str, FloatArray] = OrderedDict()
        self._max_items = max_items
        self._folder = folder
        self._counts = CacheCounts()

    @property
    def num_hits(self) -> int:
        """Look-ups that found their array."""
        return self._counts.num_hits

    @property
    def num_misses(self) -> int:
        """Arrays that had to be made."""
        return self._counts.num_misses

    def _count(self, *, hits: int = 0, misses: int = 0) -> None:
        for counts in (self._counts, PROCESS_COUNTS):
            counts.add(hits=hits, misses=misses)

    def encode(
        self,
        items: Sequence[ItemT],
        keys: Sequence[str],
        encode: Callable[[Sequence[ItemT]], Sequence[FloatArray]],
    ) -> list[FloatArray]:
        """Look up every item and encode those that are new, each once, in one call.

        Args:
            items: [B] what to encode.
            keys: [B] `content_key` of each, of everything that its encoding depends on.
            encode: Makes the arrays of the items it is given, in their order.

        Returns:
            [B] arrays in the order of `items`.
        """
        new = {key: i for i, key in enumerate(keys) if key not in self._arrays}
        self._count(hits=len(keys) - len(new), misses=len(new))
        found = {key: self._arrays[key] for key in keys if key not in new}
        if new:
            made = encode([items[i] for i in new.values()])
            found |= dict(zip(new, made, strict=True))
        for key, array in found.items():
            self._keep(key, array)
        return [found[key] for key in keys]

    def shared(self, key: str, make: Callable[[], FloatArray]) -> FloatArray:
        """Return one array, made once by all processes that share the folder.

        Args:
            key: `content_key` of everything that the array depends on.
            make: Makes it where neither memory nor the folder has it.
        """
        if key in self._arrays:
            self._count(hits=1)
            return self._arrays[key]
        array = self._made_once(key, make)
        self._keep(key, array)
        return array

    def _made_once(self, key: str, make: Callable[[], FloatArray]) -> FloatArray:
        if self._folder is None:
            self._count(misses=1)
            return make()
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{key}.npy"
        with (self._folder / f"{key}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if path.is_file():
                self._count(hits=1)
                kept: FloatArray = np.load(path)
                return kept
            self._count(misses=1)
            array = make()
            partial = path.with_suffix(".partial")
            with partial.open("wb") as file:
                np.save(file, array)
            partial.replace(path)
        return array

    def _keep(self, key: str, array: FloatArray) -> None:
        self._arrays[key] = array
        self._arrays.move_to_end(key)
        while len(self._arrays) > self._max_items:
            self._arrays.popitem(last=False)
