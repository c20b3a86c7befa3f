"""Kernels compile when they are called, and compile those that they call."""

import subprocess
import sys

import numpy as np

from c2s_rl.cells.jit import kernel

HALF = 0.5


@kernel
def outer(values):
    return inner(values) + HALF


@kernel
def inner(values):
    total = 0.0
    for value in values:
        total += value
    return total


def test_a_kernel_calls_one_that_is_defined_later():
    assert outer(np.arange(4.0)) == 6.5  # 0 + 1 + 2 + 3 + 1/2
    assert inner(np.arange(3.0)) == 3.0


def test_reading_a_config_needs_neither_numba_nor_torch_nor_ray():
    code = (
        "import sys; import c2s_rl.pipeline.convert; "
        "print([m for m in ('numba', 'torch', 'ray', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
