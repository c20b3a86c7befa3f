"""LoRA on the real DeepSpeed, vLLM and Ray: ZeRO stages, adapter-only sync, merged policy."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from c2s_rl.models.lora import ADAPTER_FILE
from c2s_rl.runlog import read_metrics
from tests.conftest import PROJECT

pytestmark = pytest.mark.integration

RANK, ALPHA = 4, 8.0

# DeepSpeed sets up its process for good, so it gets one of its own.
ZERO_SCRIPT = """
import json, os, sys
from pathlib import Path
os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1",
               "MASTER_PORT": "0", "DS_ACCELERATOR": "cpu", "GLOO_SOCKET_IFNAME": "lo"}
import torch
from actors.deepspeed_cpu import skip_shared_memory_op
skip_shared_memory_op()
import deepspeed
from actors.learner import deepspeed_config
from actors.learner_config import LearnerConfig
from actors.learner_lora import TrainedPolicy
from c2s_rl.models.lora import LoraConfig

folder, rank, alpha = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
deepspeed.init_distributed(dist_backend="gloo", verbose=False)
ids = torch.arange(1, 25).reshape(2, 12)

def start(stage):
    policy = TrainedPolicy(folder / "base", "float32", LoraConfig(rank=rank, alpha=alpha),
                           is_sharded=stage == 3)
    optimizer = torch.optim.AdamW(policy.trainable(), lr=1e-2)
    engine, *_ = deepspeed.initialize(model=policy.model.eval(), optimizer=optimizer,
                                      config=deepspeed_config(LearnerConfig(zero_stage=stage)))
    return policy, engine

for stage in (0, 1, 2, 3):
    policy, engine = start(stage)
    with torch.no_grad():
        before = engine(ids).logits.clone()
    losses = []
    for step in range(3):
        loss = torch.log_softmax(engine(ids).logits, dim=-1)[..., 7].mean().neg()
        with policy.as_reference():
            reference = engine(ids).logits.clone()
        engine.backward(loss)
        engine.step()
        losses.append(loss.item())
    with torch.no_grad():
        after = engine(ids).logits.clone()
    num_moments = sum(t.numel() for state in engine.optimizer.state.values()
                      for t in state.values() if t.dim() > 0) if stage < 3 else -1
    out = folder / f"stage{stage}"
    out.mkdir()
    policy.save(out, rank=0)
    engine.save_checkpoint(str(out), tag="t", save_latest=False, exclude_frozen_parameters=True)
    size = sum(p.stat().st_size for p in (out / "t").rglob("*.pt"))
    restored, engine = start(stage)
    engine.load_checkpoint(str(out), tag="t", load_module_strict=False)
    with torch.no_grad():
        again = engine(ids).logits
    print("RESULT" + json.dumps({
        "losses": losses, "reference": torch.equal(reference, before), "moments": num_moments,
        "moved": (after - before).abs().max().item(), "bytes": size,
        "restored": torch.equal(again, after)}))
    torch.save(after, out / "logits.pt")
"""


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    """The same three steps under every ZeRO stage."""
    from c2s_rl.models.tokenizer import train_bpe

    folder = tmp_path_factory.mktemp("zero")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=6_000,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=96,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder / "base")
    train_bpe(["GENE1 GENE2"] * 5, vocabulary_size=300, max_length=64).save_pretrained(
        folder / "base"
    )
    command = [sys.executable, "-c", ZERO_SCRIPT, str(folder), str(RANK), str(ALPHA)]
    done = subprocess.run(
        command, cwd=PROJECT, env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    return folder, [json.loads(line.removeprefix("RESULT")) for line in lines]


def test_every_zero_stage_takes_the_same_steps_and_keeps_the_reference(stages):
    _, results = stages
    assert len(results) == 4
    for result in results:
        assert result["losses"] == pytest.approx(results[0]["losses"], rel=1e-5)
        assert result["losses"][2] < result["losses"][0]
        assert result["moved"] > 1e-2
        assert result["reference"]
        assert result["restored"]


def test_only_the_adapter_has_optimiser_state_and_is_in_the_checkpoint(stages):
    _, results = stages
    # A layer, hidden 64, key and value 32, inner 96, factors of rank 4:
    # q and o 2 x 4 x (64 + 64), k and v 2 x 4 x (64 + 32), gate, up and down 3 x 4 x (64 + 96)
    adapter = 2 * (1024 + 768 + 1920)
    # two moments each; ZeRO 1 and 2 flatten, with padding for alignment
    assert results[0]["moments"] == 2 * adapter
    assert all(2 * adapter <= r["moments"] < 2 * adapter + 64 for r in results[1:3])
    # Weights, masters and moments of the adapter take 16 bytes a parameter; the frozen layers would
    # add 2 x (2 x 64 x 64 + 2 x 64 x 32 + 3 x 64 x 96) x 4 = 245,760. DeepSpeed knows a tied head
    # by its second name only and keeps it: 6,000 x 64 x 4 = 1,536,000.
    assert all(result["bytes"] < 1_536_000 + 16 * adapter + 100_000 for result in results)


@pytest.mark.parametrize("stage", [0, 3])
def test_the_saved_policy_is_the_merged_model(stages, stage):
    folder, _ = stages
    out = folder / f"stage{stage}"
    merged = LlamaForCausalLM.from_pretrained(out / "policy").eval()
    with torch.no_grad():
        logits = merged(torch.arange(1, 25).reshape(2, 12)).logits
    assert (logits - torch.load(out / "logits.pt")).abs().max() < 1e-5
    assert (out / "policy" / "tokenizer.json").is_file()
    adapter = load_file(out / "adapter" / ADAPTER_FILE)
    weights = load_file(out / "policy" / "model.safetensors")
    base = load_file(folder / "base" / "model.safetensors")
    assert weights.keys() == base.keys()
    name = "model.layers.1.mlp.up_proj"
    factor_a, factor_b = (adapter[f"base_model.model.{name}.lora_{x}.weight"] for x in "AB")
    expected = base[f"{name}.weight"] + ALPHA / RANK * factor_b @ factor_a
    assert torch.allclose(weights[f"{name}.weight"], expected, atol=1e-6)


def test_alignment_trains_an_adapter_on_two_zero3_ranks(runs, prepared):
    folder = prepared.parent / "lora"
    shutil.copytree(prepared, folder)
    overrides = (
        "learner.lora={rank: 4, alpha: 8}",
        "learner.zero_stage=3",
        "learner.num_workers=2",
        "learner.lr=0.01",
        "align.num_steps=3",
    )
    runs.run("align", "lora", *(word for o in overrides for word in ("--set", o)))
    metrics = read_metrics(folder / "align" / "metrics.jsonl")
    # float32 on both sides: after every sync the two agree to rounding
    assert max(line["mismatch_max"] for line in metrics) < 1e-4
    assert metrics[0]["kl"] == pytest.approx(0.0, abs=1e-6)
    assert metrics[-1]["kl"] > 1e-5
    base = load_file(folder / "base" / "model.safetensors")
    policy = load_file(folder / "align" / "policy" / "model.safetensors")
    adapter = load_file(folder / "align" / "adapter" / ADAPTER_FILE)
    changed = {name for name in base if not torch.equal(base[name], policy[name])}
    adapted = {name.removeprefix("base_model.model.").split(".lora_")[0] for name in adapter}
    assert changed == {f"{name}.weight" for name in adapted}
    # what was published is gone from shared memory
    assert not list(Path("/dev/shm").glob("c2s-rl-*/adapter-*-version-3"))
