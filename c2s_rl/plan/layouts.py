"""Ways to share a cluster between learner ranks and engines, and whether each fits.

Disaggregated: W devices learn, the others generate. Colocated: every device does both in turn, and
either everything stays, or the engine sleeps while the learner works (its weights and KV are freed;
the next sync fills them again), or optimiser states and gradients also move to main memory while
engines generate. An engine spans T devices of a node where T divides its heads.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from c2s_rl.plan.hardware import GIGA
from c2s_rl.plan.memory import (
    Part,
    engine_parts,
    group_kv_bytes,
    kv_bytes,
    learner_parts,
    total_bytes,
)
from c2s_rl.plan.timing import (
    Job,
    LearnSeconds,
    RolloutSeconds,
    learn_seconds,
    rollout_seconds,
    sync_seconds,
)
from c2s_rl.plan.workload import MicroBatches, cut_micro_batches

TENSOR_PARALLEL_SIZES = (1, 2, 4, 8)
# What moves to main memory; weights stay, for they are sent from the device.
OFFLOADED = ("optimiser states", "gradients")
# Main memory that runs may fill; the rest is the system's and Ray's object store.
HOST_SHARE = 0.7


class Sharing(StrEnum):
    """How learner and engine share devices."""

    SPLIT = "split"
    RESIDENT = "colocated"
    SLEEP = "colocated, engine sleeps"
    OFFLOAD = "colocated, engine sleeps, optimiser offloaded"


@dataclass(frozen=True)
class Layout:
    """Who runs where."""

    sharing: Sharing
    num_ranks: int
    """Learner devices."""
    num_engines: int
    tensor_parallel: int
    """Devices of an engine."""

    def __str__(self) -> str:
        engines = f"{self.num_engines} engine{'s' if self.num_engines > 1 else ''}"
        size = f" of {self.tensor_parallel} devices" if self.tensor_parallel > 1 else ""
        ranks = f"{self.num_ranks} learner rank{'s' if self.num_ranks > 1 else ''}"
        return f"{ranks}, {engines}{size}, {self.sharing}"


@dataclass(frozen=True)
class LayoutPlan:
    """A layout that fits, per device and per step."""

    layout: Layout
    batches: MicroBatches
    """Of the busiest rank."""
    learner: tuple[Part, ...]
    """Of a learner rank's device."""
    engine: tuple[Part, ...]
    """Of an engine's device, without its KV cache."""
    beside_bytes: float
    """What of the learner is on an engine's device while it generates."""
    kv_cache_bytes: float
    """Room for KV on an engine's device."""
    num_sequences: int
    """Completions that an engine decodes at once."""
    rollout: RolloutSeconds
    learn: LearnSeconds
    sync_seconds: float
    """Sending the weights."""
    switch_seconds: float
    """Sleeping, waking and offloading."""

    @property
    def step_seconds(self) -> float:
        """Synchronous: one part after the other; streaming can only make it shorter."""
        return self.rollout.total + self.learn.total + self.sync_seconds + self.switch_seconds

    @property
    def async_step_seconds(self) -> float | None:
        """Rollout and learner side by side, the longer counts; None where they share devices."""
        if self.layout.sharing is not Sharing.SPLIT:
            return None
        return max(self.rollout.total, self.learn.total) + self.sync_seconds


@dataclass(frozen=True)
class Misfit:
    """A layout that does not fit."""

    layout: Layout
    where: str
    """'a learner rank' or 'an engine'."""
    parts: tuple[Part, ...]
    """What is to be held there."""
    capacity_bytes: float
    """What there is."""

    @property
    def excess(self) -> float:
        """Need / capacity."""
        return total_bytes(self.parts) / max(self.capacity_bytes, 1.0)

    def __str__(self) -> str:
        """Name the largest part."""
        largest = max(self.parts, key=lambda part: part.num_bytes)
        return (
            f"{largest.name} need {largest.num_bytes / GIGA:.1f} GB of the "
            f"{total_bytes(self.parts) / GIGA:.1f} GB on {self.where} ({self.layout}), "
            f"got {self.capacity_bytes / GIGA:.1f} GB of room"
        )


