"""Packed rows against the padded oracle, on tiny models of every supported architecture."""

import pickle

import pytest
import torch
from peft import LoraConfig, get_peft_model

from c2s_rl.grpo.batch import Row
from c2s_rl.grpo.packing import PackedPart, pack_rows
from c2s_rl.models.checkpointing import checkpoint_layers
from c2s_rl.models.shared_prompt import SHARED_PROMPT, shared_prompt_hidden, use_shared_prompts
from tests.models.shared_prompt_models import (
    MODELS,
    make_model,
    make_part,
    make_parts,
    packed_logprobs,
    padded_logprobs,
    relative_error,
    weighted_gradients,
)

TOLERANCE = 1e-5  # relative, of norms, float32


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("checkpointing", ["none", "plain", "reentrant"])
def test_logprobs_and_all_gradients_equal_the_padded_oracle(name, checkpointing):
    model, parts = make_model(name), make_parts()
    expected = padded_logprobs(model, parts)
    expected_gradients = weighted_gradients(model, expected)
    use_shared_prompts(model)
    if checkpointing != "none":
        checkpoint_layers(model)
    if checkpointing == "reentrant":
        model.gradient_checkpointing_enable({"use_reentrant": True})
    logprobs = packed_logprobs(model, parts)
    assert relative_error(logprobs, expected) < TOLERANCE
    gradients = weighted_gradients(model, logprobs)
    assert gradients.keys() == expected_gradients.keys() == dict(model.named_parameters()).keys()
    errors = {n: relative_error(g, expected_gradients[n]) for n, g in gradients.items()}
    assert {n: e for n, e in errors.items() if e >= TOLERANCE} == {}


@pytest.mark.parametrize("name", MODELS)
def test_a_completion_depends_on_its_own_tokens_only(name):
    model = make_model(name)
    use_shared_prompts(model)
    part, other = make_part(9, [5, 5, 8], seed=1), make_part(4, [6], seed=2)
    row = part.rows[1]
    changed = Row(row.prompt_ids, tuple(1 + t % 49 for t in row.completion_ids), (0.0,) * 5, 0.0)
    rows = (part.rows[0], changed, part.rows[2])
    with torch.no_grad():
        before = packed_logprobs(model, [part, other])
        after = packed_logprobs(model, [PackedPart(part.prompt_ids, rows), other])
    assert torch.equal(before[[0, 2, 3]], after[[0, 2, 3]])
    assert (before[1, :5] != after[1, :5]).all()


@pytest.mark.parametrize("name", MODELS)
def test_bfloat16_stays_as_close_to_float32_as_the_padded_form(name):
    model, parts = make_model(name), make_parts()
    with torch.no_grad():
        exact = padded_logprobs(model, parts)
        model.to(torch.bfloat16)
        padded_error = relative_error(padded_logprobs(model, parts), exact)
        use_shared_prompts(model)
        packed_error = relative_error(packed_logprobs(model, parts), exact)
    # both round to 8 bits in every layer; the two errors are alike in size, not equal
    assert 0 < packed_error < 1.5 * padded_error


def test_lora_gradients_equal_the_padded_oracle_and_the_adapter_can_be_switched_off():
    plain, parts = make_model("llama_tied"), make_parts()
    with torch.no_grad():
        without_adapter = padded_logprobs(plain, parts)
    config = LoraConfig(
        r=4, target_modules=["q_proj", "v_proj", "up_proj"], init_lora_weights=False
    )
    model = get_peft_model(plain, config).eval()
    expected = padded_logprobs(model, parts)
    expected_gradients = weighted_gradients(model, expected)
    use_shared_prompts(model)
    checkpoint_layers(model.get_base_model())
    logprobs = packed_logprobs(model, parts)
    assert relative_error(logprobs, expected) < TOLERANCE
    gradients = weighted_gradients(model, logprobs)
    assert len(gradients) == 2 * 2 * 3  # layers x (A, B) x adapted projections
    for name, gradient in gradients.items():
        assert relative_error(gradient, expected_gradients[name]) < TOLERANCE, name
    with torch.no_grad(), model.disable_adapter():
        assert relative_error(packed_logprobs(model, parts), without_adapter) < TOLERANCE


def test_checkpointed_layers_run_again_in_the_backward_pass_without_dropout():
    model = make_model("gpt_neox")
    for layer in model.gpt_neox.layers:
        layer.post_mlp_dropout.p = 0.5
    use_shared_prompts(model)
    calls = []
    for layer in model.gpt_neox.layers:
        layer.mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    expected = packed_logprobs(model, make_parts()).detach()
    checkpoint_layers(model)
    calls.clear()
    logprobs = packed_logprobs(model, make_parts())
    assert torch.equal(logprobs, expected)
    logprobs.sum().backward()
    assert len(calls) == 4  # 2 layers, forward and again backward


def test_filler_gives_every_parameter_a_gradient_of_zero():
    model = make_model("gemma2")
    use_shared_prompts(model)
    filler = pack_rows([], pad_id=0)
    hidden = shared_prompt_hidden(
        model, filler.input_ids_1_L, filler.position_ids_1_L, filler.layout
    )
    logits = model.get_output_embeddings()(hidden[0, filler.predict_N])
    (logits.sum() * filler.flat(filler.mask_B_T).sum()).backward()
    assert all((p.grad == 0).all() for p in model.parameters())


def test_layout_survives_pickling():
    layout = pack_rows(make_parts(), pad_id=0).layout
    assert pickle.loads(pickle.dumps(layout)) == layout


def test_a_model_with_another_attention_is_refused():
    # sdpa would take the row for one long causal sequence and say nothing
    batch = pack_rows(make_parts(), pad_id=0)
    with pytest.raises(ValueError, match="must be 'shared_prompt', got 'sdpa'"):
        shared_prompt_hidden(
            make_model("gpt_neox"), batch.input_ids_1_L, batch.position_ids_1_L, batch.layout
        )


def test_a_row_of_another_length_than_its_layout_is_refused():
    model, batch = make_model("gpt_neox"), pack_rows(make_parts(), pad_id=0)
    use_shared_prompts(model)
    with pytest.raises(ValueError, match=r"one row as long as its layout, 96 tokens, got shape"):
        shared_prompt_hidden(
            model, batch.input_ids_1_L[:, 1:], batch.position_ids_1_L[:, 1:], batch.layout
        )


def test_a_forward_pass_without_a_layout_is_refused():
    model = make_model("gpt_neox")
    use_shared_prompts(model)
    assert model.config._attn_implementation == SHARED_PROMPT
    with pytest.raises(ValueError, match="got a forward pass without a layout"):
        model(input_ids=torch.tensor([[1, 2, 3]]))
    model.train()
    model.config.attention_dropout = 0.1
    for layer in model.gpt_neox.layers:
        layer.attention.attention_dropout = 0.1
    batch = pack_rows([make_part(2, [1], seed=1)], pad_id=0)
    with pytest.raises(ValueError, match=r"takes neither dropout nor a mask, got dropout 0\.1"):
        shared_prompt_hidden(model, batch.input_ids_1_L, batch.position_ids_1_L, batch.layout)
