"""Vectors of texts by a policy: the plain mean of the tokens, whatever stands beside a text."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from c2s_rl.errors import DataError, MissingFileError
from c2s_rl.models.encoder_dtype import EncoderDtype
from c2s_rl.models.policy_embedder import PolicyEmbedder
from c2s_rl.models.tokenizer import train_bpe
from tests.models.shared_prompt_models import MODELS

GENES = [f"GENE{i}" for i in range(40)]
TEXTS = [
    " ".join(GENES[:1]),
    " ".join(GENES[3:12]),
    " ".join(GENES[20:32]),
    " ".join(reversed(GENES[:9])),
    " ".join(GENES[5:30]),
]
NAMES = [f"c{i}" for i in range(len(TEXTS))]


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe([" ".join(GENES)] * 3, vocabulary_size=330, max_length=64)


@pytest.fixture(params=["gpt_neox", "llama_tied", "gemma2"])
def policy(request, tmp_path, tokenizer):
    """Gemma-2's layers of 7 tokens and its cap are those of the shared models."""
    torch.manual_seed(0)
    config = MODELS[request.param]().config
    config.vocab_size = len(tokenizer)
    model = AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
        else:  # norms that scale: leaving the final one out would show
            torch.nn.init.uniform_(parameter, 0.5, 2.0)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


def load(folder, **changes):
    options = {"dtype": EncoderDtype.FLOAT32, "batch_tokens": 128} | changes
    return PolicyEmbedder(folder, **options)


def oracle(folder, tokenizer, text, *, num_left=0):
    """One text alone through the plain model, with or without masked padding on its left."""
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    padded = torch.tensor([[1] * num_left + ids])
    mask = torch.tensor([[0] * num_left + [1] * len(ids)])
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        states = model(
            input_ids=padded,
            attention_mask=mask,
            position_ids=positions,
            output_hidden_states=True,
        ).hidden_states[-1]
    return states[0, num_left:].mean(dim=0).numpy()


def test_a_vector_is_the_mean_over_the_texts_own_tokens(policy, tokenizer):
    embedded = load(policy).embed(TEXTS, NAMES)
    assert embedded.dtype == np.float32
    assert embedded.shape == (5, 32)
    for row, text in zip(embedded, TEXTS, strict=True):
        for num_left in (0, 5):
            expected = oracle(policy, tokenizer, text, num_left=num_left)
            np.testing.assert_allclose(row, expected, rtol=1e-5, atol=1e-6)


def test_a_vector_does_not_depend_on_what_stands_beside_it(policy):
    together = load(policy, batch_tokens=4096).embed(TEXTS * 3, NAMES * 3)
    narrow = load(policy, batch_tokens=1)
    alone = np.concatenate([narrow.embed([t], [n]) for t, n in zip(TEXTS, NAMES, strict=True)])
    backwards = load(policy, batch_tokens=64).embed(TEXTS[::-1], NAMES)[::-1]
    np.testing.assert_array_equal(together[:5], alone)
    np.testing.assert_array_equal(backwards, alone)
    assert np.abs(alone[0] - alone[1]).max() > 0.01


def test_half_precision_stays_near(policy):
    full = load(policy).embed(TEXTS, NAMES)
    half = load(policy, dtype=EncoderDtype.BFLOAT16).embed(TEXTS, NAMES)
    assert half.dtype == np.float32
    cosine = (full * half).sum(1) / np.linalg.norm(full, axis=1) / np.linalg.norm(half, axis=1)
    assert cosine.min() > 0.99
    assert np.abs(full - half).max() > 0


def test_a_text_that_does_not_fit_is_named(policy):
    long = " ".join(GENES * 3)
    with pytest.raises(DataError, match=r"1 to 64 tokens .*, got \d+ in 'c9'; num_genes"):
        load(policy).embed([TEXTS[0], long], ["c1", "c9"])
    with pytest.raises(DataError, match="got 0 in 'c1'"):
        load(policy).embed([""], ["c1"])


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(MissingFileError, match=r"a folder with a config\.json, got .*nowhere"):
        load(tmp_path / "nowhere")


def test_damaged_weights_are_named(policy):
    weights = policy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(DataError, match="weights must be whole, got"):
        load(policy)
