"""Weights through shared memory: two slots, written in turns, read without copying.

A slot is a file on a memory-backed file system: one page of header, then buckets of tensors. The
writer takes the slot that the last reader does not hold, zeroes the header's generation, copies and
sums up the tensors, and writes the new generation last. A reader holds a shared lock on the slot
for as long as it uses views of it, compares generation and checksums, and gets tensors that are
views of its mapping.

Checksum: every 4 KiB page is summed up as 64-bit words modulo 2^64, and CRC-32 runs over the sums.
That finds torn, stale, shifted and flipped data at memory speed, where CRC-32 over all bytes is
several times slower than the copy that it guards; words that change places inside one page would
pass.
Needs torch and numpy; never vLLM, which patches model classes in the process that imports it. Only
the writer imports numba, which vLLM's process cannot stand.
"""

import fcntl
import itertools
import math
import mmap
import os
import struct
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from actors.weight_source import NamedTensors, TensorMeta, WeightSource
from c2s_rl.errors import DeadlineError, WeightSyncError
from c2s_rl.grpo.roles import BucketSpec, PublishedWeights, TensorSpec
from c2s_rl.models.policy import DTYPES

PAGE = 4096
HEADER = struct.Struct("<8sQQ")  # magic, generation (0 while it is written), version
MAGIC = b"c2srlw02"
CHUNK = 2048 * PAGE  # one unit of work for a thread: large against Python's overhead
LOCK_POLL_S = 0.005
NUM_SLOTS = 2

Bytes = npt.NDArray[np.uint8]
Sums = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class SlotLayout:
    """Where everything lies in a slot."""

    buckets: tuple[BucketSpec, ...]
    """With checksum 0: it is known only once the bucket is written."""
    num_bytes: int
    """Size of the file, header included."""


