"""LoRA adapters: what they start as, what they train, what they merge into."""

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from c2s_rl.errors import ConfigError
from c2s_rl.models.lora import (
    ADAPTER_FILE,
    LoraConfig,
    adapter_tensors,
    add_adapter,
    is_adapter,
    linear_names,
    merged_tensors,
    save_adapter,
)

SIZES = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}
KINDS = ("gpt_neox", "llama", "gemma2")
LLAMA_NAMES = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
LORA = LoraConfig(rank=4, alpha=6.0, seed=3)
IDS = torch.tensor([[5, 6, 7, 8, 9, 10], [11, 12, 13, 14, 15, 16]])


def make_model(kind):
    torch.manual_seed(0)
    if kind == "gpt_neox":
        model = GPTNeoXForCausalLM(GPTNeoXConfig(**SIZES, tie_word_embeddings=False))
    elif kind == "llama":
        model = LlamaForCausalLM(
            LlamaConfig(**SIZES, num_key_value_heads=2, tie_word_embeddings=True)
        )
    else:
        model = Gemma2ForCausalLM(
            Gemma2Config(**SIZES, num_key_value_heads=2, head_dim=8, sliding_window=4)
        )
    return model.eval()


def logprobs(model):
    with torch.no_grad():
        return torch.log_softmax(model(IDS).logits.float(), dim=-1)


