"""Figures of a batch plan: parts of a step with FLOPs and seconds, and all of it as JSON."""

from dataclasses import asdict, dataclass

from pydantic import JsonValue

from c2s_rl.plan.batch_plan import BatchPlan
from c2s_rl.plan.flops import LearnerFlops, group_extent, learner_flops, rollout_flops
from c2s_rl.plan.layouts import LayoutPlan, Misfit
from c2s_rl.plan.memory import Part, kv_bytes_per_token
from c2s_rl.plan.timing import Job, sync_bytes
from c2s_rl.plan.workload import MicroBatches


@dataclass(frozen=True)
class StepPart:
    """One part of a synchronous step."""

    name: str
    flops: int
    """Of all devices together; 0 for what only moves bytes."""
    seconds: float


def step_learner_flops(job: Job, num_prompt_copies: int) -> LearnerFlops:
    """FLOPs of a step on all ranks, each prompt forwarded so many times."""
    work = job.workload
    extent = group_extent(job.shape, work, num_prompt_copies=num_prompt_copies)
    return learner_flops(
        job.shape, job.method, extent.times(work.num_prompts), work.step_completion_tokens
    )


def padding_ratio(job: Job, batches: MicroBatches) -> float:
    """FLOPs of padded rows over those of the plan's micro-batches; about G (P + C) / (P + G C)."""
    padded = step_learner_flops(job, job.workload.group_size).total
    return padded / step_learner_flops(job, batches.copies_per_group).total


def job_flops(job: Job, batches: MicroBatches) -> int:
    """FLOPs of a step on all devices, rollout and learner."""
    learner = step_learner_flops(job, batches.copies_per_group).total
    return learner + rollout_flops(job.shape, job.workload).total


def step_parts(job: Job, plan: LayoutPlan) -> tuple[StepPart, ...]:
    """The parts of a step in the order in which they happen."""
    rollout = rollout_flops(job.shape, job.workload)
    learner = step_learner_flops(job, plan.batches.copies_per_group)
    learn = plan.learn
    return (
        StepPart("weight sync", 0, plan.sync_seconds),
        StepPart("sleep, wake, offload", 0, plan.switch_seconds),
        StepPart("prefill (prompt once a group)", rollout.prefill, plan.rollout.prefill),
        StepPart("decode", rollout.decode, plan.rollout.decode),
        StepPart("learner forward", learner.forward, learn.forward),
        StepPart("learner backward", learner.backward, learn.backward),
        StepPart("recompute (checkpointing)", learner.recompute, learn.recompute),
        StepPart("reference forward", learner.reference, learn.reference),
        StepPart("head, forward and backward", learner.head, learn.head),
        StepPart("exchange between ranks, not hidden", 0, learn.exchange),
        StepPart("optimiser", 0, learn.optimiser),
    )


def plan_json(plan: BatchPlan) -> dict[str, JsonValue]:
    """The plan for machines: bytes, FLOPs and seconds as plain numbers."""
    job, work = plan.job, plan.job.workload
    best_async = plan.best_async
    return {
        "model": {**asdict(job.shape), "num_parameters": job.shape.num_parameters},
        "cluster": asdict(job.cluster),
        "workload": asdict(work),
        "method": asdict(job.method),
        "assumptions": job.assumptions.model_dump(mode="json"),
        "completions": work.num_completions,
        "packed_tokens": work.packed_tokens,
        "padded_tokens": work.padded_tokens,
        "padded_over_packed_flops": padding_ratio(job, plan.best.batches),
        "kv_bytes_per_token": kv_bytes_per_token(job.shape, job.method.element_bytes),
        "sync_bytes": sync_bytes(job),
        "step_flops": job_flops(job, plan.best.batches),
        "step_parts": [asdict(part) for part in step_parts(job, plan.best)],
        "best": _layout_json(plan.best),
        "best_async": None if best_async is None else _layout_json(best_async),
        "configured": _configured_json(plan.configured),
        "layouts": [_layout_json(each) for each in plan.plans],
        "num_misfits": plan.num_misfits,
    }


def _configured_json(configured: LayoutPlan | Misfit | None) -> JsonValue:
    if isinstance(configured, Misfit):
        return {"misfit": str(configured)}
    return None if configured is None else _layout_json(configured)


def _layout_json(plan: LayoutPlan) -> dict[str, JsonValue]:
    return {
        **asdict(plan.layout),
        "batches": asdict(plan.batches),
        "learner_bytes": _bytes(plan.learner),
        "engine_bytes": _bytes(plan.engine),
        "beside_engine_bytes": plan.beside_bytes,
        "kv_cache_bytes": plan.kv_cache_bytes,
        "num_sequences": plan.num_sequences,
        "rollout_seconds": asdict(plan.rollout),
        "learn_seconds": asdict(plan.learn),
        "sync_seconds": plan.sync_seconds,
        "switch_seconds": plan.switch_seconds,
        "step_seconds": plan.step_seconds,
        "async_step_seconds": plan.async_step_seconds,
    }


def _bytes(parts: tuple[Part, ...]) -> dict[str, JsonValue]:
    return {part.name: part.num_bytes for part in parts}
