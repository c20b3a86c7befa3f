"""Completion log-probabilities of padded rows."""

import math

import pytest
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM

from c2s_rl.errors import MissingFileError
from c2s_rl.grpo.batch import Row, pad_rows
from c2s_rl.models.policy import CompletionScorer, load_policy


def _models():
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 50,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
    }
    return [
        GPTNeoXForCausalLM(GPTNeoXConfig(**sizes)),
        LlamaForCausalLM(LlamaConfig(**sizes, num_key_value_heads=2, tie_word_embeddings=True)),
    ]


@pytest.mark.parametrize("model", _models(), ids=["gpt_neox", "llama"])
@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_padded_rows_score_like_each_row_alone(model, temperature):
    rows = [
        Row((5, 6, 7, 8), (9, 10), (0.0,) * 2, 0.0),
        Row((11,), (12, 13, 14, 15, 16), (0.0,) * 5, 0.0),
        Row((17, 18), (19,), (0.0,), 0.0),
    ]
    batch = pad_rows(rows, pad_id=0)
    scorer = CompletionScorer(model.eval(), temperature)
    with torch.no_grad():
        scored = scorer(
            batch.input_ids_B_L,
            batch.attention_mask_B_L,
            batch.prompt_lengths_B,
            batch.completion_ids_B_T,
        )
        for index, row in enumerate(rows):
            ids = torch.tensor([row.prompt_ids + row.completion_ids])
            logprobs = torch.log_softmax(model(ids).logits[0].float() / temperature, dim=-1)
            # the token at place p is predicted at place p - 1
            alone = [
                logprobs[len(row.prompt_ids) - 1 + t, token].item()
                for t, token in enumerate(row.completion_ids)
            ]
            assert scored[index, : len(alone)].tolist() == pytest.approx(alone, abs=1e-5)
    assert torch.isfinite(scored).all()


def test_only_allowed_tokens_share_the_probability():
    model = _models()[1].eval()
    row = Row((5, 6), (9, 3), (0.0,) * 2, 0.0)
    batch = pad_rows([row], pad_id=0)
    # token 0 was one of 3, 9, 20; token 1 had no choice
    allowed = torch.tensor([[[True, True, True], [True, False, False]]])
    with torch.no_grad():
        scored = CompletionScorer(model, 0.5)(
            batch.input_ids_B_L,
            batch.attention_mask_B_L,
            batch.prompt_lengths_B,
            batch.completion_ids_B_T,
            torch.tensor([3, 9, 20]),
            allowed,
        )
        logits = model(torch.tensor([[5, 6, 9, 3]])).logits[0, 1] / 0.5
    odds = {token: logits[token].exp().item() for token in (3, 9, 20)}
    expected = math.log(odds[9] / sum(odds.values()))
    assert scored[0].tolist() == pytest.approx([expected, 0.0], abs=1e-5)


def test_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(MissingFileError, match=r"must be a folder with a config\.json, got"):
        load_policy(tmp_path, "float32")
