"""The batch plan of a run: the fastest layout that fits, or why none does and what would.

The command is `c2s-rl plan`; the arithmetic is in the modules beside this one, each with its
formulas in the docstring.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations

from c2s_rl.errors import PlanError
from c2s_rl.plan.layouts import Layout, LayoutPlan, Misfit, plan_layout, possible_layouts
from c2s_rl.plan.timing import Job
from c2s_rl.plan.workload import Method

SUGGESTED_RANK = 16
MOST_NODES = 64


@dataclass(frozen=True)
class BatchPlan:
    """All that is said about a run."""

    job: Job
    best: LayoutPlan
    """Fastest synchronous step."""
    best_async: LayoutPlan | None
    """Fastest asynchronous step; None where there is one device only."""
    plans: tuple[LayoutPlan, ...]
    """All layouts that fit, fastest synchronous step first."""
    num_misfits: int
    """Layouts that do not fit."""
    configured: LayoutPlan | Misfit | None
    """The layout that the config asks for; None if it asks for none on such a cluster."""


def make_plan(job: Job, configured: Layout | None = None) -> BatchPlan:
    """Fit and time every layout.

    Args:
        job: Model, work, cluster and rates.
        configured: What the config asks for, planned beside the best.

    Raises:
        PlanError: If sequences exceed the model's context, or nothing fits; names the part that
            does not, and changes that would.
    """
    job.workload.check_fits(job.shape)
    results = [plan_layout(job, layout) for layout in possible_layouts(job)]
    plans = sorted(
        (result for result in results if isinstance(result, LayoutPlan)),
        key=lambda plan: plan.step_seconds,
    )
    misfits = [result for result in results if isinstance(result, Misfit)]
    if not plans:
        nearest = min(misfits, key=lambda misfit: misfit.excess)
        remedies = "; or ".join(find_remedies(job)) or "nothing that was tried"
        raise PlanError(
            f"{job.shape.name} must fit {job.cluster.name}, got no layout that does: nearest, "
            f"{nearest}; would fit with {remedies}"
        )
    timed = [(plan.async_step_seconds, plan) for plan in plans]
    overlapped = [(seconds, plan) for seconds, plan in timed if seconds is not None]
    return BatchPlan(
        job=job,
        best=plans[0],
        best_async=min(overlapped, key=lambda pair: pair[0])[1] if overlapped else None,
        plans=tuple(plans),
        num_misfits=len(misfits),
        configured=None if configured is None else plan_layout(job, configured),
    )


def find_remedies(job: Job) -> list[str]:
    """Smallest sets of changes with which some layout fits, tried one by one.

    Single changes first, then pairs, then three together; the first size that helps is returned in
    full, with more machines beside it.
    """
    changes = dict(_changes(job))
    found: list[str] = []
    for size in (1, 2, 3):
        for names in combinations(changes, size):
            changed = job
            for name in names:
                changed = replace(changed, method=changes[name](changed.method))
            if fits(changed):
                found.append(" and ".join(names))
        if found:
            break
    more = _more_nodes(job)
    return [*found, *([more] if more else [])]


def _changes(job: Job) -> Iterator[tuple[str, Callable[[Method], Method]]]:
    method, work = job.method, job.workload
    if method.zero_stage < 3 and job.cluster.num_devices > 1:
        yield "learner.zero_stage=3", lambda m: replace(m, zero_stage=3)
    if not method.is_checkpointed:
        yield "gradient checkpointing", lambda m: replace(m, is_checkpointed=True)
    least = work.prompt_tokens + work.max_completion_tokens
    if least < method.micro_batch_tokens:
        name = f"learner.micro_batch_tokens={least}"
        yield name, lambda m: replace(m, micro_batch_tokens=least)
    if method.lora_rank is None:
        name = f"LoRA of rank {SUGGESTED_RANK}"
        yield name, lambda m: replace(m, lora_rank=SUGGESTED_RANK)
        if method.has_reference:
            yield "align.loss.beta=0 (no reference)", lambda m: replace(m, has_reference=False)


def _more_nodes(job: Job) -> str | None:
    cluster = job.cluster
    num_nodes = 2 * cluster.num_nodes
    while num_nodes <= MOST_NODES and not cluster.device.is_cpu:
        if fits(replace(job, cluster=replace(cluster, num_nodes=num_nodes))):
            return f"{num_nodes} nodes of {cluster.devices_per_node} x {cluster.device.name}"
        num_nodes *= 2
    return None


def fits(job: Job) -> bool:
    """Whether any layout fits."""
    return any(isinstance(plan_layout(job, each), LayoutPlan) for each in possible_layouts(job))
