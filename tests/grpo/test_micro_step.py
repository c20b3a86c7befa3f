"""Shared prompts, fused head, gene trie and loss together, against the padded oracle.

The oracle gives every completion its own copy of the prompt, keeps all logits, masks them with what
the trie allows and hands log-probabilities to the loss in one piece.
"""

import itertools

import numpy as np
import pytest
import torch

from c2s_rl.decoding.gene_trie import GeneTrie
from c2s_rl.grpo.batch import Row
from c2s_rl.grpo.loss import StepTotals, TokenInputs, grpo_loss, token_weights
from c2s_rl.grpo.loss_config import ImportanceConfig, LossConfig
from c2s_rl.grpo.micro_step import MicroBatch, Support, micro_loss
from c2s_rl.grpo.packing import GreedyPacker
from c2s_rl.grpo.passes import PassPlanner
from c2s_rl.models.checkpointing import checkpoint_layers
from c2s_rl.models.lora import LoraConfig, add_adapter
from c2s_rl.models.logprobs import FusedOptions
from c2s_rl.models.scorer import PackedScorer
from tests.models.shared_prompt_models import MODELS, make_model, relative_error

TOLERANCE = 1e-5  # relative, of norms, float32
EOS, MAX_TOKENS, TEMPERATURE = 0, 12, 0.8
# Tokens 1..9 are genes of one token; 10 goes on after 5, so that one gene is the prefix of another.
PATHS = {**{f"G{i}": [i] for i in range(1, 10)}, "G5X": [5, 10]}


def _encode(texts):
    return [[t for word in text.split() for t in PATHS[word]] for text in texts]


def make_support():
    return Support(GeneTrie.build(tuple(PATHS), _encode, eos_id=EOS), MAX_TOKENS)


def make_rows(num_groups=3, *, seed=0):
    """Groups of completions that the trie allows, of unequal lengths."""
    rng = np.random.default_rng(seed)
    groups = []
    for _ in range(num_groups):
        prompt = tuple(int(t) for t in rng.integers(11, 50, rng.integers(2, 9)))
        rows = []
        for _ in range(int(rng.integers(2, 5))):
            genes = rng.permutation(list(PATHS))[: rng.integers(1, 6)]
            ids = (*itertools.chain.from_iterable(PATHS[g] for g in genes), EOS)
            noise = tuple(float(x) for x in -1.5 - rng.random(len(ids)))
            rows.append(Row(prompt, ids, noise, float(rng.normal())))
        groups.append(rows)
    return groups


def totals_of(groups):
    rows = [row for rows in groups for row in rows]
    return StepTotals(len(rows), sum(len(r.completion_ids) for r in rows), MAX_TOKENS)


def padded_logprobs(model, rows, support):
    """[B, T] log-probabilities, one forward pass a completion."""
    logprobs = torch.zeros(len(rows), max(len(row.completion_ids) for row in rows))
    for place, row in enumerate(rows):
        num_prompt, num_answer = len(row.prompt_ids), len(row.completion_ids)
        ids = torch.tensor([row.prompt_ids + row.completion_ids])
        logits = model(input_ids=ids, use_cache=False).logits[0, num_prompt - 1 : -1] / TEMPERATURE
        if support is not None:
            bits = support.trie.replay(row.completion_ids, max_tokens=support.max_tokens)
            columns = torch.from_numpy(support.trie.columns_U)
            flags = np.unpackbits(bits, axis=1, bitorder="little", count=len(columns))
            allowed = torch.zeros(num_answer, logits.shape[1], dtype=torch.bool)
            allowed[:, columns] = torch.from_numpy(flags).bool()
            logits = logits.masked_fill(~allowed, -torch.inf)
        chosen = torch.log_softmax(logits, 1).gather(1, torch.tensor(row.completion_ids)[:, None])
        logprobs = logprobs.index_put(
            (torch.full((num_answer,), place), torch.arange(num_answer)), chosen[:, 0]
        )
    return logprobs


def padded_loss(config, model, groups, *, support, reference):
    rows = [row for rows in groups for row in rows]
    policy = padded_logprobs(model, rows, support)
    lengths = torch.tensor([len(row.completion_ids) for row in rows])
    mask = (torch.arange(policy.shape[1]) < lengths.unsqueeze(1)).float()
    rollout = torch.zeros_like(mask)
    for place, row in enumerate(rows):
        rollout[place, : len(row.rollout_logprobs)] = torch.tensor(row.rollout_logprobs)
    with torch.no_grad():
        reference_logprobs = padded_logprobs(reference, rows, support)
    return grpo_loss(
        config,
        TokenInputs(
            policy=policy,
            advantages=torch.tensor([row.advantage for row in rows]).unsqueeze(1),
            weights=token_weights(config, mask, totals_of(groups)),
            sampling=policy.detach() if config.updates_per_batch > 1 else None,
            rollout=rollout,
            reference=reference_logprobs,
        ),
    ).loss


def packed_loss(config, model, cuts, totals, *, support, reference):
    """Sum over micro-batches, with the gradient accumulated in the model."""
    options = FusedOptions(
        temperature=TEMPERATURE,
        softcap=model.config.to_dict().get("final_logit_softcapping"),
        chunk_tokens=5,
    )
    scorer = PackedScorer(model, options)
    frozen = PackedScorer(reference, options)
    total = 0.0
    for parts in cuts:
        micro = MicroBatch.of(parts, pad_id=0, support=support, device=torch.device("cpu"))
        with torch.no_grad():
            micro.reference_N = frozen(micro.inputs).logprobs_N
        terms = micro_loss(config, scorer, micro, totals)
        terms.loss.backward()
        total += terms.loss.item()
    return total


def gradients_of(model):
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def assert_equal_gradients(found, expected):
    assert found.keys() == expected.keys()
    errors = {name: relative_error(found[name], expected[name]) for name in expected}
    assert {name: e for name, e in errors.items() if e >= TOLERANCE} == {}


def cut(groups, max_tokens):
    packer = GreedyPacker(max_tokens)
    return [parts for rows in groups for parts in packer.add(rows)] + packer.flush()


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("with_trie", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_loss_and_all_gradients_equal_the_padded_oracle(name, with_trie, checkpointed):
    config = LossConfig(beta=0.1)
    support = make_support() if with_trie else None
    groups = make_rows()
    model, reference = make_model(name), make_model(name, seed=1)
    expected_loss = padded_loss(config, model, groups, support=support, reference=reference)
    expected_loss.backward()
    expected = gradients_of(model)
    model.zero_grad()
    if checkpointed:
        checkpoint_layers(model)
    loss = packed_loss(
        config, model, cut(groups, 40), totals_of(groups), support=support, reference=reference
    )
    assert loss == pytest.approx(expected_loss.item(), rel=1e-5)
    assert_equal_gradients(gradients_of(model), expected)
