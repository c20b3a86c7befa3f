"""Encodings by the content they were made from: real cells and reference texts are encoded once.

In memory a cache keeps what was used last. With a folder it also keeps what it is told to on disk,
so that all workers of a run share it: a lock per entry lets one of them encode while others wait.

Shape suffixes: B items, D embedding.
"""

import fcntl
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from c2s_rl.types import FloatArray

ItemT = TypeVar("ItemT")


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
        self.num_hits = 0
        self.num_misses = 0

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
        self.num_misses += len(new)
        self.num_hits += len(keys) - len(new)
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
            self.num_hits += 1
            return self._arrays[key]
        array = self._made_once(key, make)
        self._keep(key, array)
        return array

    def _made_once(self, key: str, make: Callable[[], FloatArray]) -> FloatArray:
        if self._folder is None:
            self.num_misses += 1
            return make()
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{key}.npy"
        with (self._folder / f"{key}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if path.is_file():
                self.num_hits += 1
                return np.load(path)
            self.num_misses += 1
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
