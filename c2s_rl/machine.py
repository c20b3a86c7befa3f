"""What this machine has, read from the operating system: no torch, no ray, nothing measured.

Limits of a container (cgroup v2) count as the machine's own. GPUs are asked of `nvidia-smi`; a
machine without it has none.
"""

import logging
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

GIB = 2**30
CGROUP = Path("/sys/fs/cgroup")
SHARED_MEMORY = Path("/dev/shm")
# What decides how fast a CPU multiplies matrices, in the kernel's words (x86, then ARM).
CPU_FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "sve", "bf16")
BF16_FEATURES = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
NVIDIA_SMI_DEADLINE_S = 30

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Gpu:
    """One CUDA device."""

    name: str
    """As the driver calls it."""
    memory_gib: float
    """All of its memory, GiB."""


@dataclass(frozen=True)
class Machine:
    """What a run can use here."""

    python: str
    """Version of the running interpreter."""
    architecture: str
    """For example 'x86_64'."""
    num_cores: int
    """Cores this process may run on; a container's quota rounded up."""
    cpu_features: tuple[str, ...]
    """Those of `CPU_FEATURES` that the CPU has."""
    memory_gib: float
    """Main memory, or the container's limit where that is lower, GiB."""
    shared_memory_gib: float
    """Free space in /dev/shm, GiB; 0 where there is none."""
    disk_free_gib: float
    """Free space where run folders go, GiB."""
    gpus: tuple[Gpu, ...]
    """CUDA devices, empty without a driver."""

    @property
    def has_native_bf16(self) -> bool:
        """The CPU multiplies bfloat16 itself; otherwise it goes through float32."""
        return not BF16_FEATURES.isdisjoint(self.cpu_features)


def inspect_machine(folder: Path) -> Machine:
    """Look at the machine.

    Args:
        folder: Where run folders go; it need not exist yet.
    """
    return Machine(
        python=platform.python_version(),
        architecture=platform.machine(),
        num_cores=_num_cores(),
        cpu_features=cpu_features(_read(Path("/proc/cpuinfo"))),
        memory_gib=_memory_bytes() / GIB,
        shared_memory_gib=free_gib(SHARED_MEMORY) if SHARED_MEMORY.is_dir() else 0.0,
        disk_free_gib=free_gib(folder),
        gpus=_gpus(),
    )


def free_gib(folder: Path) -> float:
    """Free space, GiB, of the file system that `folder` is on or will be made on."""
    existing = next(
        path for path in (folder.absolute(), *folder.absolute().parents) if path.exists()
    )
    return shutil.disk_usage(existing).free / GIB


def cpu_features(cpuinfo: str) -> tuple[str, ...]:
    """Pick the features that matter out of the text of /proc/cpuinfo."""
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", cpuinfo, flags=re.MULTILINE)
    words = set(found.group(1).split()) if found else set()
    return tuple(name for name in CPU_FEATURES if name in words)


def parse_gpus(lines: Iterable[str]) -> tuple[Gpu, ...]:
    """Read `nvidia-smi --query-gpu=name,memory.total --format=csv,noheader,nounits` (MiB)."""
    parts = [line.rsplit(",", 1) for line in lines if "," in line]
    return tuple(
        Gpu(name.strip(), float(mib) / 1024) for name, mib in parts if mib.strip().isdecimal()
    )


def _gpus() -> tuple[Gpu, ...]:
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        result = subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=NVIDIA_SMI_DEADLINE_S
        )
    except FileNotFoundError:
        return ()
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("nvidia-smi did not answer, so no GPU is counted: %s", error)
        return ()
    return parse_gpus(result.stdout.splitlines())


def _num_cores() -> int:
    cores = len(os.sched_getaffinity(0))
    quota = _read(CGROUP / "cpu.max").split()  # "<quota> <period>" in microseconds, or "max ..."
    if len(quota) == 2 and quota[0].isdecimal():
        cores = min(cores, -(-int(quota[0]) // int(quota[1])))
    return max(1, cores)


def _memory_bytes() -> int:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _read(CGROUP / "memory.max").strip()
    return min(total, int(limit)) if limit.isdecimal() else total


def _read(path: Path) -> str:
    """Text of a file of the kernel, empty where this system has none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
