"""Tokenised samples on their way to shards: sorted runs, and the slice of them that a shard takes.

An epoch's order is that of a hash of prompt id, copy and seed. Samples are read in the order of the
corpus and shown in the order of their keys, and neither fits in memory. So each corpus file leaves
one Arrow file here with one or more runs, each sorted by key; a shard is a range of keys, gathered
from all runs. Needs as much disk as the shards again, for as long as it takes to write them.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from c2s_rl.types import IntArray

KEY_END = 2**64
# What a sample takes in memory beside its tokens, counted in tokens of 4 bytes.
SAMPLE_COST = 64

SCHEMA = pa.schema(
    [
        ("stream", pa.int16()),
        ("key", pa.uint64()),
        ("task", pa.int16()),
        ("num_prompt", pa.int32()),
        ("ids", pa.large_list(pa.int32())),  # 64-bit offsets: a run may hold 2^31 tokens
    ]
)


@dataclass(frozen=True, eq=False)
class KeyedSample:
    """A sample's tokens and its place."""

    stream: int
    """Which order it belongs to: 0 the training rows, 1 + task code the eval rows of a task."""
    key: int
    """Place in that order, 64 bits."""
    task: int
    """Code of its task."""
    num_prompt: int
    """Leading tokens that are not learnt."""
    ids: IntArray
    """All of its tokens."""


def write_runs(path: Path, samples: Iterable[KeyedSample], *, run_tokens: int) -> None:
    """Write samples as sorted runs of some `run_tokens` tokens."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
        run: list[KeyedSample] = []
        num_tokens = 0
        for sample in samples:
            run.append(sample)
            num_tokens += len(sample.ids) + SAMPLE_COST
            if num_tokens >= run_tokens:
                writer.write_batch(_to_batch(run))
                run, num_tokens = [], 0
        if run:
            writer.write_batch(_to_batch(run))


def gather(
    paths: Sequence[Path], stream: int, first_key: int = 0, end_key: int = KEY_END
) -> list[KeyedSample]:
    """Collect the samples of one stream within a range of keys, sorted by key.

    Args:
        paths: What `write_runs` wrote.
        stream: Order that the samples belong to.
        first_key: Smallest key that is taken.
        end_key: Key behind the last one that is taken.
    """
    found = [sample for path in paths for sample in _slices(path, stream, first_key, end_key)]
    # Equal keys, one pair in 2^64, are put in an order that the files' order does not change.
    return sorted(found, key=lambda sample: (sample.key, sample.task, len(sample.ids)))


def _to_batch(run: Sequence[KeyedSample]) -> pa.RecordBatch:
    ordered = sorted(run, key=lambda sample: (sample.stream, sample.key))
    ends = np.cumsum([len(sample.ids) for sample in ordered], dtype=np.int64)
    ids = pa.LargeListArray.from_arrays(
        np.concatenate([[0], ends]), np.concatenate([sample.ids for sample in ordered])
    )
    columns = [
        np.array([sample.stream for sample in ordered], dtype=np.int16),
        np.array([sample.key for sample in ordered], dtype=np.uint64),
        np.array([sample.task for sample in ordered], dtype=np.int16),
        np.array([sample.num_prompt for sample in ordered], dtype=np.int32),
    ]
    return pa.RecordBatch.from_arrays([*map(pa.array, columns), ids], schema=SCHEMA)


def _slices(path: Path, stream: int, first_key: int, end_key: int) -> Iterator[KeyedSample]:
    with pa.memory_map(str(path)) as source:
        reader = pa.ipc.open_file(source)
        for i in range(reader.num_record_batches):
            yield from _slice(reader.get_batch(i), stream, first_key, end_key)


def _slice(
    batch: pa.RecordBatch, stream: int, first_key: int, end_key: int
) -> Iterator[KeyedSample]:
    streams: npt.NDArray[np.int16] = batch["stream"].to_numpy()
    start, end = np.searchsorted(streams, [stream, stream + 1])
    keys: npt.NDArray[np.uint64] = batch["key"].to_numpy()[start:end]
    low = np.searchsorted(keys, np.uint64(first_key))
    high = np.searchsorted(keys, np.uint64(end_key - 1), side="right")
    tasks, prompts = batch["task"].to_numpy(), batch["num_prompt"].to_numpy()
    offsets, ids = batch["ids"].offsets.to_numpy(), batch["ids"].values.to_numpy()
    for row in range(start + low, start + high):
        yield KeyedSample(
            stream=stream,
            key=int(keys[row - start]),
            task=int(tasks[row]),
            num_prompt=int(prompts[row]),
            # A copy: the file is not mapped for longer than this.
            ids=ids[offsets[row] : offsets[row + 1]].copy(),
        )
