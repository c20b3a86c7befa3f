"""Bytes by hand on a model of 228,096 parameters."""

from dataclasses import replace

import pytest

from c2s_rl.plan.memory import (
    Part,
    engine_parts,
    kv_bytes,
    kv_bytes_per_token,
    layer_activation_bytes,
    learner_parts,
    total_bytes,
)
from c2s_rl.plan.shape import PUBLISHED
from c2s_rl.plan.workload import cut_micro_batches
from tests.plan.fixtures import plain_method, tiny_shape, tiny_work

N = 228_096  # 2 x 1000 x 64 + 2 x (12 x 64^2 + 13 x 64) + 2 x 64


def parts(num_ranks: int, **changes: int | bool) -> dict[str, float]:
    method = plain_method(**changes)
    batches = cut_micro_batches(tiny_work(), method, num_ranks)
    found = learner_parts(tiny_shape(), tiny_work(), method, num_ranks, batches)
    return {part.name: part.num_bytes for part in found}


def test_the_tiny_model_has_that_many_parameters():
    assert tiny_shape().num_parameters == N


@pytest.mark.parametrize(
    ("stage", "weights", "gradients", "optimiser"),
    [
        (0, 2 * N, 2 * N, 12 * N),
        (1, 2 * N, 2 * N, 12 * N / 4),
        (2, 2 * N, 2 * N / 4, 12 * N / 4),
        (3, 2 * N / 4, 2 * N / 4, 12 * N / 4),
    ],
)
def test_zero_shards_one_kind_of_state_more_with_each_stage(stage, weights, gradients, optimiser):
    found = parts(4, element_bytes=2, zero_stage=stage)
    assert found["weights"] == weights
    assert found["gradients"] == gradients
    assert found["optimiser states"] == optimiser
    assert found["reference"] == weights  # a frozen copy, sharded like the policy
    # ZeRO-3: two of the largest modules, here the embedding of 1000 x 64
    assert found["gathered weights"] == (2 * 64_000 * 2 if stage == 3 else 0)
    assert found["ZeRO buckets"] == (2 * 2 * N if stage else 0)


def test_float32_has_master_weights_only_under_zero():
    assert parts(1)["optimiser states"] == 8 * N
    assert parts(1, zero_stage=1)["optimiser states"] == 12 * N


def test_adapters_need_no_reference_and_few_states():
    found = parts(1, lora_rank=2)
    assert found["adapters"] == 4 * 4096
    assert found["optimiser states"] == 8 * 4096
    assert found["weights"] == 4 * N
    assert found["reference"] == 0


def test_activations_by_hand():
    # A layer and token in float32: 17 x 64 x 4 + 4 heads x 4 = 4,368 bytes; 64 tokens.
    assert layer_activation_bytes(tiny_shape(), 4) == 4368
    # two layers, the final norm's input, and one layer's worth of gradients
    assert parts(1)["activations"] == 64 * (2 * 4368 + 256 + 4368)
    # inputs of two layers, the final norm's, and two layers' worth while one is recomputed
    assert parts(1, is_checkpointed=True)["activations"] == 64 * (2 * 256 + 256 + 2 * 4368)


def test_logits_live_for_one_chunk_of_tokens():
    # value and gradient of 64 x 1000 logits, hidden state and gradient of 64 tokens
    assert parts(1)["logits and hidden states"] == 64 * 1000 * 8 + 64 * 64 * 2 * 4
    found = parts(1, head_chunk_tokens=16)
    assert found["logits and hidden states"] == 16 * 1000 * 8 + 64 * 64 * 2 * 4


def test_kv_of_a_token_is_two_vectors_a_layer():
    # pythia-410m: 2 x 24 layers x 1024 x 2 bytes; gemma-2-27b: 2 x 46 x 16 heads x 128 x 2 bytes
    assert kv_bytes_per_token(PUBLISHED["pythia-410m"], 2) == 98_304
    assert kv_bytes_per_token(PUBLISHED["gemma-2-27b"], 2) == 376_832


def test_layers_with_a_window_keep_no_more_than_it():
    shape = replace(tiny_shape(), window=100, num_window_layers=1)
    # 2 x 64 x 4 = 512 bytes a token and layer
    assert kv_bytes(shape, 4, 80) == 512 * 160
    assert kv_bytes(shape, 4, 300) == 512 * (300 + 100)


def test_tensor_parallelism_shares_the_weights_of_an_engine():
    found = engine_parts(tiny_shape(), 2, tensor_parallel=2, max_num_seqs=8)
    # 16,384 tokens x 2 bytes x (2 x 64 + 3 x 256 / 2), and 8 rows of 1000 logits twice in float32
    assert found == (
        Part("engine weights", N),
        Part("engine workspace", 16_384 * 2 * (128 + 384) + 64_000),
    )


def test_what_passes_is_told_from_what_stays():
    some = (Part("a", 3.0), Part("b", 4.0, is_state=False))
    assert total_bytes(some) == 7.0
    assert total_bytes(some, is_state=True) == 3.0
    assert total_bytes(some, is_state=False) == 4.0
