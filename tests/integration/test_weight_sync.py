"""Weights through shared memory into a running vLLM engine: tied and untied, altered bytes."""

import numpy as np
import pytest
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM

from actors.launch import rollout_pool
from actors.rollout import RolloutConfig
from actors.session import RayConfig, ray_session
from actors.shared_weights import full_tensors, publish_shared
from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.grpo.batch import pad_rows, rows_of
from c2s_rl.grpo.roles import RolloutRequest
from c2s_rl.grpo.sampling import SamplingConfig
from c2s_rl.models.policy import CompletionScorer
from c2s_rl.models.tokenizer import train_bpe
from c2s_rl.pipeline.align_figures import mean_difference
from c2s_rl.types import PromptRecord, Split, Task

pytestmark = pytest.mark.integration

SYMBOLS = tuple(f"GENE{i}" for i in range(40))
VOCABULARY = Vocabulary(SYMBOLS, SYMBOLS)
TEMPERATURE = 0.7
SAMPLING = SamplingConfig(group_size=4, max_tokens=24, temperature=TEMPERATURE)
NO_GENES = np.zeros(0, dtype=np.int32)


def make_model(kind, num_tokens):
    torch.manual_seed(0)
    sizes = {
        "vocab_size": num_tokens,
        "hidden_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 256,
        "max_position_embeddings": 128,
    }
    if kind == "gpt_neox, untied head":
        return GPTNeoXForCausalLM(GPTNeoXConfig(**sizes, tie_word_embeddings=False))
    return LlamaForCausalLM(LlamaConfig(**sizes, num_key_value_heads=2, tie_word_embeddings=True))


@pytest.fixture(scope="module")
def session():
    with ray_session(RayConfig(), num_cpus=1):
        yield


def difference(model, groups, pad_id):
    """Mean |engine - model| log-probability over all sampled tokens."""
    rows = rows_of(groups, [[0.0] * len(g.completions_G) for g in groups])
    batch = pad_rows(rows, pad_id)
    with torch.no_grad():
        scored = CompletionScorer(model.eval(), TEMPERATURE)(
            batch.input_ids_B_L,
            batch.attention_mask_B_L,
            batch.prompt_lengths_B,
            batch.completion_ids_B_T,
        ).tolist()
    size = SAMPLING.group_size
    return mean_difference(groups, [scored[i * size : (i + 1) * size] for i in range(len(groups))])


@pytest.mark.parametrize("kind", ["gpt_neox, untied head", "llama, tied head"])
def test_engine_answers_with_the_published_weights(session, tmp_path, kind):
    texts = [" ".join(SYMBOLS[i:] + SYMBOLS[:i]) for i in range(40)]
    tokenizer = train_bpe(texts, vocabulary_size=600, max_length=128)
    model = make_model(kind, len(tokenizer))
    policy = tmp_path / "policy"
    model.save_pretrained(policy)
    tokenizer.save_pretrained(policy)
    requests = [
        RolloutRequest(
            PromptRecord(
                str(i), f"{texts[i]}:", " x", Task.CELL_GENERATION, "c", "", "", Split.TRAIN,
                NO_GENES, NO_GENES,
            ),
            seed=i,
        )
        for i in range(3)
    ]  # fmt: skip
    with rollout_pool(policy, VOCABULARY, SAMPLING, RolloutConfig()) as pool:
        before = pool.generate(requests)
        assert difference(model, before, tokenizer.pad_token_id) < 1e-4
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        # the engine still has the former weights, and the comparison sees it
        assert difference(model, before, tokenizer.pad_token_id) > 1e-2
        tensors = full_tensors(model, is_sharded=False)
        weights = publish_shared(tensors, path=tmp_path / "weights", version=1)
        pool.update_weights(weights)
        after = pool.generate(requests)
        assert difference(model, after, tokenizer.pad_token_id) < 1e-4
        assert {c.policy_version for g in after for c in g.completions_G} == {1}
        assert before[0].completions_G[0].token_ids_T != after[0].completions_G[0].token_ids_T
        content = bytearray((tmp_path / "weights").read_bytes())
        content[100] ^= 1
        (tmp_path / "weights").write_bytes(content)
        with pytest.raises(Exception, match="published weights must arrive unaltered"):
            pool.update_weights(weights)
