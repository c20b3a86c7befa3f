"""Small shapes and jobs that plans of tests are made of."""

from c2s_rl.plan.assumptions import Assumptions
from c2s_rl.plan.hardware import GIGA, TERA, Cluster, Device, parse_cluster
from c2s_rl.plan.shape import ModelShape, gpt_neox_shape
from c2s_rl.plan.timing import Job
from c2s_rl.plan.workload import Method, Workload


def tiny_shape() -> ModelShape:
    """2 layers of width 64, 4 heads of 16, 1,000 tokens; 228,096 parameters.

    2 x 1000 x 64 + 2 x (12 x 64^2 + 13 x 64) + 2 x 64 = 128,000 + 99,968 + 128
    """
    return gpt_neox_shape("tiny", "made up", (2, 64, 4), vocabulary=1000, max_position=512)


def tiny_work() -> Workload:
    """4 groups of 3: prompts of 10, completions of 5 (at most 8) tokens."""
    return Workload(4, 3, 10, 5, 8, num_steps=10)


def plain_method(**changes: int | bool) -> Method:
    """float32, nothing sharded, everything trained."""
    settings: dict[str, int | bool] = {
        "element_bytes": 4,
        "zero_stage": 0,
        "micro_batch_tokens": 64,
        "has_reference": True,
    }
    return Method(**(settings | changes))


def round_device(*, memory_gb: float = 1.0) -> Device:
    """1 TFLOP/s, 100 GB/s from memory, 10 GB/s between devices: easy to divide by."""
    return Device(
        name="round",
        source="made up",
        is_cpu=False,
        bf16_flops_per_s=TERA,
        fp32_flops_per_s=TERA,
        memory_bytes=memory_gb * GIGA,
        memory_bytes_per_s=100 * GIGA,
        link_bytes_per_s=10 * GIGA,
        host_link_bytes_per_s=GIGA,
    )


def round_cluster(num_devices: int, *, memory_gb: float = 1.0) -> Cluster:
    """One node of `round_device`s."""
    return Cluster("round", round_device(memory_gb=memory_gb), 1, num_devices, 5 * GIGA, 100 * GIGA)


def full_rates() -> Assumptions:
    """Everything at its peak, nothing reserved, no waiting."""
    return Assumptions(
        learner_mfu=1.0,
        prefill_mfu=1.0,
        memory_share=1.0,
        link_share=1.0,
        engine_overhead_ms=0.0,
        hop_us=0.0,
        wake_s=0.0,
        reserve_gb=0.0,
    )


def h100_job(shape: ModelShape, cluster: str, method: Method, *, prompts: int = 16) -> Job:
    """GRPO on sentences of 400 genes."""
    work = Workload(prompts, 24, 1560, 1520, 1800, num_steps=100)
    return Job(shape, work, method, parse_cluster(cluster), Assumptions())
