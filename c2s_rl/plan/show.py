"""A batch plan for the terminal: tables, and bars of memory and of time."""

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from c2s_rl.plan.batch_plan import BatchPlan
from c2s_rl.plan.figures import StepPart, job_flops, padding_ratio, step_parts
from c2s_rl.plan.hardware import GIGA, TERA
from c2s_rl.plan.layouts import LayoutPlan, Misfit, Sharing
from c2s_rl.plan.memory import Part, kv_bytes_per_token
from c2s_rl.plan.timing import Job, sync_bytes

NUM_LAYOUTS = 5
BAR_WIDTH = 28
MINUTE, HOUR = 60, 3600


def plan_view(plan: BatchPlan) -> RenderableType:
    """Everything a reader decides by, from the work to the assumptions."""
    return Group(
        *_headings(plan.job),
        Text(),
        _work_table(plan),
        Text(),
        _time_table(plan),
        Text(),
        *_memory_tables(plan),
        _layout_table(plan),
        Text(),
        *_closing(plan),
    )


def bar(share: float, width: int = BAR_WIDTH) -> Text:
    """A bar of `share` of the width, in eighths of a character."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    full, rest = divmod(eighths, 8)
    return Text("█" * full + (" ▏▎▍▌▋▊▉"[rest] if rest else ""), "cyan")


def duration(seconds: float) -> str:
    """Seconds in the unit that one would say."""
    if seconds < 0.1:
        return f"{seconds * 1000:.2g} ms"
    if seconds < 2 * MINUTE:
        return f"{seconds:.3g} s"
    if seconds < 2 * HOUR:
        return f"{seconds / MINUTE:.3g} min"
    return f"{seconds / HOUR:.1f} h"


def _headings(job: Job) -> Iterator[Text]:
    shape, work, device = job.shape, job.workload, job.cluster.device
    yield Text(f"{shape.name}: {shape.num_parameters / 1e6:,.0f} M parameters ({shape.source})")
    yield Text(
        f"{job.cluster.name}: {device.name}, {device.memory_bytes / GIGA:.0f} GB, "
        f"{device.peak_flops_per_s(job.method.element_bytes) / TERA:.3g} TFLOP/s, "
        f"{device.memory_bytes_per_s / GIGA:,.0f} GB/s ({device.source})"
    )
    yield Text(
        f"{work.num_steps} steps of {work.num_prompts} prompts x {work.group_size} completions; "
        f"prompt {work.prompt_tokens}, completion {work.completion_tokens} tokens "
        f"(longest {work.max_completion_tokens}; {work.source})"
    )
    yield Text(f"learner: {_method_words(job)}")


def _method_words(job: Job) -> str:
    method = job.method
    trained = "full" if method.lora_rank is None else f"LoRA of rank {method.lora_rank}"
    words = [
        trained,
        "bfloat16" if method.element_bytes == 2 else "float32",
        f"ZeRO-{method.zero_stage}",
        f"micro-batches of {method.micro_batch_tokens} tokens",
        "shared prompts" if method.is_packed else "padded rows",
        "gradient checkpointing" if method.is_checkpointed else "no gradient checkpointing",
        f"head on {method.columns(job.shape):,} columns",
    ]
    if method.has_reference:
        words.append(
            "reference: " + ("a frozen copy" if method.lora_rank is None else "no adapter")
        )
    return ", ".join(words)


def _work_table(plan: BatchPlan) -> Table:
    job, batches = plan.job, plan.best.batches
    work = job.workload
    table = _table("One step", "", right=1)
    rows = (
        ("groups (prompts)", f"{work.num_prompts:,}"),
        ("completions", f"{work.num_completions:,}"),
        ("prompt tokens", f"{work.num_prompts * work.prompt_tokens:,}"),
        ("completion tokens", f"{work.step_completion_tokens:,}"),
        (
            "tokens learned on: shared prompts, padded",
            f"{work.packed_tokens:,}, {work.padded_tokens:,}",
        ),
        ("learner FLOPs, padded / shared prompts", f"{padding_ratio(job, batches):.2f}"),
        ("groups of the busiest rank", f"{batches.num_groups}"),
        ("its micro-batches", f"{batches.num_micro_batches}"),
        ("KV cache a token", f"{kv_bytes_per_token(job.shape, job.method.element_bytes):,} bytes"),
        (
            "completions that fit an engine",
            f"{plan.best.num_sequences} at once (at most {job.max_num_seqs})",
        ),
        ("weights sent to an engine", f"{sync_bytes(job) / GIGA:.3g} GB"),
        ("FLOPs, all devices", f"{job_flops(job, batches) / TERA:,.4g} TFLOP"),
    )
    for name, value in rows:
        table.add_row(name, value)
    return table


def _time_table(plan: BatchPlan) -> Table:
    parts = step_parts(plan.job, plan.best)
    total = plan.best.step_seconds
    table = _table("Time of a step", "TFLOP", "expected", "", right=2)
    table.columns[0].header = f"Time of a step ({plan.best.layout})"
    for part in parts:
        if part.seconds or part.flops:
            table.add_row(*_time_cells(part), bar(part.seconds / total))
    table.add_section()
    table.add_row(
        "a synchronous step",
        f"{job_flops(plan.job, plan.best.batches) / TERA:,.4g}",
        duration(total),
        "",
    )
    return table


def _time_cells(part: StepPart) -> tuple[str, str, str]:
    flops = f"{part.flops / TERA:,.4g}" if part.flops else ""
    return part.name, flops, duration(part.seconds)


def _memory_tables(plan: BatchPlan) -> Iterator[RenderableType]:
    """Learner's and engine's device; one table where they share it, fullest moment by moment."""
    best = plan.best
    capacity = plan.job.cluster.device.memory_bytes
    reserve = Part("reserve", plan.job.assumptions.reserve_gb * GIGA)
    engine = (*best.engine, Part("KV cache", best.kv_cache_bytes))
    if best.layout.sharing is Sharing.RESIDENT:
        both = (*best.learner, *engine, reserve)
        yield _memory_table("Memory of a device, learner and engine", both, capacity)
    else:
        yield _memory_table("Memory of a learner's device", (*best.learner, reserve), capacity)
        yield Text()
        kept = Part("learner's, kept meanwhile", best.beside_bytes)
        yield _memory_table("Memory of an engine's device", (*engine, kept, reserve), capacity)
    yield Text()


def _memory_table(title: str, parts: Sequence[Part], capacity: float) -> Table:
    table = _table(title, "GB", "", right=1)
    for part in parts:
        if part.num_bytes:
            table.add_row(part.name, _gb(part.num_bytes), bar(part.num_bytes / capacity))
    total = sum(part.num_bytes for part in parts)
    table.add_section()
    table.add_row(f"of {_gb(capacity)} GB", _gb(total), bar(total / capacity))
    return table


def _layout_table(plan: BatchPlan) -> Table:
    table = _table("Layouts", "at once", "rollout", "learn", "sync", "sync step", "async step")
    for shown in _shown_layouts(plan):
        mark = "configured: " if shown is plan.configured else ""
        overlapped = shown.async_step_seconds
        table.add_row(
            f"{mark}{shown.layout}",
            str(shown.num_sequences),
            duration(shown.rollout.total),
            duration(shown.learn.total),
            duration(shown.sync_seconds + shown.switch_seconds),
            duration(shown.step_seconds),
            "" if overlapped is None else duration(overlapped),
        )
    return table


def _shown_layouts(plan: BatchPlan) -> Iterator[LayoutPlan]:
    shown = list(plan.plans[:NUM_LAYOUTS])
    if plan.best_async is not None and plan.best_async not in shown:
        shown.append(plan.best_async)
    yield from shown
    if isinstance(plan.configured, LayoutPlan):
        yield plan.configured


def _closing(plan: BatchPlan) -> Iterator[Text]:
    steps = plan.job.workload.num_steps
    yield Text(
        f"synchronous: {plan.best.layout}; {steps} steps in "
        f"{duration(steps * plan.best.step_seconds)}",
        "bold",
    )
    overlapped = plan.best_async
    if overlapped is not None and overlapped.async_step_seconds is not None:
        seconds = steps * overlapped.async_step_seconds
        yield Text(f"asynchronous: {overlapped.layout}; {duration(seconds)}", "bold")
    if isinstance(plan.configured, Misfit):
        yield Text(f"the config's own layout does not fit: {plan.configured}", "yellow")
    yield Text(f"{plan.num_misfits} other layouts do not fit", "dim")
    assumed = plan.job.assumptions
    yield Text(
        f"assumed: learner at {assumed.learner_mfu:.0%} of peak, prefill "
        f"{assumed.prefill_mfu:.0%}, memory bandwidth {assumed.memory_share:.0%}, links "
        f"{assumed.link_share:.0%}, {assumed.engine_overhead_ms:g} ms an engine step beside the "
        "model; rewards hidden behind generation; a synchronous step is the sum of its parts",
        "dim",
    )


def _table(*headers: str, right: int | None = None) -> Table:
    """A plain table; columns 1 to `right` (default: all but the first) hold numbers."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    last = len(headers) - 1 if right is None else right
    for index, header in enumerate(headers):
        table.add_column(header, justify="right" if 1 <= index <= last else "left")
    return table


def _gb(num_bytes: float) -> str:
    return f"{num_bytes / GIGA:,.2f}"
