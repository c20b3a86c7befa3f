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
from c2s_rl.models.logprobs import FusedOptions
from c2s_rl.models.lora import LoraConfig, add_adapter
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


def make_policy(name):
    model = make_model(name)
    if name == "gemma2":
        model.config.final_logit_softcapping = 3.0  # bends logits that are around 2
    return model


def make_reference(name):
    """The same architecture with other weights."""
    model = make_policy(name)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    return model


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
    options = FusedOptions(temperature=TEMPERATURE, chunk_tokens=5)
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
    model, reference = make_policy(name), make_reference(name)
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


CONFIGS = {
    "cispo": LossConfig(name="cispo", beta=0.1, kl="k2"),
    "kl_correction": LossConfig(name="dr_grpo", beta=0.1, kl="k1", kl_correction=True),
    "token_importance": LossConfig(
        beta=0.1, importance=ImportanceConfig(level="token", mode="truncate", high=1.1)
    ),
    "sequence_importance": LossConfig(
        beta=0.1, importance=ImportanceConfig(level="sequence", mode="truncate", high=1.5)
    ),
    "gspo_several_updates": LossConfig(name="gspo", beta=0.1, updates_per_batch=2),
    "sapo_against_the_sampler": LossConfig(name="sapo", beta=0.1, sampling_logprobs="rollout"),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_every_way_to_the_loss_gives_the_oracles_gradients(config):
    support, groups = make_support(), make_rows(seed=3)
    model, reference = make_policy("gpt_neox"), make_reference("gpt_neox")
    expected_loss = padded_loss(config, model, groups, support=support, reference=reference)
    expected_loss.backward()
    expected = gradients_of(model)
    model.zero_grad()
    loss = packed_loss(
        config, model, cut(groups, 30), totals_of(groups), support=support, reference=reference
    )
    assert loss == pytest.approx(expected_loss.item(), rel=1e-5)
    assert_equal_gradients(gradients_of(model), expected)


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_a_second_update_measures_its_ratio_from_the_first(level):
    # After the weights moved, ratio and importance have to be those of log-probabilities kept from
    # the first update; the oracle is given them as plain [B, T] tensors.
    importance = ImportanceConfig(level=level, mode="mask", low=0.2, high=4.0)
    config = LossConfig(beta=0.0, updates_per_batch=2, importance=importance)
    groups = make_rows(seed=5)
    model = make_policy("llama_untied")
    scorer = PackedScorer(model, FusedOptions(temperature=TEMPERATURE))
    (parts,) = cut(groups, 10_000)
    micro = MicroBatch.of(parts, pad_id=0, support=None, device=torch.device("cpu"))
    first = micro_loss(config, scorer, micro, totals_of(groups))
    micro.sampling_N = first.logprobs_N
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.99)
    second = micro_loss(config, scorer, micro, totals_of(groups))
    second.loss.backward()
    found = gradients_of(model)
    model.zero_grad()
    batch = micro.batch
    policy_N, _ = scorer(micro.inputs)
    terms = grpo_loss(
        config,
        TokenInputs(
            policy=batch.padded(policy_N),
            advantages=batch.advantages_B.unsqueeze(1),
            weights=token_weights(config, batch.mask_B_T, totals_of(groups)),
            sampling=batch.padded(first.logprobs_N),
            rollout=batch.rollout_logprobs_B_T,
        ),
    )
    terms.loss.backward()
    assert second.stats.sums["ratio"] != pytest.approx(first.stats.sums["ratio"].item(), rel=1e-4)
    assert second.loss.item() == pytest.approx(terms.loss.item(), rel=1e-5)
    assert_equal_gradients(found, gradients_of(model))


def test_lora_gradients_equal_the_oracle_with_the_adapter_off_as_reference():
    config, support, groups = LossConfig(beta=0.1), make_support(), make_rows(seed=2)
    reference = make_policy("llama_tied")
    adapted = add_adapter(make_policy("llama_tied"), LoraConfig(rank=3, seed=1))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:  # a new adapter changes nothing: give it something to do
                torch.nn.init.normal_(parameter, std=0.05)
    expected_loss = padded_loss(config, adapted, groups, support=support, reference=reference)
    expected_loss.backward()
    expected = gradients_of(adapted)
    adapted.zero_grad()
    scorer = PackedScorer(adapted, FusedOptions(temperature=TEMPERATURE))
    checkpoint_layers(adapted.get_base_model())
    total = 0.0
    for parts in cut(groups, 40):
        micro = MicroBatch.of(parts, pad_id=0, support=support, device=torch.device("cpu"))
        with torch.no_grad(), adapted.disable_adapter():
            micro.reference_N = scorer(micro.inputs).logprobs_N
        terms = micro_loss(config, scorer, micro, totals_of(groups))
        terms.loss.backward()
        total += terms.loss.item()
    assert total == pytest.approx(expected_loss.item(), rel=1e-5)
    assert all("lora_" in name for name in expected)
    assert_equal_gradients(gradients_of(adapted), expected)


@pytest.mark.parametrize(
    ("num_ranks", "max_tokens", "order"), [(1, 1, "kept"), (2, 40, "kept"), (1, 60, "reversed")]
)
def test_the_step_does_not_depend_on_ranks_budget_or_order(num_ranks, max_tokens, order):
    config, support = LossConfig(name="dapo", beta=0.1), make_support()
    groups = make_rows(num_groups=5, seed=7)
    model, reference = make_policy("gpt_neox"), make_reference("gpt_neox")
    whole = packed_loss(
        config, model, cut(groups, 10_000), totals_of(groups), support=support, reference=reference
    )
    expected = gradients_of(model)
    model.zero_grad()
    planner = PassPlanner(num_ranks, max_tokens)
    dealt = groups if order == "kept" else groups[::-1]
    passes = [p for rows in dealt for p in planner.add(rows)] + planner.flush()
    assert {len(p) for p in passes} == {num_ranks}
    cuts = [parts for p in passes for parts in p]
    loss = packed_loss(config, model, cuts, totals_of(groups), support=support, reference=reference)
    assert loss == pytest.approx(whole, rel=1e-5)
    assert_equal_gradients(gradients_of(model), expected)
