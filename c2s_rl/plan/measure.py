"""Times a CPU: matrix products and memory bandwidth, about a second each.

What comes out is what this machine reaches now, other processes included: a busy one looks slow.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from c2s_rl.machine import GIB, inspect_machine
from c2s_rl.plan.hardware import Cluster, Device

if TYPE_CHECKING:
    import torch

# Large enough for full speed, small enough for a few products a second on one core.
MATRIX = 1024
# Far larger than any cache.
COPY_BYTES = 2**27


def measure_cpu(num_cores: int, *, seconds: float = 0.6) -> Cluster:
    """Time this machine as a cluster of one device.

    Args:
        num_cores: Threads that compute.
        seconds: Length of each of the three timings.

    Returns:
        One node whose links are its memory: processes share it.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(num_cores)
    try:
        rates = {
            dtype: 2 * MATRIX**3 / _seconds_a_call(_product(dtype), seconds)
            for dtype in (torch.float32, torch.bfloat16)
        }
        source = torch.ones(COPY_BYTES // 4)
        target = torch.empty_like(source)
        # A copy reads and writes every byte.
        copied = 2 * COPY_BYTES / _seconds_a_call(lambda: target.copy_(source), seconds)
    finally:
        torch.set_num_threads(before)
    machine = inspect_machine(Path())
    device = Device(
        name=f"{num_cores} cores ({machine.architecture})",
        source="timed on this machine just now (torch matrix products and copy)",
        is_cpu=True,
        bf16_flops_per_s=rates[torch.bfloat16],
        fp32_flops_per_s=rates[torch.float32],
        memory_bytes=machine.memory_gib * GIB,
        memory_bytes_per_s=copied,
        link_bytes_per_s=copied / 2,
        host_link_bytes_per_s=copied / 2,
    )
    name = f"{num_cores}cores"
    return Cluster(name, device, 1, 1, device.link_bytes_per_s, device.memory_bytes)


def _product(dtype: "torch.dtype") -> Callable[[], object]:
    import torch

    left, right = (torch.ones(MATRIX, MATRIX, dtype=dtype) for _ in range(2))
    return lambda: left @ right


def _seconds_a_call(call: Callable[[], object], seconds: float) -> float:
    """Best of the calls that fit into `seconds`: other processes only ever add."""
    call()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best
