"""Completions of the real vLLM under the gene trie: valid cells, with the masked distribution."""

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from actors.launch import rollout_pool
from actors.rollout import RolloutConfig
from actors.session import RayConfig, ray_session
from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.decoding.constraint import GeneConstraint, GeneMode, gene_trie_for
from c2s_rl.grpo.roles import RolloutRequest
from c2s_rl.grpo.sampling import SamplingConfig
from c2s_rl.models.tokenizer import train_bpe
from c2s_rl.types import PromptRecord, Split, Task

pytestmark = pytest.mark.integration

# few merges, so that genes take several tokens and CD3 is the beginning of CD3D
SYMBOLS = tuple(f"{stem}{i}" for stem in ("HLA-", "CD", "IFIT", "AC00.") for i in range(60))
VOCABULARY = Vocabulary(SYMBOLS, SYMBOLS)
TEMPERATURE = 0.7
NO_GENES = np.zeros(0, dtype=np.int32)


def make_policy(folder):
    tokenizer = train_bpe([" ".join(SYMBOLS)], vocabulary_size=300, max_length=256)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, intermediate_size=128, max_position_embeddings=256,
        initializer_range=0.2,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return tokenizer, model.eval()


def masked_logprobs(model, trie, group, completion, max_tokens):
    """The model's own log-probabilities under the mask replayed from the tokens."""
    tokens = list(completion.token_ids_T)
    ids = torch.tensor([[*group.prompt_token_ids, *tokens]])
    with torch.no_grad():
        logits = model(ids).logits[0, len(group.prompt_token_ids) - 1 : -1] / TEMPERATURE
    bits = trie.replay(tokens, max_tokens=max_tokens)
    allowed = np.unpackbits(bits, axis=1, count=len(trie.columns_U), bitorder="little")
    masked = torch.full_like(logits, -torch.inf)
    columns = torch.from_numpy(trie.columns_U)
    kept = torch.where(torch.from_numpy(allowed).bool(), logits[:, columns], -torch.inf)
    masked[:, columns] = kept
    return masked.log_softmax(-1)[torch.arange(len(tokens)), torch.tensor(tokens)]


def test_engine_samples_valid_cells_from_the_masked_distribution(tmp_path):
    tokenizer, model = make_policy(tmp_path / "policy")
    listed = SYMBOLS[:200]
    (tmp_path / "genes.txt").write_text("\n".join(listed))
    sampling = SamplingConfig(
        group_size=8,
        max_tokens=40,
        temperature=TEMPERATURE,
        genes=GeneConstraint(min_genes=3, max_genes=12, gene_list=tmp_path / "genes.txt"),
    ).for_task(Task.CELL_GENERATION)
    assert sampling.genes.mode is GeneMode.ON
    requests = [
        RolloutRequest(
            PromptRecord(
                str(i), f"cell {i}" * (i + 1), " x", Task.CELL_GENERATION, "c", "", "", Split.TRAIN,
                NO_GENES, NO_GENES,
            ),
            seed=i,
        )
        for i in range(6)
    ]  # fmt: skip
    # fewer places than completions: requests enter, leave and move in the batch
    config = RolloutConfig(max_num_seqs=20, kv_cache_gib=1)
    with (
        ray_session(RayConfig(), num_cpus=1),
        rollout_pool(tmp_path / "policy", VOCABULARY, sampling, config) as pool,
    ):
        groups = pool.generate(requests)
    trie = gene_trie_for(tokenizer, VOCABULARY, sampling.genes)
    num_genes = set()
    differences = []
    for group in groups:
        for completion, cell in zip(group.completions_G, group.cells_G, strict=True):
            assert (cell.num_duplicates, cell.unknown, cell.is_truncated) == (0, (), False)
            assert cell.genes_K.max() < len(listed)
            assert completion.token_ids_T[-1] == tokenizer.eos_token_id
            num_genes.add(len(cell.genes_K))
            expected = masked_logprobs(model, trie, group, completion, sampling.max_tokens)
            sampled = torch.tensor(completion.rollout_logprobs_T)
            differences.append((sampled - expected).abs().max().item())
    assert min(num_genes) >= 3
    assert 3 < max(num_genes) <= 12
    assert max(differences) < 1e-3
