"""The planner's KV cache against the block sizes of the installed vLLM."""

import json
import subprocess
import sys

import pytest

from c2s_rl.plan.memory import kv_bytes_per_token
from c2s_rl.plan.shape import PUBLISHED

pytestmark = pytest.mark.integration

# In a process of its own: vLLM changes transformers' classes where it is imported.
PROBE = """
import json, sys, torch
from vllm.v1.kv_cache_interface import FullAttentionSpec
BLOCK = 16
print(json.dumps({
    name: FullAttentionSpec(
        block_size=BLOCK, num_kv_heads=heads, head_size=size, dtype=torch.bfloat16
    ).page_size_bytes / BLOCK
    for name, heads, size in json.loads(sys.argv[1])
}))
"""


def test_kv_bytes_of_a_token_are_vllms():
    sizes = [(shape.name, shape.num_kv_heads, shape.head_dim) for shape in PUBLISHED.values()]
    command = [sys.executable, "-c", PROBE, json.dumps(sizes)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    per_layer = json.loads(done.stdout.splitlines()[-1])
    assert {name: per_layer[name] * shape.num_layers for name, shape in PUBLISHED.items()} == {
        name: kv_bytes_per_token(shape, 2) for name, shape in PUBLISHED.items()
    }
