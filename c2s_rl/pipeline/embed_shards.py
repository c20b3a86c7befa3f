"""Vectors as Parquet files of a fixed number of contexts each: the unit of work and of resuming.

    part-00000.parquet    context_id, the labels, vector (fixed-size list<float32>)

A shard depends on its own contexts only, so neither the number of workers nor a kill changes a
byte. Left out: who runs the shards (`actors/embed_job.py`) and what becomes of them (`embed.py`).

Shape suffixes: B contexts of a shard, D hidden size.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from c2s_rl.data.parquet_parts import (
    bounds_of,
    missing_parts,
    num_parts,
    part_path,
    read_parts,
    write_part,
)
from c2s_rl.errors import DataError
from c2s_rl.models.encoder_dtype import EncoderDtype
from c2s_rl.pipeline.embed_contexts import Context, ContextSource
from c2s_rl.types import FloatArray

if TYPE_CHECKING:
    from c2s_rl.models.policy_embedder import PolicyEmbedder

SHARD_CONTEXTS = 1_024  # of 1,000 genes each about a minute of a 410M model on two cores
CONTEXT_ID, VECTOR = "context_id", "vector"


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
        return num_parts(self.shard_contexts, len(self.source))

    def path(self, shard: int) -> Path:
        """File of a shard."""
        return part_path(self.folder, shard)

    def bounds(self, shard: int) -> tuple[int, int]:
        """First context of a shard, and the one after its last."""
        return bounds_of(shard, self.shard_contexts, len(self.source))


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
    names = job.source.label_names
    write_part(job.path(shard), _as_table(contexts, names, vectors), dictionary=names)


def pending(job: EmbedJob) -> list[int]:
    """Shards that are still to be made; a file that is not whole is one of them."""
    return missing_parts(job.folder, job.shard_contexts, len(job.source))


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
    for table in read_parts(job.folder, job.shard_contexts, len(job.source)):
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
