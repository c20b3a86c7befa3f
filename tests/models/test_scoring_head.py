"""The scoring head inside real model classes, tied or not, capped or not, with adapters."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PhiConfig,
    PhiForCausalLM,
)

from c2s_rl.errors import ConfigError
from c2s_rl.models.logprobs import FusedOptions
from c2s_rl.models.scoring_head import ScoringHead, replace_head
from tests.models.head_cases import make_columns

V = 50
SIZES = {
    "vocab_size": V,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 32,
}
OPTIONS = FusedOptions(temperature=0.7, chunk_tokens=4)


def make_model(kind):
    torch.manual_seed(0)
    models = {
        "gpt_neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**SIZES, tie_word_embeddings=False)),
        "gpt_neox tied": lambda: GPTNeoXForCausalLM(
            GPTNeoXConfig(**SIZES, tie_word_embeddings=True)
        ),
        "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=False)),
        "llama tied": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=True)),
        # the cap is low, so that leaving it out would show
        "gemma2 tied": lambda: Gemma2ForCausalLM(
            Gemma2Config(**SIZES, num_key_value_heads=1, head_dim=16, final_logit_softcapping=0.1)
        ),
        "phi with bias": lambda: PhiForCausalLM(PhiConfig(**SIZES)),
    }
    return models[kind]().eval()


KINDS = ["gpt_neox", "gpt_neox tied", "llama", "llama tied", "gemma2 tied", "phi with bias"]


def completion(seed=1):
    tokens = torch.randint(V, (2, 7), generator=torch.Generator().manual_seed(seed))
    return tokens, tokens[:, 1:].flatten()


def scored_plainly(model, tokens, is_allowed=None):
    """Log-probability of each token but the first, from the model's own logits."""
    logits = model(tokens).logits[:, :-1].flatten(0, 1) / OPTIONS.temperature
    if is_allowed is not None:
        logits = logits.masked_fill(~is_allowed, -torch.inf)
    logprobs = torch.log_softmax(logits, dim=1)
    return logprobs.gather(1, tokens[:, 1:].flatten().unsqueeze(1)).squeeze(1)


def hidden_states(model, tokens):
    """What the head reads: caught on its way in, whatever the family calls its backbone."""
    caught = []
    head = replace_head(model)
    hook = head.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
    model(tokens)
    hook.remove()
    return caught[0][:, :-1].flatten(0, 1)


def trainable(model):
    return [p for p in model.parameters() if p.requires_grad]


@pytest.mark.parametrize("is_restricted", [False, True], ids=["vocabulary", "columns"])
@pytest.mark.parametrize("kind", KINDS)
def test_head_scores_and_differentiates_like_the_model(kind, is_restricted):
    model = make_model(kind)
    if kind == "phi with bias":
        torch.nn.init.normal_(model.lm_head.bias)
    tokens, targets = completion()
    columns, is_allowed = make_columns(targets, V, 20) if is_restricted else (None, None)
    expected = scored_plainly(model, tokens, is_allowed)
    expected_grads = torch.autograd.grad(expected.sum(), trainable(model), allow_unused=True)
    logits = model(tokens).logits

    head = replace_head(model)
    assert torch.equal(model(tokens).logits, logits)
    hidden = hidden_states(model, tokens)
    scored = head.logprobs(hidden, targets, options=OPTIONS, columns=columns)
    torch.testing.assert_close(scored.logprobs_N, expected, atol=1e-6, rtol=1e-6)
    formed = head.token_loss(
        hidden, targets, lambda logprobs, *_: logprobs.sum(), options=OPTIONS, columns=columns
    )
    for loss in (scored.logprobs_N.sum(), formed.loss):
        grads = torch.autograd.grad(loss, trainable(model), retain_graph=True, allow_unused=True)
        for ours, theirs in zip(grads, expected_grads, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_and_saved_names_stay_the_same(kind, tmp_path):
    model = make_model(kind)
    names = list(model.state_dict())
    parameters = dict(model.named_parameters())
    logits = model(completion()[0]).logits
    head = replace_head(model)
    assert list(model.state_dict()) == names
    assert {n: id(p) for n, p in model.named_parameters()} == {
        n: id(p) for n, p in parameters.items()
    }
    is_tied = head.weight is model.get_input_embeddings().weight
    assert is_tied == kind.endswith("tied")
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert list(loaded.state_dict()) == names
    torch.testing.assert_close(loaded(completion()[0]).logits, logits)


def test_replacing_twice_keeps_the_head():
    model = make_model("llama")
    head = replace_head(model)
    assert replace_head(model) is head
    assert model.lm_head is head


def test_head_of_an_adapted_model_scores_with_the_adapter():
    model = get_peft_model(
        make_model("llama tied"), LoraConfig(target_modules=["q_proj"], init_lora_weights=False)
    )
    names = list(model.state_dict())
    tokens, targets = completion()
    expected = scored_plainly(model, tokens)
    head = replace_head(model)
    assert isinstance(model.get_base_model().lm_head, ScoringHead)
    assert list(model.state_dict()) == names
    hidden = hidden_states(model, tokens)
    scored = head.logprobs(hidden, targets, options=OPTIONS)
    torch.testing.assert_close(scored.logprobs_N, expected, atol=1e-6, rtol=1e-6)
    with model.disable_adapter(), torch.no_grad():
        without = head.logprobs(hidden_states(model, tokens), targets, options=OPTIONS)
        torch.testing.assert_close(without.logprobs_N, scored_plainly(model, tokens))
    assert (without.logprobs_N - scored.logprobs_N).abs().max() > 1e-4
    scored.logprobs_N.sum().backward()
    with_grad = [n for n, p in model.named_parameters() if p.grad is not None]
    assert with_grad
    assert all("lora_" in name for name in with_grad)


@pytest.mark.parametrize(
    "targets", [{"target_modules": ["q_proj", "lm_head"]},
                {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}],
    ids=["lora", "trained copy"],
)  # fmt: skip
def test_adapted_head_is_refused(targets):
    model = get_peft_model(make_model("llama"), LoraConfig(**targets))
    with pytest.raises(
        ConfigError, match=r"plain linear layer, neither adapted .* got \w+ in Peft"
    ):
        replace_head(model)


def test_module_without_a_language_model_is_refused():
    with pytest.raises(ConfigError, match=r"plain linear layer, .* got NoneType in Linear"):
        replace_head(torch.nn.Linear(2, 2))
    with pytest.raises(ConfigError, match=r"plain linear layer, .* got NoneType in LlamaModel"):
        replace_head(make_model("llama").model)


def test_scaled_logits_are_refused():
    model = GraniteForCausalLM(GraniteConfig(**SIZES, logits_scaling=8.0))
    with pytest.raises(ConfigError, match=r"got logits_scaling=8\.0 in the config of a granite"):
        replace_head(model)


def test_cap_is_the_models_affair():
    head = replace_head(make_model("gemma2 tied"))
    assert head.softcap == 0.1
    hidden, targets = torch.zeros(1, 32), torch.zeros(1, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"cap must be left to the model's config, got 30\.0"):
        head.logprobs(hidden, targets, options=FusedOptions(softcap=30.0))
