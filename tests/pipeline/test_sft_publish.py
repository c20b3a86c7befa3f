"""What a finished stage leaves: plain and merged policies, and the adapter beside the latter."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from c2s_rl.checkpoint import verify
from c2s_rl.errors import CheckpointError
from c2s_rl.models.lora import (
    ADAPTER_FILE,
    AdapterConfig,
    adapter_tensors,
    add_adapter,
    is_adapter,
    save_adapter,
)
from c2s_rl.pipeline.sft import SftConfig, SftFolders, SftJob
from c2s_rl.pipeline.sft_publish import publish, write_merged
from tests.sft_fixtures import model, tokenizer

LORA = AdapterConfig(rank=2, alpha=6.0)
IDS = torch.tensor([[2, 3, 4, 5, 6, 9, 20, 31]])


def logits(policy: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        return policy.eval()(input_ids=IDS).logits


def write_base(folder: Path, architecture: str, attention: str) -> None:
    model(architecture, attention).save_pretrained(folder)
    tokenizer().save_pretrained(folder)


def write_adapter(folder: Path, architecture: str, attention: str) -> torch.Tensor:
    """Write an adapter as a checkpoint holds it; returns the logits of the model with it."""
    policy = model(architecture, attention)
    adapted = add_adapter(policy, LORA)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if is_adapter(name):
                parameter.copy_(0.3 * torch.randn_like(parameter))
    folder.mkdir()
    save_adapter(folder, dict(adapter_tensors(policy.named_parameters())), adapted)
    return logits(policy)


def job(folder: Path, **changes: object) -> SftJob:
    folders = SftFolders(folder / "corpus", folder / "base", folder / "sft")
    return SftJob(SftConfig.model_validate(changes), folders, {})


@pytest.mark.parametrize(
    ("architecture", "attention"), [("gpt_neox", "sdpa"), ("llama", "sdpa"), ("gemma2", "eager")]
)
def test_merged_policy_answers_as_the_adapted_model(
    tmp_path: Path, architecture: str, attention: str
) -> None:
    write_base(tmp_path / "base", architecture, attention)
    expected = write_adapter(tmp_path / "step-5", architecture, attention)
    lora = {"rank": LORA.rank, "alpha": LORA.alpha}
    made = job(tmp_path, lora=lora)
    publish(made, tmp_path / "step-5")
    verify(made.policy)
    merged = AutoModelForCausalLM.from_pretrained(made.policy, attn_implementation=attention)
    torch.testing.assert_close(logits(merged), expected, rtol=1e-4, atol=1e-5)
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base", attn_implementation=attention)
    assert (logits(base) - expected).abs().max() > 0.1
    # tied weights stay one tensor in the file
    names = load_file(made.policy / "model.safetensors").keys()
    assert names == load_file(tmp_path / "base/model.safetensors").keys()
    verify(made.adapter)
    assert (made.adapter / ADAPTER_FILE).read_bytes() == (
        tmp_path / "step-5" / ADAPTER_FILE
    ).read_bytes()
    assert json.loads((made.adapter / "adapter_config.json").read_text())["r"] == 2


def test_adapter_of_another_rank_is_refused(tmp_path: Path) -> None:
    write_base(tmp_path / "base", "llama", "sdpa")
    write_adapter(tmp_path / "step-5", "llama", "sdpa")
    (tmp_path / "policy").mkdir()
    with pytest.raises(CheckpointError, match=r"must hold the factors of its config, got 'base_mo"):
        write_merged(
            tmp_path / "base",
            tmp_path / "step-5",
            AdapterConfig(rank=3, alpha=6.0),
            "float32",
            tmp_path / "policy",
        )


def test_adapter_without_a_factor_is_refused(tmp_path: Path) -> None:
    write_base(tmp_path / "base", "llama", "sdpa")
    write_adapter(tmp_path / "step-5", "llama", "sdpa")
    tensors = load_file(tmp_path / "step-5" / ADAPTER_FILE)
    lost = min(tensors)
    del tensors[lost]
    save_file(tensors, tmp_path / "step-5" / ADAPTER_FILE)
    made = job(tmp_path, lora={"rank": 2, "alpha": 6.0})
    with pytest.raises(CheckpointError, match=f"got '{lost}' missing"):
        publish(made, tmp_path / "step-5")
    assert not made.policy.exists()


def test_policy_is_model_and_tokenizer_without_training_state(tmp_path: Path) -> None:
    checkpoint = tmp_path / "step-5"
    checkpoint.mkdir()
    taken = {"config.json", "model.safetensors", "tokenizer.json"}
    left = {"trainer_state.json", "hashes.json", "optimiser.pt", "training_args.bin", "README.md"}
    for name in taken | left:
        (checkpoint / name).write_text(name)
    made = job(tmp_path)
    publish(made, checkpoint)
    verify(made.policy)
    assert {p.name for p in made.policy.iterdir()} == taken | {"hashes.json"}


def test_best_step_becomes_the_policy_where_that_is_asked_for(tmp_path: Path) -> None:
    made = job(
        tmp_path,
        evaluation={"metric": "eval_loss", "result": "best"},
        data={"eval_fraction": 0.1},
    )
    last = tmp_path / "step-5"
    last.mkdir()
    (last / "model.safetensors").write_text("last")
    with pytest.raises(CheckpointError, match="a step with a finite eval_loss, got none"):
        publish(made, last)
    made.best.mkdir(parents=True)
    (made.best / "model.safetensors").write_text("best")
    (made.best / "best.json").write_text("{}")
    publish(made, last)
    assert (made.policy / "model.safetensors").read_text() == "best"
    assert not (made.policy / "best.json").exists()
