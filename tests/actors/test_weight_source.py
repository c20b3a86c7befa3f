"""The learner's weights as buckets of whole layers."""

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from actors.weight_source import WeightSource
from c2s_rl.models.lora import LoraConfig, add_adapter

LORA = LoraConfig(rank=4, alpha=8.0)


class Stack(nn.Module):
    """8 bytes of embedding, three layers of 24 bytes each, a norm of 4."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(1, 2)
        self.layers = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))
        self.norm = nn.RMSNorm(1)


def names(source):
    return [[name for name, _ in bucket] for bucket in source.buckets()]


@pytest.mark.parametrize(
    ("bucket_bytes", "expected"),
    [
        # 8 + 24 = 32 fits, 24 + 24 does not, 24 + 4 does
        (32, [["embed", "layers.0"], ["layers.1"], ["layers.2", "norm"]]),
        (1000, [["embed", "layers.0", "layers.1", "layers.2", "norm"]]),
        # a layer above the bound goes alone and whole
        (5, [["embed"], ["layers.0"], ["layers.1"], ["layers.2"], ["norm"]]),
    ],
)
def test_buckets_hold_whole_layers_up_to_the_bound(bucket_bytes, expected):
    source = WeightSource(Stack(), is_sharded=False, bucket_bytes=bucket_bytes)
    found = [list(dict.fromkeys(n.rpartition(".")[0] for n in bucket)) for bucket in names(source)]
    assert found == expected


def adapted_llama():
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=50,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=48,
            tie_word_embeddings=True,
        )
    )
    plain = [name for name, _ in model.named_parameters()]
    add_adapter(model, LORA)
    return model, plain


@pytest.mark.parametrize("is_adapter_only", [False, True])
@pytest.mark.parametrize("bucket_bytes", [1, 20_000, 10**9])
def test_what_is_declared_is_what_comes(is_adapter_only, bucket_bytes):
    model, plain = adapted_llama()
    source = WeightSource(
        model,
        is_sharded=False,
        bucket_bytes=bucket_bytes,
        lora=LORA,
        is_adapter_only=is_adapter_only,
    )
    declared = [(meta.name, meta.dtype, meta.shape) for meta in source.metadata()]
    assert declared == [(name, t.dtype, tuple(t.shape)) for name, t in source]
    # a second pass gives the same again
    assert declared == [(name, t.dtype, tuple(t.shape)) for name, t in source]
    if is_adapter_only:
        # 7 linear layers x 2 factors x 2 decoder layers, under peft's names
        assert len(declared) == 28
        assert declared[0][0] == "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    else:
        assert [name for name, _, _ in declared] == plain


def test_the_source_gives_the_weights_of_now():
    model = Stack()
    source = WeightSource(model, is_sharded=False, bucket_bytes=32)
    with torch.no_grad():
        model.norm.weight.fill_(3.0)
    assert dict(iter(source))["norm.weight"].item() == 3.0