def train_a_little(adapted):
    """Move both factors away from where they start."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if is_adapter(name):
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("gpt_neox", ["dense", "dense_4h_to_h", "dense_h_to_4h", "query_key_value"]),
        ("llama", LLAMA_NAMES),
        ("gemma2", LLAMA_NAMES),
    ],
)
def test_every_linear_layer_but_the_head_is_adapted_by_default(kind, names):
    model = make_model(kind)
    assert linear_names(model) == names
    adapted = add_adapter(model, LORA)
    trained = [name for name, p in adapted.named_parameters() if p.requires_grad]
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in trained} == set(names)
    # two factors a layer, two decoder layers
    assert len(trained) == 2 * 2 * len(names)
    assert all(is_adapter(name) for name in trained)


def test_only_the_named_layers_are_adapted_and_counted_by_hand():
    adapted = add_adapter(make_model("llama"), LoraConfig(rank=4, target_modules=("q_proj",)))
    # A is 4 x 32 and B is 32 x 4 in each of 2 layers: 2 x (128 + 128)
    assert sum(p.numel() for p in adapted.parameters() if p.requires_grad) == 512


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_adapter_changes_nothing_and_off_it_is_the_model_before(kind):
    model = make_model(kind)
    before = logprobs(model)
    adapted = add_adapter(model, LORA)
    assert torch.equal(logprobs(model), before)
    train_a_little(adapted)
    assert (logprobs(model) - before).abs().max() > 1e-2
    with adapted.disable_adapter():
        assert torch.equal(logprobs(model), before)


def test_the_seed_alone_decides_how_an_adapter_starts():
    torch.manual_seed(7)
    first = dict(adapter_tensors(add_adapter(make_model("llama"), LORA).named_parameters()))
    drawn = torch.rand(3)
    torch.manual_seed(8)
    again = dict(adapter_tensors(add_adapter(make_model("llama"), LORA).named_parameters()))
    other = LoraConfig(rank=4, alpha=6.0, seed=4)
    third = dict(adapter_tensors(add_adapter(make_model("llama"), other).named_parameters()))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], third[name]) for name in first)
    # make_model seeds the global generator with 0; adding the adapter must not have drawn from it
    make_model("llama")
    assert torch.equal(torch.rand(3), drawn)


def test_merging_is_w_plus_scaled_b_a():
    # rank 1, alpha 0.5: W + 0.5 B A = [[1, 0], [0, 1]] + 0.5 [[3, 6], [4, 8]]
    named = [
        ("layers.0.up.base_layer.weight", torch.eye(2)),
        ("layers.0.up.base_layer.bias", torch.tensor([9.0, 9.0])),
        ("layers.0.up.lora_A.default.weight", torch.tensor([[1.0, 2.0]])),
        ("layers.0.up.lora_B.default.weight", torch.tensor([[3.0], [4.0]])),
        ("norm.weight", torch.tensor([7.0])),
    ]
    merged = dict(merged_tensors(named, LoraConfig(rank=1, alpha=0.5).scale))
    assert list(merged) == ["layers.0.up.weight", "layers.0.up.bias", "norm.weight"]
    assert merged["layers.0.up.weight"].tolist() == [[2.5, 3.0], [2.0, 5.0]]
    assert merged["layers.0.up.bias"].tolist() == [9.0, 9.0]


@pytest.mark.parametrize("kind", KINDS)
def test_the_merged_model_scores_like_the_adapted_one(kind):
    model = make_model(kind)
    adapted = add_adapter(model, LORA)
    train_a_little(adapted)
    expected = logprobs(model)
    merged = make_model(kind)
    state = dict(merged_tensors(model.named_parameters(), LORA.scale))
    assert list(state) == [name for name, _ in merged.named_parameters()]
    merged.load_state_dict(state, strict=False)
    assert (logprobs(merged) - expected).abs().max() < 1e-5
    # peft's own merge, which destroys the adapted model, gives the same weights
    theirs = dict(adapted.merge_and_unload().named_parameters())
    assert all(torch.allclose(state[name], theirs[name], atol=1e-6) for name in state)


def test_a_bfloat16_model_is_merged_in_float32():
    # B A = 1 + 2^-9, which bfloat16 would round to 1; added to W = -1 first it is exactly 2^-9
    named = [
        ("a.base_layer.weight", torch.tensor([[-1.0]], dtype=torch.bfloat16)),
        ("a.lora_A.default.weight", torch.tensor([[1.0], [1.0]], dtype=torch.bfloat16)),
        ("a.lora_B.default.weight", torch.tensor([[1.0, 2.0**-9]], dtype=torch.bfloat16)),
    ]
    ((_, merged),) = merged_tensors(named, 1.0)
    assert merged.dtype == torch.bfloat16
    assert merged.item() == 2.0**-9


def test_a_saved_adapter_is_read_by_peft(tmp_path):
    model = make_model("llama")
    adapted = add_adapter(model, LORA)
    train_a_little(adapted)
    expected = logprobs(model)
    tensors = dict(adapter_tensors(model.named_parameters()))
    save_adapter(tmp_path, tensors, adapted)
    assert load_file(tmp_path / ADAPTER_FILE).keys() == tensors.keys()
    restored = PeftModel.from_pretrained(make_model("llama"), tmp_path)
    assert torch.equal(logprobs(restored), expected)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_recomputed_activations_give_the_same_gradients(use_reentrant):
    def gradients(*, is_checkpointed):
        model = make_model("llama").train()
        if is_checkpointed:
            model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
        adapted = add_adapter(model, LORA, is_checkpointed=is_checkpointed)
        train_a_little(adapted)
        model(IDS).logits.float().square().mean().backward()
        return {n: p.grad for n, p in model.named_parameters() if p.requires_grad}

    plain, recomputed = gradients(is_checkpointed=False), gradients(is_checkpointed=True)
    assert all(plain[name].abs().max() > 0 for name in plain)
    assert all(torch.allclose(plain[n], recomputed[n], rtol=1e-5, atol=1e-8) for n in plain)


def test_a_target_that_the_model_lacks_is_named_with_the_choices():
    config = LoraConfig(target_modules=("q_proj", "query_key_value"))
    with pytest.raises(ConfigError, match=r"among the linear layers \['down_proj'.*'query_key"):
        add_adapter(make_model("llama"), config)


@pytest.mark.parametrize("names", [(), ("q_proj", "q_proj")])
def test_targets_are_some_and_distinct(names):
    with pytest.raises(ValueError, match="target_modules must name layers, each once, got"):
        LoraConfig(target_modules=names)
