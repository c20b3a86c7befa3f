"""Expected seconds of a step by part: a roofline with stated efficiencies.

Prefill and learner are bound by arithmetic: FLOPs / (devices x peak x MFU).
Decoding is bound by memory: an engine step makes one token for each of its B running sequences and
reads all weights once and each sequence's KV (P + C / 2 tokens in the mean):
    max(bytes / (bandwidth x share), FLOPs / (peak x MFU)) + exchanges + overhead.
Exchanges of tensor parallelism: two all-reduces a layer (arXiv:1909.08053 section 3).
Rings move (W - 1) / W of the data past each device for a gather or a reduce-scatter and twice that
for an all-reduce (arXiv:1910.02054 section 7). Left out: rewards, which are scored on other
processors while engines still generate, and the load of checkpoints.
"""

import math
from dataclasses import dataclass, fields

from c2s_rl.plan.assumptions import Assumptions
from c2s_rl.plan.flops import (
    LearnerFlops,
    backbone_flops,
    continuation,
    group_extent,
    head_flops,
    learner_flops,
)
from c2s_rl.plan.hardware import GIGA, Cluster
from c2s_rl.plan.memory import (
    PREFILL_TOKENS,
    kv_bytes,
    optimiser_bytes,
    trained_parameters,
)
from c2s_rl.plan.shape import ModelShape
from c2s_rl.plan.workload import Method, MicroBatches, Workload


@dataclass(frozen=True)
class Job:
    """Everything that is fixed before devices are shared out."""

    shape: ModelShape
    workload: Workload
    method: Method
    cluster: Cluster
    assumptions: Assumptions
    max_num_seqs: int = 256
    """Completions that an engine decodes at once, at most."""
    gpu_memory_utilization: float = 0.9
    """Share of a GPU that an engine alone on it may take."""
    cpu_kv_bytes: float = 2 * GIGA
    """KV cache of an engine on a CPU."""

    def learner_rate(self) -> float:
        """FLOP/s of one learner device."""
        peak = self.cluster.device.peak_flops_per_s(self.method.element_bytes)
        return peak * self.assumptions.learner_mfu

    def prefill_rate(self) -> float:
        """FLOP/s of one engine device where arithmetic binds."""
        peak = self.cluster.device.peak_flops_per_s(self.method.element_bytes)
        return peak * self.assumptions.prefill_mfu

    def memory_rate(self) -> float:
        """Bytes/s from a device's memory."""
        return self.cluster.device.memory_bytes_per_s * self.assumptions.memory_share

    def ring_rate(self, num_devices: int) -> float:
        """Bytes/s around a ring of devices."""
        return self.cluster.ring_bytes_per_s(num_devices) * self.assumptions.link_share


@dataclass(frozen=True)
class RolloutSeconds:
    """Generation of a step."""

    prefill: float
    decode: float

    @property
    def total(self) -> float:
        """Sum of the parts."""
        return self.prefill + self.decode


def rollout_seconds(
    job: Job, *, num_engines: int, tensor_parallel: int, concurrency: int
) -> RolloutSeconds:
    """Time the busiest engine.

    It answers ceil(prompts / engines) groups. With B of its n sequences running at a time it takes
    ceil(n C / B) steps, and never fewer than C.

    Args:
        job: Model, work and rates.
        num_engines: Engines that share the prompts.
        tensor_parallel: Devices of an engine.
        concurrency: B, sequences that it has room for.
    """
    work, shape, e = job.workload, job.shape, job.method.element_bytes
    groups = math.ceil(work.num_prompts / num_engines)
    sequences = groups * work.group_size
    prompt = backbone_flops(shape, continuation(shape, 0, work.prompt_tokens))
    prefill = groups * prompt / (tensor_parallel * job.prefill_rate())
    running = min(concurrency, sequences)
    steps = max(work.completion_tokens, math.ceil(sequences * work.completion_tokens / running))
    seconds = engine_step_seconds(job, tensor_parallel=tensor_parallel, running=running)
    num_chunks = math.ceil(groups * work.prompt_tokens / PREFILL_TOKENS)
    # Weights are read at least once a prefill pass, which binds for few prompt tokens.
    floor = num_chunks * shape.num_parameters * e / tensor_parallel / job.memory_rate()
    return RolloutSeconds(prefill=max(prefill, floor), decode=steps * seconds)