def possible_layouts(job: Job) -> Iterator[Layout]:
    """All ways to share out the cluster; a CPU's processes share its one device."""
    total = job.cluster.num_devices
    if job.cluster.device.is_cpu:
        yield Layout(Sharing.RESIDENT, total, total, 1)
        return
    for size in TENSOR_PARALLEL_SIZES:
        heads = (job.shape.num_heads, job.shape.num_kv_heads)
        if job.cluster.devices_per_node % size or any(num % size for num in heads):
            continue
        for sharing in (Sharing.RESIDENT, Sharing.SLEEP, Sharing.OFFLOAD):
            yield Layout(sharing, total, total // size, size)
        for num_ranks in range(1, total):
            if (total - num_ranks) % size == 0:
                yield Layout(Sharing.SPLIT, num_ranks, (total - num_ranks) // size, size)


def plan_layout(job: Job, layout: Layout) -> LayoutPlan | Misfit:
    """Fit a layout and time it."""
    batches = cut_micro_batches(job.workload, job.method, layout.num_ranks)
    learner = learner_parts(job.shape, job.workload, job.method, layout.num_ranks, batches)
    engine = engine_parts(
        job.shape,
        job.method.element_bytes,
        tensor_parallel=layout.tensor_parallel,
        max_num_seqs=job.max_num_seqs,
    )
    room = job.cluster.device.memory_bytes - job.assumptions.reserve_gb * GIGA
    if total_bytes(learner) > room:
        return Misfit(layout, "a learner rank", learner, room)
    moved = _offloaded(layout, learner)
    host_room = HOST_SHARE * job.cluster.host_memory_bytes / job.cluster.devices_per_node
    if total_bytes(moved) > host_room:
        return Misfit(layout, "main memory, per device", moved, host_room)
    beside = _beside_engine(layout, learner)
    e = job.method.element_bytes
    longest = job.workload.prompt_tokens + job.workload.max_completion_tokens
    least = Part("KV of one completion", kv_bytes(job.shape, e, longest) / layout.tensor_parallel)
    engine_room = _engine_room(job, layout, room)
    held = (*engine, *beside, least)
    if total_bytes(held) > engine_room:
        return Misfit(layout, "an engine", held, engine_room)
    cache = engine_room - total_bytes(engine) - total_bytes(beside)
    if job.cluster.device.is_cpu:
        cache = min(cache, job.cpu_kv_bytes)
        if least.num_bytes > cache:
            return Misfit(layout, "an engine's KV cache (rollout.kv_cache_gib)", (least,), cache)
    fitting = int(cache * layout.tensor_parallel // group_kv_bytes(job.shape, job.workload, e))
    concurrency = max(1, min(job.max_num_seqs, fitting))
    memory = _Memory(learner, engine, moved, total_bytes(beside), cache)
    return _timed(job, layout, batches, memory, concurrency)


@dataclass(frozen=True)
class _Memory:
    """What has been worked out about bytes."""

    learner: tuple[Part, ...]
    engine: tuple[Part, ...]
    moved: tuple[Part, ...]
    """Offloaded while engines generate."""
    beside: float
    cache: float


def _timed(
    job: Job, layout: Layout, batches: MicroBatches, memory: _Memory, concurrency: int
) -> LayoutPlan:
    switch = 0.0
    if layout.sharing in {Sharing.SLEEP, Sharing.OFFLOAD}:
        # Out and in again, over the link to main memory.
        link = job.cluster.device.host_link_bytes_per_s * job.assumptions.link_share
        switch = job.assumptions.wake_s + 2 * total_bytes(memory.moved) / link
    return LayoutPlan(
        layout=layout,
        batches=batches,
        learner=memory.learner,
        engine=memory.engine,
        beside_bytes=memory.beside,
        kv_cache_bytes=memory.cache,
        num_sequences=concurrency,
        rollout=rollout_seconds(
            job,
            num_engines=layout.num_engines,
            tensor_parallel=layout.tensor_parallel,
            concurrency=concurrency,
        ),
        learn=learn_seconds(job, layout.num_ranks, batches),
        sync_seconds=sync_seconds(
            job,
            layout.num_ranks,
            num_devices=job.cluster.num_devices,
            is_local=layout.sharing is not Sharing.SPLIT,
        ),
        switch_seconds=switch,
    )


def _offloaded(layout: Layout, learner: Sequence[Part]) -> tuple[Part, ...]:
    if layout.sharing is not Sharing.OFFLOAD:
        return ()
    return tuple(part for part in learner if part.name in OFFLOADED)


def _beside_engine(layout: Layout, learner: Sequence[Part]) -> tuple[Part, ...]:
    """What of the learner is on an engine's device while it generates."""
    if layout.sharing is Sharing.SPLIT:
        return ()
    if layout.sharing is Sharing.RESIDENT:
        return tuple(learner)
    kept = (part for part in learner if part.is_state)
    if layout.sharing is Sharing.OFFLOAD:
        return tuple(part for part in kept if part.name not in OFFLOADED)
    return tuple(kept)


def _engine_room(job: Job, layout: Layout, room_bytes: float) -> float:
    """Bytes that engine and what stays beside it may take; vLLM's own limit where it is alone."""
    if layout.sharing is not Sharing.SPLIT:
        return room_bytes
    return min(room_bytes, job.gpu_memory_utilization * job.cluster.device.memory_bytes)
