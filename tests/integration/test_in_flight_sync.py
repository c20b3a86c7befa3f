"""Weights that change while an engine samples: each token by one version, caches by the new one."""

import numpy as np
import pytest
import ray
import torch

from actors.launch import rollout_pool
from actors.rollout import RolloutConfig
from actors.shared_weights import SharedWriter
from actors.weight_source import WeightSource
from c2s_rl.grpo.batch import pad_rows, rows_of
from c2s_rl.grpo.roles import RolloutRequest
from c2s_rl.models.policy import CompletionScorer
from c2s_rl.models.tokenizer import train_bpe
from c2s_rl.types import PromptRecord, Split, Task
from tests.integration.test_weight_sync import (
    NO_GENES,
    SAMPLING,
    SYMBOLS,
    TEMPERATURE,
    VOCABULARY,
    make_model,
    session,
)

__all__ = ["session"]

pytestmark = pytest.mark.integration

NUM_STEPS_BEFORE = 8
AGREES = 1e-4


def token_differences(model, groups, pad_id):
    """[rows, T] |engine - model| log-probability of each token; nan beyond a completion's end."""
    rows = rows_of(groups, [[0.0] * len(g.completions_G) for g in groups])
    batch = pad_rows(rows, pad_id)
    with torch.no_grad():
        scored = CompletionScorer(model.eval(), TEMPERATURE)(
            batch.input_ids_B_L,
            batch.attention_mask_B_L,
            batch.prompt_lengths_B,
            batch.completion_ids_B_T,
        )
    difference = (scored - batch.rollout_logprobs_B_T).abs().numpy()
    return np.where(batch.mask_B_T.numpy() > 0, difference, np.nan)


def test_tokens_before_the_change_are_the_old_policys_and_after_it_the_new_ones(session, tmp_path):
    texts = [" ".join(SYMBOLS[i:] + SYMBOLS[:i]) for i in range(40)]
    tokenizer = train_bpe(texts, vocabulary_size=600, max_length=128)
    old, new = (make_model("gpt_neox, untied head", len(tokenizer)) for _ in range(2))
    with torch.no_grad():
        for parameter in new.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    old.save_pretrained(tmp_path / "policy")
    tokenizer.save_pretrained(tmp_path / "policy")
    weights = SharedWriter(tmp_path, deadline_s=60, num_threads=1).publish(
        WeightSource(new, is_sharded=False, bucket_bytes=2**18), version=3
    )
    requests = [
        RolloutRequest(
            PromptRecord(
                str(i), f"{texts[i]}:", " x", Task.CELL_GENERATION, "c", "", "", Split.TRAIN,
                NO_GENES, NO_GENES,
            ),
            seed=i,
            ticket=i,
        )
        for i in range(3)
    ]  # fmt: skip
    with rollout_pool(tmp_path / "policy", VOCABULARY, SAMPLING, RolloutConfig()) as pool:
        (engine,) = pool.workers
        ray.get(engine.submit.remote(requests[:2]))
        for _ in range(NUM_STEPS_BEFORE):
            assert ray.get(engine.advance.remote(0.0)) == []
        ray.get(engine.update_weights.remote(weights))
        # the same prompt again, sampled by the new weights only: must not find the old cache
        ray.get(engine.submit.remote([*requests[2:], RolloutRequest(requests[0].record, 9, 9)]))
        groups = {}
        while len(groups) < 4:
            groups |= {a.ticket: a.group for a in ray.get(engine.advance.remote(60.0))}
    spanning, fresh = [groups[0], groups[1]], [groups[2], groups[9]]
    by_old, by_new = (token_differences(m, spanning, tokenizer.pad_token_id) for m in (old, new))
    assert np.nanmax(by_old[:, :NUM_STEPS_BEFORE]) < AGREES
    assert np.nanmax(by_new[:, NUM_STEPS_BEFORE:]) < AGREES
    # and the two policies do differ on the same tokens
    assert np.nanmean(by_new[:, :NUM_STEPS_BEFORE]) > 1e-2
    assert np.nanmean(by_old[:, NUM_STEPS_BEFORE:]) > 1e-2
    assert np.nanmax(token_differences(new, fresh, tokenizer.pad_token_id)) < AGREES
    assert {c.policy_version for g in spanning for c in g.completions_G} == {0}
    assert {c.policy_version for g in fresh for c in g.completions_G} == {3}