def engine_step_seconds(job: Job, *, tensor_parallel: int, running: int) -> float:
    """One token for each running sequence, at half of the mean completion."""
    work, shape, e = job.workload, job.shape, job.method.element_bytes
    context = work.prompt_tokens + work.completion_tokens // 2
    weights = shape.num_parameters * e
    read = weights + running * kv_bytes(shape, e, context)
    token = backbone_flops(shape, continuation(shape, context - 1, context))
    flops = running * (token + head_flops(shape, 1, shape.vocabulary))
    busy = max(
        read / (tensor_parallel * job.memory_rate()), flops / (tensor_parallel * job.prefill_rate())
    )
    exchange = 0.0
    if tensor_parallel > 1:
        moved = 2 * (tensor_parallel - 1) / tensor_parallel * running * shape.hidden * e
        hop = moved / job.ring_rate(tensor_parallel) + job.assumptions.hop_us * 1e-6
        exchange = 2 * shape.num_layers * hop
    return busy + exchange + job.assumptions.engine_overhead_ms * 1e-3


@dataclass(frozen=True)
class LearnSeconds:
    """Learning of a step on the busiest rank."""

    forward: float
    backward: float
    recompute: float
    reference: float
    head: float
    exchange: float
    """Gradients and weights between ranks, beyond what hides behind arithmetic."""
    optimiser: float

    @property
    def total(self) -> float:
        """Sum of the parts."""
        parts: list[float] = [vars(self)[field.name] for field in fields(self)]
        return sum(parts)


def rank_flops(job: Job, batches: MicroBatches) -> LearnerFlops:
    """FLOPs of the busiest rank in a step."""
    work = job.workload
    group = group_extent(job.shape, work, num_prompt_copies=batches.copies_per_group)
    scored = batches.num_groups * work.group_size * work.completion_tokens
    return learner_flops(job.shape, job.method, group.times(batches.num_groups), scored)


def learn_seconds(job: Job, num_ranks: int, batches: MicroBatches) -> LearnSeconds:
    """Time the busiest rank.

    Exchange: ZeRO-0 and 1 all-reduce the gradients once, after the last backward pass; ZeRO-2
    reduces them after every micro-batch and gathers weights once; ZeRO-3 also gathers the weights
    for each forward (policy, reference by the adapter switched off) and backward pass. From ZeRO-2
    on they run beside the arithmetic, and only what is longer than it counts.
    Optimiser: gradient, moments and master weights read, all but the gradient written back, and the
    new weights: e + 2 x states a trained parameter, / W where sharded.

    Args:
        job: Model, work and rates.
        num_ranks: W.
        batches: Of the busiest rank.
    """
    flops = rank_flops(job, batches)
    rate = job.learner_rate()
    arithmetic = flops.total / rate
    exchange = exchange_seconds(job, num_ranks, batches.num_micro_batches)
    if job.method.zero_stage >= 2:
        exchange = max(0.0, exchange - arithmetic)
    trained = trained_parameters(job.shape, job.method)
    moved = 2 * optimiser_bytes(job.method, trained) + 2 * trained * job.method.element_bytes
    shards = num_ranks if job.method.zero_stage >= 1 else 1
    return LearnSeconds(
        forward=flops.forward / rate,
        backward=flops.backward / rate,
        recompute=flops.recompute / rate,
        reference=flops.reference / rate,
        head=flops.head / rate,
        exchange=exchange,
        optimiser=moved / shards / job.memory_rate(),
    )


def exchange_seconds(job: Job, num_ranks: int, num_micro_batches: int) -> float:
    """All that ranks send each other in a step, hidden or not."""
    if num_ranks == 1:
        return 0.0
    method, e = job.method, job.method.element_bytes
    gradients = trained_parameters(job.shape, method) * e
    weights = job.shape.num_parameters * e
    if method.zero_stage <= 1:
        moved = 2.0 * gradients
    elif method.zero_stage == 2:
        moved = float(gradients * (num_micro_batches + 1))
    else:
        passes = 2 + (method.has_reference and method.lora_rank is not None)
        moved = float(num_micro_batches * (gradients + passes * weights))
    return moved * (num_ranks - 1) / num_ranks / job.ring_rate(num_ranks)


def sync_bytes(job: Job) -> int:
    """What an engine is sent after a step: all weights, or the adapters."""
    return trained_parameters(job.shape, job.method) * job.method.element_bytes


def sync_seconds(job: Job, num_ranks: int, *, num_devices: int, is_local: bool) -> float:
    """Gather the shards (ZeRO-3), then send them.

    Local (same device, by IPC): one copy, read and written. Otherwise a broadcast through a
    pipelined ring over learner and engine devices: the bytes pass each link once.

    Args:
        job: Model and rates.
        num_ranks: W.
        num_devices: Of learner and engines together.
        is_local: Engines share the learner's devices.
    """
    moved = sync_bytes(job)
    gather = 0.0
    if job.method.zero_stage == 3 and num_ranks > 1:
        gather = moved * (num_ranks - 1) / num_ranks / job.ring_rate(num_ranks)
    if is_local:
        return gather + 2 * moved / job.memory_rate()
    return gather + moved / job.ring_rate(num_devices)
