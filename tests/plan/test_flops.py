"""Operations by hand on a model of 2 layers, width 64."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2s_rl.plan.flops import (
    Extent,
    backbone_flops,
    causal_pairs,
    group_extent,
    learner_flops,
    rollout_flops,
)
from c2s_rl.plan.shape import PUBLISHED
from tests.plan.fixtures import plain_method, tiny_shape, tiny_work


@given(
    start=st.integers(0, 60),
    length=st.integers(0, 60),
    window=st.none() | st.integers(1, 80),
)
def test_pairs_are_counted_as_one_by_one(start, length, window):
    stop = start + length
    seen = [min(p + 1, window or p + 1) for p in range(start, stop)]
    assert causal_pairs(start, stop, window) == sum(seen)


def test_a_shared_prompt_is_seen_by_every_completion_but_computed_once():
    # prompt: 10 x 11 / 2 = 55 pairs; a completion of 5: 5 x 10 + 15 = 65; three of them
    extent = group_extent(tiny_shape(), tiny_work())
    assert extent == Extent(tokens=25, pairs=55 + 3 * 65, window_pairs=55 + 3 * 65)
    padded = group_extent(tiny_shape(), tiny_work(), num_prompt_copies=3)
    assert padded == Extent(tokens=45, pairs=3 * (55 + 65), window_pairs=360)


def test_a_window_caps_the_pairs_of_its_layers_only():
    shape = replace(tiny_shape(), window=4, num_window_layers=1)
    extent = group_extent(shape, tiny_work())
    # window 4: prompt 1+2+3+4x7 = 34, each completion token 4: 20
    assert extent.window_pairs == 34 + 3 * 20
    # matrices 2 x 25 x 2 x 49152, attention 4 x 64 x (250 + 94)
    assert backbone_flops(shape, extent) == 4_915_200 + 88_064


def test_parts_of_a_learner_by_hand():
    # matrices of a layer: 12 x 64^2 = 49,152. One group: 25 tokens, 250 pairs, 15 scored.
    matrices = 2 * 25 * 2 * 49_152  # 4,915,200
    attention = 4 * 64 * 2 * 250  # 128,000
    head = 2 * 15 * 64 * 1000  # 1,920,000
    extent = group_extent(tiny_shape(), tiny_work())
    flops = learner_flops(tiny_shape(), plain_method(), extent, 15)
    assert flops.forward == matrices + attention == 5_043_200
    assert flops.backward == 2 * flops.forward
    assert flops.recompute == 0
    assert flops.reference == flops.forward
    assert flops.head == 4 * head
    assert flops.total == 4 * 5_043_200 + 4 * 1_920_000


def test_checkpointing_repeats_the_forward_pass_and_columns_shrink_the_head():
    extent = group_extent(tiny_shape(), tiny_work())
    method = plain_method(is_checkpointed=True, head_columns=100, has_reference=False)
    flops = learner_flops(tiny_shape(), method, extent, 15)
    assert flops.recompute == flops.forward
    assert flops.reference == 0
    assert flops.head == 3 * 192_000


def test_adapters_spare_the_gradients_of_frozen_weights():
    # rank 2: a layer has 2 x (256 + 128 + 320 + 320) = 2,048, the model 4,096 parameters
    extent = group_extent(tiny_shape(), tiny_work())
    flops = learner_flops(tiny_shape(), plain_method(lora_rank=2), extent, 15)
    adapters = 2 * 25 * 4096
    assert flops.forward == 5_043_200 + adapters
    assert flops.backward == 4_915_200 + 2 * 128_000 + 2 * adapters
    assert flops.reference == 5_043_200
    assert flops.head == 3 * 1_920_000  # forward, gradient of the input, reference


def test_generation_prefills_a_prompt_once_and_decodes_every_completion():
    flops = rollout_flops(tiny_shape(), tiny_work())
    # prompt: 2 x 10 x 98,304 + 256 x 2 x 55; completion: 2 x 5 x 98,304 + 256 x 2 x 65 + head
    assert flops.prefill == 4 * (1_966_080 + 28_160)
    assert flops.decode == 12 * (983_040 + 33_280 + 2 * 5 * 64 * 1000)


def test_a_token_costs_about_twice_the_parameters():
    shape = PUBLISHED["gemma-2-27b"]
    per_token = backbone_flops(shape, Extent(1, 1, 1)) + 2 * shape.head_parameters
    assert per_token == pytest.approx(2 * shape.num_parameters, rel=1e-3)
