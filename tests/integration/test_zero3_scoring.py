"""The scoring head under DeepSpeed ZeRO-3, against the same model without DeepSpeed."""

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import PROJECT

pytestmark = pytest.mark.integration


def test_gathered_head_scores_and_trains_like_a_whole_one(tmp_path):
    alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.zero3_scoring", str(tmp_path)],
        cwd=PROJECT,
        env={**os.environ, **alone, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"},
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    cases = json.loads((tmp_path / "cases.json").read_text())
    assert len(cases) == 8
    for name, case in cases.items():
        # losses, gradients and weights after two steps of SGD, in float32
        assert case["difference"] < 2e-6, name
        # what the backward pass reads was really given away after the forward pass
        assert case["resident"] == 0, name