def plan_layout(buckets: Sequence[Sequence[TensorMeta]]) -> SlotLayout:
    """Lay tensors out one after the other, each on whole pages."""
    offset = PAGE
    planned: list[BucketSpec] = []
    for bucket in buckets:
        start = offset
        specs: list[TensorSpec] = []
        for meta in bucket:
            dtype = str(meta.dtype).removeprefix("torch.")
            specs.append(TensorSpec(meta.name, dtype, meta.shape, offset))
            offset = _up(offset + meta.num_bytes, PAGE)
        planned.append(BucketSpec(start, offset - start, 0, tuple(specs)))
    return SlotLayout(tuple(planned), offset)


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def page_sums(pages: Bytes, sums: Sums) -> None:
    """Sum up whole pages as little-endian 64-bit words; one sum a page, modulo 2^64.

    Args:
        pages: Whole pages.
        sums: One entry a page, overwritten.
    """
    np.add.reduce(pages.view(np.uint64).reshape(-1, PAGE // 8), axis=1, out=sums)


class Crew:
    """Threads that share out numbered work; numpy lets go of the interpreter while it copies."""

    def __init__(self, num_threads: int) -> None:
        self._num_helpers = num_threads - 1  # the caller works too
        self._pool = ThreadPoolExecutor(max(1, self._num_helpers))

    def run(self, work: Callable[[int], None], num_items: int) -> None:
        """Do `work(0)` ... `work(num_items - 1)`, each once, in any order."""
        numbers = itertools.count()  # drawing from it is atomic: whoever is free takes the next

        def draw() -> None:
            while (number := next(numbers)) < num_items:
                work(number)

        helpers = [self._pool.submit(draw) for _ in range(min(self._num_helpers, num_items - 1))]
        draw()
        for helper in helpers:
            helper.result()


class SharedWriter:
    """The learner's side: publishes into two slots in turns."""

    def __init__(self, folder: Path, *, deadline_s: float, num_threads: int) -> None:
        """Start with empty slots.

        Args:
            folder: On a memory-backed file system; its slots are replaced.
            deadline_s: Longest wait for a reader to let go of a slot.
            num_threads: Copy and sum up in this many threads.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._paths = [folder / f"slot-{index}" for index in range(NUM_SLOTS)]
        for path in self._paths:
            # A new file, not a new content: a reader of the former one keeps it whole.
            path.unlink(missing_ok=True)
        self._deadline_s = deadline_s
        self._crew = Crew(num_threads)
        self._mappings: dict[Path, Bytes] = {}
        self._generation = 0
        self._metadata: list[list[TensorMeta]] = []
        self._layout = plan_layout([])

    def publish(self, source: WeightSource, version: int) -> PublishedWeights:
        """Write one version.

        Raises:
            DeadlineError: If a reader still holds the slot of the version before the last.
            WeightSyncError: If shared memory is full.
        """
        self._generation += 1
        path = self._paths[self._generation % NUM_SLOTS]
        metadata = source.bucket_metadata()
        if metadata is not self._metadata:
            self._metadata, self._layout = metadata, plan_layout(metadata)
        layout = self._layout
        content = self._mapping(path, layout.num_bytes)
        buckets: list[BucketSpec] = []
        with _locked(path, fcntl.LOCK_EX, self._deadline_s):
            HEADER.pack_into(content.data, 0, MAGIC, 0, version)
            for spec, tensors in zip(layout.buckets, source.buckets(), strict=True):
                checksum = self._write(content, spec, tensors)
                buckets.append(BucketSpec(spec.offset, spec.num_bytes, checksum, spec.tensors))
            HEADER.pack_into(content.data, 0, MAGIC, self._generation, version)
        return PublishedWeights(
            version, str(path), generation=self._generation, buckets=tuple(buckets)
        )

    def _write(self, content: Bytes, spec: BucketSpec, tensors: NamedTensors) -> int:
        """Copy a bucket and return its checksum."""
        from actors.copy_kernel import copy_pages

        sums: Sums = np.empty(spec.num_bytes // PAGE, dtype=np.uint64)
        raws = [_bytes_of(tensor) for _, tensor in tensors]
        pieces = [
            (tensor_spec.offset, raw, start)
            for tensor_spec, raw in zip(spec.tensors, raws, strict=True)
            for start in range(0, len(raw), CHUNK)
        ]

        def copy(index: int) -> None:
            offset, raw, start = pieces[index]
            source = raw[start : start + CHUNK]
            first = offset + start
            target = content[first : first + _up(len(source), PAGE)]
            page = (first - spec.offset) // PAGE
            # what does not fill a word goes ahead, so that the kernel finds it when it sums up
            num_whole = len(source) // 8 * 8
            target[num_whole : len(source)] = source[num_whole:]
            copy_pages(
                target.view(np.uint64),
                source[:num_whole].view(np.uint64),
                sums[page : page + len(target) // PAGE],
            )

        self._crew.run(copy, len(pieces))
        return zlib.crc32(sums.tobytes())

    def _mapping(self, path: Path, num_bytes: int) -> Bytes:
        if path in self._mappings and len(self._mappings[path]) >= num_bytes:
            return self._mappings[path]
        path.unlink(missing_ok=True)
        with path.open("w+b") as file:
            try:
                # A file that only claims its size would kill the writer when memory runs out.
                os.posix_fallocate(file.fileno(), 0, num_bytes)
            except OSError as error:
                path.unlink()
                raise WeightSyncError(
                    f"shared memory must hold {NUM_SLOTS} copies of the weights, got {error} for "
                    f"{num_bytes / 2**20:.0f} MiB in {path.parent}"
                ) from error
            self._mappings[path] = np.frombuffer(mmap.mmap(file.fileno(), 0), dtype=np.uint8)
        return self._mappings[path]


def _bytes_of(tensor: torch.Tensor) -> Bytes:
    # Flat first: torch cannot reinterpret a tensor without dimensions.
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    raw: Bytes = flat.view(torch.uint8).numpy()
    # part of a larger buffer, it may start within a 64-bit word, where no word can be read
    return raw if flat.data_ptr() % 8 == 0 else raw.copy()


class SharedReader:
    """The rollout worker's side; keeps its mappings, for building one costs as much as reading."""

    def __init__(self, *, deadline_s: float, num_threads: int) -> None:
        self._deadline_s = deadline_s
        self._crew = Crew(num_threads)
        self._mappings: dict[str, tuple[int, Bytes]] = {}
        self._held = ExitStack()

    def acquire(
        self, location: str, generation: int, buckets: Sequence[BucketSpec]
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """Check a published version and give its tensors.

        The slot is held until `release`; what was held before is let go.

        Args:
            location: Path of the slot.
            generation: What its header must say.
            buckets: Its layout.

        Returns:
            (name, tensor) pairs; views of the slot, valid until `release`.

        Raises:
            DeadlineError: If the writer does not let go of the slot.
            WeightSyncError: If the slot holds another generation or its bytes were altered.
        """
        self.release()
        self._held.enter_context(_locked(Path(location), fcntl.LOCK_SH, self._deadline_s))
        try:
            content = self._mapping(location)
            self._check(content, location, generation, buckets)
        except WeightSyncError:
            self.release()
            raise
        return _views(content, buckets)

    def release(self) -> None:
        """Let the writer have the slot again; views of it must not be used any more."""
        self._held.close()

    def _check(
        self, content: Bytes, location: str, generation: int, buckets: Sequence[BucketSpec]
    ) -> None:
        num_bytes = max((b.offset + b.num_bytes for b in buckets), default=PAGE)
        magic, found, _version = HEADER.unpack_from(content.data)
        if magic != MAGIC or len(content) < num_bytes or found != generation:
            raise WeightSyncError(
                f"published weights must be generation {generation} in {num_bytes} bytes, got "
                f"generation {found} in {len(content)} bytes in {location}"
            )
        for index, bucket in enumerate(buckets):
            checksum = self._checksum(content[bucket.offset : bucket.offset + bucket.num_bytes])
            if checksum != bucket.checksum:
                raise WeightSyncError(
                    "published weights must arrive unaltered: expected checksum "
                    f"{bucket.checksum} of bucket {index}, got {checksum} in {location}"
                )

    def _checksum(self, pages: Bytes) -> int:
        sums: Sums = np.empty(len(pages) // PAGE, dtype=np.uint64)

        def add_up(index: int) -> None:
            first, last = index * CHUNK, min((index + 1) * CHUNK, len(pages))
            page_sums(pages[first:last], sums[first // PAGE : last // PAGE])

        self._crew.run(add_up, -(-len(pages) // CHUNK))
        return zlib.crc32(sums.tobytes())

    def _mapping(self, location: str) -> Bytes:
        inode = Path(location).stat().st_ino
        if location not in self._mappings or self._mappings[location][0] != inode:
            with Path(location).open("rb") as file:
                # Copy-on-write: torch wants writable memory, the slot stays as it is. Pages that
                # nobody writes to show what the writer puts into the slot later; one that was
                # written to would not, and the checksum finds it.
                buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            self._mappings[location] = (inode, np.frombuffer(buffer, dtype=np.uint8))
        return self._mappings[location][1]


def _views(content: Bytes, buckets: Sequence[BucketSpec]) -> Iterator[tuple[str, torch.Tensor]]:
    whole = torch.from_numpy(content)
    flat_by_dtype = {torch.uint8: whole}  # a slot is whole pages: every dtype divides it
    for bucket in buckets:
        for spec in bucket.tensors:
            dtype = DTYPES[spec.dtype]
            if dtype not in flat_by_dtype:
                flat_by_dtype[dtype] = whole.view(dtype)
            start = spec.offset // dtype.itemsize
            stop = start + math.prod(spec.shape)
            yield spec.name, flat_by_dtype[dtype][start:stop].view(spec.shape)


@contextmanager
def _locked(path: Path, kind: int, deadline_s: float) -> Iterator[None]:
    """Hold a lock on a slot; the kernel drops it when its holder dies."""
    with path.open("rb") as file:
        end = time.monotonic() + deadline_s
        while True:
            try:
                fcntl.flock(file, kind | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= end:
                    raise DeadlineError(
                        f"{_other_side(kind)} must let go of {path} within {deadline_s:g} s, got "
                        f"it held by process {_holders(path) or 'unknown'}"
                    ) from None
                time.sleep(LOCK_POLL_S)
        yield


def _other_side(kind: int) -> str:
    return "rollout workers" if kind == fcntl.LOCK_EX else "the learner"


def _holders(path: Path) -> str:
    """Process ids that hold a lock on a file, from the kernel's list of locks."""
    locks = Path("/proc/locks")
    lines = locks.read_text(encoding="utf-8").splitlines() if locks.is_file() else []
    inode = str(path.stat().st_ino)
    # "1: FLOCK ADVISORY WRITE <pid> <major>:<minor>:<inode> 0 EOF"
    fields = [line.split() for line in lines]
    return ", ".join(f[4] for f in fields if len(f) > 5 and f[5].split(":")[-1] == inode)
