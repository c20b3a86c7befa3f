"""Vectors as Parquet files of a fixed number of contexts each: the unit of work and of resuming.

    part-00000.parquet    context_id, the labels, vector (fixed-size list<float32>)

A shard depends on its own contexts only, so neither the number of workers nor a kill changes a
byte. Left out: who runs the shards (`actors/embed_job.py`) and what becomes of them (`embed.py`).

Shape suffixes: B contexts of a shard, D hidden size.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from c2s_rl.errors import DataError
from c2s_rl.models.encoder_dtype import EncoderDtype
from c2s_rl.pipeline.embed_contexts import Context, ContextSource
from c2s_rl.types import FloatArray

if TYPE_CHECKING:
    from c2s_rl.models.policy_embedder import PolicyEmbedder

SHARD_CONTEXTS = 1_024  # of 1,000 genes each about a minute of a 410M model on two cores
CONTEXT_ID, VECTOR = "context_id", "vector"

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class EmbedJob:
    """Contexts to embed into one folder; travels to other processes."""

    policy: Path
    """Folder of the policy."""
    dtype: EncoderDtype
    """Precision of the model."""
    batch_tokens: int
    """Tokens of a forward pass."""
    source: ContextSource
    """What is embedded."""
    folder: Path
    """Where the shards are; exists."""
    shard_contexts: int = SHARD_CONTEXTS
    """Contexts of a shard."""

    @property
    def num_shards(self) -> int:
        """Shards of all contexts."""
        return -(-len(self.source) // self.shard_contexts)

    def path(self, shard: int) -> Path:
        """File of a shard."""
        return self.folder / f"part-{shard:05d}.parquet"

    def bounds(self, shard: int) -> tuple[int, int]:
        """First context of a shard, and the one after its last."""
        start = shard * self.shard_contexts
        return start, min(start + self.shard_contexts, len(self.source))


Execute = Callable[[EmbedJob, Sequence[int]], Iterator[int]]
"""Embeds the shards of a job and yields the number of each when it is done, in any order."""


def embed_here(job: EmbedJob, shards: Sequence[int]) -> Iterator[int]:
    """Embed shards in this process."""
    embedder = load_embedder(job)
    for shard in shards:
        embed_shard(embedder, job, shard)
        yield shard


def load_embedder(job: EmbedJob) -> "PolicyEmbedder":
    """Load the policy of a job."""
    from c2s_rl.models.policy_embedder import PolicyEmbedder

    return PolicyEmbedder(job.policy, dtype=job.dtype, batch_tokens=job.batch_tokens)


def embed_shard(embedder: "PolicyEmbedder", job: EmbedJob, shard: int) -> None:
    """Embed the contexts of one shard and write its file, whole or not at all.

    Raises:
        DataError: If a context has no token, or more than the model's positions; names it.
    """
    contexts = job.source.read(*job.bounds(shard))
    vectors = embedder.embed([c.text for c in contexts], [c.context_id for c in contexts])
    table = _as_table(contexts, job.source.label_names, vectors)
    path = job.path(shard)
    partial = path.with_name(f".{path.name}.partial")
    pq.write_table(
        table,
        partial,
        compression="zstd",
        use_dictionary=list(job.source.label_names),
        row_group_size=max(1, len(table)),
    )
    partial.replace(path)


def pending(job: EmbedJob) -> list[int]:
    """Shards that are still to be made; a file that is not whole is one of them."""
    missing: list[int] = []
    for shard in range(job.num_shards):
        start, stop = job.bounds(shard)
        path = job.path(shard)
        if path.is_file() and _num_rows(path) == stop - start:
            continue
        if path.is_file():
            log.warning("making %s again, which is not whole", path.name)
        missing.append(shard)
    return missing


@dataclass(frozen=True, eq=False)
class VectorShard:
    """One shard, read."""

    context_ids: tuple[str, ...]
    """[B]"""
    labels: dict[str, list[str | None]]
    """Label name to [B]; None where missing."""
    vectors_B_D: FloatArray
    """[B, D]"""


def read_shards(job: EmbedJob) -> Iterator[VectorShard]:
    """Read the shards of a job in order, one at a time."""
    for shard in range(job.num_shards):
        table = pq.read_table(job.path(shard))
        column = table[VECTOR].combine_chunks()
        vectors = column.flatten().to_numpy().reshape(len(table), -1)
        yield VectorShard(
            context_ids=tuple(table[CONTEXT_ID].to_pylist()),
            labels={name: table[name].to_pylist() for name in job.source.label_names},
            vectors_B_D=vectors,
        )


def read_vectors(job: EmbedJob) -> FloatArray:
    """Read all vectors of a small job, [C, D]."""
    return np.concatenate([shard.vectors_B_D for shard in read_shards(job)])


def require_free_names(label_names: Sequence[str]) -> None:
    """Check that no label has the name of a column of ours.

    Raises:
        DataError: Naming it.
    """
    for name in label_names:
        if name in {CONTEXT_ID, VECTOR}:
            raise DataError(
                f"a label beside vectors must not be called {CONTEXT_ID} or {VECTOR}, got {name!r}"
            )


def _num_rows(path: Path) -> int | None:
    """Rows of a Parquet file; None if it is none."""
    try:
        rows: int = pq.read_metadata(path).num_rows
    except (pa.ArrowException, OSError):
        return None
    return rows


def _as_table(
    contexts: Sequence[Context], label_names: Sequence[str], vectors_B_D: FloatArray
) -> pa.Table:
    columns: dict[str, pa.Array] = {
        CONTEXT_ID: pa.array([c.context_id for c in contexts], pa.string())
    }
    for place, name in enumerate(label_names):
        texts = [c.labels[place] or None for c in contexts]
        columns[name] = pa.array(texts, pa.string())
    flat = pa.array(np.ascontiguousarray(vectors_B_D, dtype=np.float32).ravel())
    columns[VECTOR] = pa.FixedSizeListArray.from_arrays(flat, vectors_B_D.shape[1])
    return pa.table(columns)
