"""Tokens of a step and its micro-batches."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2s_rl.errors import PlanError
from c2s_rl.plan.workload import Workload, cut_micro_batches
from tests.plan.fixtures import plain_method, tiny_shape, tiny_work


def test_tokens_of_a_step():
    work = tiny_work()
    assert work.packed_tokens == 4 * (10 + 3 * 5)
    assert work.padded_tokens == 4 * 3 * (10 + 5)


def test_groups_of_25_tokens_two_to_a_budget_of_64():
    batches = cut_micro_batches(tiny_work(), plain_method(), num_ranks=1)
    assert (batches.num_groups, batches.num_micro_batches) == (4, 2)
    assert (batches.tokens, batches.copies_per_group) == (100, 1)
    # At their longest the 4 groups have 4 x (10 + 3 x 8) = 136 tokens: the budget binds.
    assert batches.peak_tokens == 64


def test_the_busiest_of_three_ranks_has_two_of_four_groups():
    batches = cut_micro_batches(tiny_work(), plain_method(), num_ranks=3)
    assert (batches.num_groups, batches.num_micro_batches, batches.tokens) == (2, 1, 50)


def test_a_group_over_budget_is_split_and_repeats_its_prompt():
    # (21 - 10) // 5 = 2 completions beside a prompt, so 3 completions take 2 parts.
    batches = cut_micro_batches(tiny_work(), plain_method(micro_batch_tokens=21), num_ranks=1)
    assert (batches.num_micro_batches, batches.copies_per_group) == (8, 2)
    assert batches.tokens == 4 * (2 * 10 + 3 * 5)
    assert batches.peak_tokens == 21


def test_a_row_over_budget_goes_alone():
    batches = cut_micro_batches(tiny_work(), plain_method(micro_batch_tokens=4), num_ranks=4)
    assert (batches.num_micro_batches, batches.peak_tokens) == (3, 18)


def test_padded_rows_repeat_every_prompt():
    method = plain_method(is_packed=False)
    batches = cut_micro_batches(tiny_work(), method, num_ranks=2)
    # 6 rows of 15, 64 // 15 = 4 to a micro-batch; at their longest 64 // 18 = 3 of 18
    assert (batches.num_micro_batches, batches.tokens, batches.copies_per_group) == (2, 90, 3)
    assert batches.peak_tokens == 54


@given(
    work=st.builds(
        Workload,
        num_prompts=st.integers(1, 40),
        group_size=st.integers(2, 40),
        prompt_tokens=st.integers(1, 500),
        completion_tokens=st.integers(1, 200),
        max_completion_tokens=st.integers(200, 300),
        num_steps=st.just(1),
    ),
    budget=st.integers(1, 20_000),
    num_ranks=st.integers(1, 16),
)
def test_packing_never_forwards_more_than_padding_and_keeps_the_budget(work, budget, num_ranks):
    method = plain_method(micro_batch_tokens=budget)
    packed = cut_micro_batches(work, method, num_ranks)
    padded = cut_micro_batches(work, replace(method, is_packed=False), num_ranks)
    assert packed.tokens <= padded.tokens
    assert packed.peak_tokens <= max(budget, work.prompt_tokens + work.max_completion_tokens)
    assert packed.num_groups * num_ranks >= work.num_prompts
    # Whole groups only: mean tokens of a micro-batch never exceed the budget, unless one row does.
    if work.prompt_tokens + work.completion_tokens <= budget:
        assert packed.tokens <= packed.num_micro_batches * budget


def test_a_sequence_longer_than_the_context_is_refused():
    work = replace(tiny_work(), prompt_tokens=505)
    with pytest.raises(PlanError, match=r"fit the 512 tokens of tiny's context, got 505 \+ 8; wr"):
        work.check_fits(tiny_shape())
