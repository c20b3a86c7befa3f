"""The model of FLOPs and bytes against what torch counts on tiny models, within 20 %."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoModelForCausalLM,
    DynamicCache,
    Gemma2Config,
    GPTNeoXConfig,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
)

from c2s_rl.plan.flops import dense_extent, learner_flops
from c2s_rl.plan.memory import (
    kv_bytes,
    layer_activation_bytes,
    optimiser_bytes,
    stored_activation_bytes,
)
from c2s_rl.plan.shape import ModelShape, shape_of_folder
from tests.plan.fixtures import plain_method

ROWS, LENGTH = 2, 96
TOKENS = ROWS * LENGTH
TOLERANCE = 0.2
SIZES = {
    "vocab_size": 1000,
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
}
GROUPED = SIZES | {"intermediate_size": 384, "num_key_value_heads": 2}
CONFIGS: dict[str, PreTrainedConfig] = {
    "gpt_neox": GPTNeoXConfig(**SIZES, intermediate_size=512),
    "llama": LlamaConfig(**GROUPED, tie_word_embeddings=True),
    "gemma2": Gemma2Config(**GROUPED, head_dim=48, sliding_window=128),
}
# One kernel for attention, as assumed; eager multiplies where FlopCounterMode sees it.
FUSED, COUNTED = "sdpa", "eager"


@pytest.fixture(params=CONFIGS)
def config(request) -> PreTrainedConfig:
    return CONFIGS[request.param]


@pytest.fixture
def shape(config, tmp_path) -> ModelShape:
    config.save_pretrained(tmp_path)
    return shape_of_folder(tmp_path)


def build(
    config: PreTrainedConfig, attention: str, dtype: torch.dtype = torch.float32
) -> PreTrainedModel:
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention, dtype=dtype)
    return model.eval()


def input_ids() -> torch.Tensor:
    return torch.arange(TOKENS).reshape(ROWS, LENGTH)


def checkpoint(model: PreTrainedModel) -> None:
    model.train()  # transformers checkpoints in training mode only; there is no dropout here
    model.gradient_checkpointing_enable()


@pytest.mark.parametrize("is_checkpointed", [False, True])
def test_flops_forward_and_backward(config, shape, is_checkpointed):
    model = build(config, COUNTED)
    if is_checkpointed:
        checkpoint(model)
    method = plain_method(has_reference=False, is_checkpointed=is_checkpointed)
    # Padded, every position scored, and masked pairs computed too.
    expected = learner_flops(shape, method, dense_extent(ROWS, LENGTH), TOKENS)
    projection = expected.head // 3
    with FlopCounterMode(display=False) as forward:
        logits = model(input_ids=input_ids(), use_cache=False).logits
    assert forward.get_total_flops() == pytest.approx(expected.forward + projection, rel=TOLERANCE)
    with FlopCounterMode(display=False) as backward:
        logits.sum().backward()
    assert backward.get_total_flops() == pytest.approx(
        expected.backward + expected.recompute + 2 * projection, rel=TOLERANCE
    )


def test_flops_of_a_shared_prompt_equal_those_of_its_tokens_and_pairs(config, shape):
    # One completion: the shared form is one causal row, of which eager computes the masked half
    # too. Counting only seen pairs must differ by just that half.
    model = build(config, COUNTED)
    with FlopCounterMode(display=False) as counter:
        model.base_model(input_ids=input_ids()[:1], use_cache=False)
    method = plain_method(has_reference=False)
    dense = dense_extent(1, LENGTH)
    seen = replace(dense, pairs=LENGTH * (LENGTH + 1) // 2, window_pairs=LENGTH * (LENGTH + 1) // 2)
    forward_dense = learner_flops(shape, method, dense, 0).forward
    forward_seen = learner_flops(shape, method, seen, 0).forward
    masked = 4 * shape.query_width * shape.num_layers * (LENGTH * (LENGTH - 1) // 2)
    assert forward_dense - forward_seen == masked
    assert counter.get_total_flops() - masked == pytest.approx(forward_seen, rel=TOLERANCE)


@contextmanager
def saved_bytes(model: PreTrainedModel) -> Iterator[list[int]]:
    """Bytes of all storages that autograd keeps inside the block, parameters left out."""
    seen = {p.untyped_storage().data_ptr() for p in model.parameters()}
    alive: list[torch.Tensor] = []  # so that no address is used twice
    total = [0]

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            alive.append(tensor)
            total[0] += storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield total


@pytest.mark.parametrize("is_checkpointed", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_activations_between_forward_and_backward(config, shape, is_checkpointed, dtype):
    model = build(config, FUSED, dtype)
    if is_checkpointed:
        checkpoint(model)
    method = plain_method(element_bytes=dtype.itemsize, is_checkpointed=is_checkpointed)
    with saved_bytes(model) as total:
        hidden = model.base_model(input_ids=input_ids(), use_cache=False).last_hidden_state
    assert hidden.requires_grad
    assert total[0] == pytest.approx(stored_activation_bytes(shape, method, TOKENS), rel=TOLERANCE)


def test_activations_of_one_more_layer(config, shape):
    # What recomputation needs room for; the difference of two depths leaves everything else out.
    measured = []
    for num_layers in (2, 4):
        settings = config.to_dict() | {"num_hidden_layers": num_layers}
        settings.pop("layer_types", None)  # Gemma-2 fills it in for its number of layers
        model = build(type(config).from_dict(settings), FUSED)
        with saved_bytes(model) as total:
            model.base_model(input_ids=input_ids(), use_cache=False)
        measured.append(total[0])
    layer = (measured[1] - measured[0]) / 2
    assert layer == pytest.approx(TOKENS * layer_activation_bytes(shape, 4), rel=TOLERANCE)


def test_weights_gradients_and_adam_states_exactly(config, shape):
    model = build(config, FUSED)
    optimiser = torch.optim.AdamW(model.parameters())
    model(input_ids=input_ids(), use_cache=False).logits.sum().backward()
    optimiser.step()
    weights = sum(p.nbytes for p in model.parameters())
    gradients = sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)
    # 'step', one number a tensor, is left out.
    moments = sum(
        state[key].nbytes for state in optimiser.state.values() for key in ("exp_avg", "exp_avg_sq")
    )
    assert weights == gradients == 4 * shape.num_parameters
    assert moments == optimiser_bytes(plain_method(), shape.num_parameters)


def test_kv_cache_exactly(config, shape):
    cache = DynamicCache()
    with torch.no_grad():
        build(config, FUSED)(input_ids=input_ids()[:1], past_key_values=cache, use_cache=True)
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert held == kv_bytes(shape, 4, LENGTH)
