"""The objective: each loss by hand, and what must not change it."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from c2s_rl.grpo.importance import mismatch_weights
from c2s_rl.grpo.loss import StepTotals, TokenInputs, grpo_loss, step_divisor, token_loss
from c2s_rl.grpo.loss import token_weights as weights_of
from c2s_rl.grpo.loss_config import LossConfig, LossName, needs_whole_sequences
from c2s_rl.grpo.loss_stats import LossStats
from tests.grpo.loss_cases import ALL, config_of, loss_and_gradient, make_inputs, make_step

IMPORTANCE = [
    None,
    {"level": "token", "mode": "truncate", "low": 0.7, "high": 1.3},
    {"level": "sequence", "mode": "mask", "low": 0.2, "high": 3.0},
]


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def one_token(config, *, policy=-1.0, sampling=None, reference=None, advantage=2.0, **given):
    inputs = TokenInputs(
        policy=tensor(policy),
        advantages=tensor(advantage),
        weights=tensor(1.0),
        sampling=None if sampling is None else tensor(sampling),
        reference=None if reference is None else tensor(reference),
        **given,
    )
    return token_loss(config, inputs)


class TestByHand:
    def test_clip_and_k3_of_one_token(self):
        # ratio = e^0.5 = 1.6487, clipped to 1.2; advantage 2: min(3.2974, 2.4) = 2.4
        # k3 with r = log ref - log policy = -0.1: e^-0.1 + 0.1 - 1 = 0.004837418
        # loss = -(2.4 - 0.5 * 0.004837418) = -2.397581291
        config = LossConfig(beta=0.5, updates_per_batch=2)
        terms = one_token(config, sampling=-1.5, reference=-1.1)
        assert terms.loss.item() == pytest.approx(-2.397581291, abs=1e-9)
        sums = {name: value.item() for name, value in terms.stats.sums.items()}
        assert sums["kl"] == pytest.approx(0.004837418, abs=1e-9)
        assert (sums["clipped_low"], sums["clipped_high"]) == (0.0, 1.0)
        assert (sums["neg_logprob"], sums["tokens"]) == (1.0, 1.0)
        assert terms.stats.maxima["ratio_max"].item() == pytest.approx(1.6487212707)

    def test_k3_times_the_ratio(self):
        # as above, k3 times e^0.5: 0.5 * 0.004837418 * 1.648721271 = 0.003987777
        config = LossConfig(beta=0.5, updates_per_batch=2, kl_correction=True)
        loss = one_token(config, sampling=-1.5, reference=-1.1).loss
        assert loss.item() == pytest.approx(-2.4 + 0.003987777, abs=1e-8)

    @pytest.mark.parametrize(("kl", "value"), [("k1", 0.1), ("k2", 0.005), ("k3", 0.004837418)])
    def test_kl_estimators(self, kl, value):
        # u = log policy - log reference = 0.1; on policy the surrogate is the advantage, 2
        loss = one_token(LossConfig(beta=0.5, kl=kl), reference=-1.1).loss
        assert loss.item() == pytest.approx(-2.0 + 0.5 * value, abs=1e-9)

    def test_entropy_bonus(self):
        loss = one_token(LossConfig(beta=0, entropy_bonus=0.1), entropy=tensor(3.0)).loss
        assert loss.item() == pytest.approx(-2.0 - 0.1 * 3.0)

    def test_cispo_weighs_the_log_probability_with_the_capped_ratio(self):
        # ratio e^2 = 7.389 capped to 5; -(5 x 2 x (-1)) = 10
        config = LossConfig(name="cispo", beta=0, updates_per_batch=2)
        terms = one_token(config, sampling=-3.0)
        assert terms.loss.item() == pytest.approx(10.0)
        assert terms.stats.sums["clipped_high"].item() == 1.0

    @pytest.mark.parametrize(
        ("advantage", "expected"),
        # ratio 1.5; A > 0: tau 1, 4 sigmoid(0.5) 2 = 4.979674; A < 0: tau 1.05,
        # 4 / 1.05 sigmoid(0.525) (-2) = -4.787171
        [(2.0, -4.979674), (-2.0, 4.787171)],
    )
    def test_sapo_gates_by_the_sign_of_the_advantage(self, advantage, expected):
        config = LossConfig(name="sapo", beta=0, updates_per_batch=2)
        loss = one_token(config, sampling=-1.0 - math.log(1.5), advantage=advantage).loss
        assert loss.item() == pytest.approx(expected, abs=1e-6)

    def test_gspo_clips_the_completion_as_one(self):
        # log-ratios 0.5 and -0.1: mean 0.2, e^0.2 = 1.2214 clipped to 1.2, A = 1: loss -1.2,
        # both tokens held, though the second one alone would not be
        config = LossConfig(name="gspo", beta=0, updates_per_batch=2)
        inputs = TokenInputs(
            policy=tensor([-1.0, -1.0]),
            advantages=tensor([1.0]),
            weights=weights_of(config, tensor([1.0, 1.0]), StepTotals(1, 2, 5)),
            sampling=tensor([-1.5, -0.9]),
        )
        terms = grpo_loss(config, inputs)
        assert terms.loss.item() == pytest.approx(-1.2)
        assert terms.stats.sums["clipped_high"].item() == 2.0

    @pytest.mark.parametrize(
        ("name", "expected"),
        # ratios 1, A = 3 over 3 tokens, A = -1 over 1; N = 2, max_tokens = 5
        # completions: (3 - 1) / 2 = 1; constant: (9 - 1) / (2 x 5) = 0.8; tokens: (9 - 1) / 4 = 2
        # sapo's gate at ratio 1 is 2 / tau: (3 x 2 - 2 / 1.05) / 2 = 2.0476190
        [
            ("grpo", -1.0),
            ("gspo", -1.0),
            ("sapo", -2.0476190),
            ("dr_grpo", -0.8),
            ("bnpo", -2.0),
            ("dapo", -2.0),
        ],
    )
    def test_normalisers(self, name, expected):
        config = LossConfig(name=name, beta=0)
        mask = tensor([1.0, 1.0, 1.0], [1.0, 0.0, 0.0])
        inputs = TokenInputs(
            policy=torch.zeros_like(mask),
            advantages=tensor([3.0], [-1.0]),
            weights=weights_of(config, mask, StepTotals(2, 4, 5)),
        )
        assert grpo_loss(config, inputs).loss.item() == pytest.approx(expected)

    def test_a_step_without_tokens_has_loss_zero(self):
        for name in ALL:
            config = LossConfig(name=name, beta=0)
            assert step_divisor(config, StepTotals(0, 0, 5)) == 1
            weights = weights_of(config, torch.zeros(2, 3), StepTotals(0, 0, 5))
            inputs = TokenInputs(torch.zeros(2, 3), torch.ones(2, 1), weights)
            terms = grpo_loss(config, inputs)
            assert terms.loss.item() == 0.0
            assert terms.stats.maxima["ratio_max"].item() == 0.0

    def test_masked_importance_drops_the_term_but_not_the_kl(self):
        # learner / sampler = e^1 = 2.718 > 2: the surrogate is gone, 0.5 k3 = 0.002418709 stays
        band = {"level": "token", "mode": "mask", "high": 2.0}
        config = LossConfig(beta=0.5, importance=band)
        loss = one_token(config, reference=-1.1, rollout=tensor(-2.0)).loss
        assert loss.item() == pytest.approx(0.002418709, abs=1e-9)

    def test_ratio_against_the_sampler(self):
        # e^(-1 + 1.1) = e^0.1 = 1.10517, inside the clip: loss -2.2103418
        config = LossConfig(beta=0, sampling_logprobs="rollout")
        loss = one_token(config, rollout=tensor(-1.1)).loss
        assert loss.item() == pytest.approx(-2.2103418, abs=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_on_policy_every_loss_has_the_plain_policy_gradient(name):
    # d loss / d log p = -weight x advantage, whatever the surrogate
    config = LossConfig(name=name, beta=0)
    step = make_step(0)
    _, gradient = loss_and_gradient(config, step)
    expected = -step.advantages.unsqueeze(1) * weights_of(config, step.mask, step.totals)
    torch.testing.assert_close(gradient, expected, atol=1e-15, rtol=1e-12)


def test_on_policy_gspo_of_tokens_equals_gspo_of_whole_completions():
    # The ratio of the completion, taken as in the off-policy form with sampling = policy.detach()
    step = make_step(2)
    step.sampling = step.policy.clone()
    whole = loss_and_gradient(config_of("gspo"), step)
    tokens = loss_and_gradient(config_of("gspo", updates_per_batch=1), step, loss=token_loss)
    torch.testing.assert_close(tokens[0], whole[0])
    torch.testing.assert_close(tokens[1], whole[1])


@st.composite
def partitioned_steps(draw):
    """A step, and its rows dealt out to ranks and micro-batches in any way."""
    lengths = draw(st.lists(st.integers(0, 6), min_size=1, max_size=8))
    places = draw(st.lists(st.integers(0, 3), min_size=len(lengths), max_size=len(lengths)))
    parts = [[i for i, place in enumerate(places) if place == p] for p in range(4)]
    order = draw(st.permutations(range(4)))
    return make_step(draw(st.integers(0, 99)), lengths), [parts[p] for p in order if parts[p]]


@given(partitioned_steps(), st.sampled_from(ALL), st.sampled_from(IMPORTANCE), st.booleans())
@settings(max_examples=60)
def test_the_step_does_not_depend_on_packing_micro_batches_or_ranks(case, name, band, is_stale):
    step, parts = case
    config = config_of(
        name, importance=band, entropy_bonus=0.1, updates_per_batch=2 if is_stale else 1
    )
    whole = loss_and_gradient(config, step)
    split = loss_and_gradient(config, step, parts=parts)
    torch.testing.assert_close(split[0], whole[0], atol=1e-12, rtol=1e-10)
    torch.testing.assert_close(split[1], whole[1], atol=1e-14, rtol=1e-10)


@given(partitioned_steps(), st.sampled_from(ALL), st.booleans(), st.integers(1, 5))
@settings(max_examples=60)
def test_flat_chunks_give_what_whole_completions_give(case, name, is_stale, chunk):
    step, _ = case
    config = config_of(
        name, importance=IMPORTANCE[1], entropy_bonus=0.1, updates_per_batch=2 if is_stale else 1
    )
    if needs_whole_sequences(config):
        assert (name, is_stale) == (LossName.GSPO, True)
        return
    whole = loss_and_gradient(config, step)
    policy = step.policy.clone().requires_grad_()
    padded = make_inputs(config, step, policy)
    real = step.mask.bool()
    fields = {
        field: value.expand_as(real)[real]
        for field, value in vars(padded).items()
        if value is not None
    }
    loss, stats = torch.zeros((), dtype=torch.float64), LossStats({}, {})
    for start in range(0, int(real.sum()), chunk):
        part = slice(start, start + chunk)
        terms = token_loss(config, TokenInputs(**{k: v[part] for k, v in fields.items()}))
        loss, stats = loss + terms.loss, stats + terms.stats
    torch.testing.assert_close(loss.detach(), whole[0], atol=1e-12, rtol=1e-10)
    if real.any():
        loss.backward()
        torch.testing.assert_close(policy.grad, whole[1], atol=1e-14, rtol=1e-10)
        expected = grpo_loss(config, padded).stats
        assert {k: v.item() for k, v in stats.sums.items()} == pytest.approx(
            {k: v.item() for k, v in expected.sums.items()}
        )
        assert {k: v.item() for k, v in stats.maxima.items()} == pytest.approx(
            {k: v.item() for k, v in expected.maxima.items()}
        )


@pytest.mark.parametrize("noise", [-50.0, 1e30, math.inf, math.nan])
@pytest.mark.parametrize("band", IMPORTANCE)
@pytest.mark.parametrize("name", ALL)
def test_padding_has_no_influence(name, band, noise):
    config = config_of(name, importance=band, entropy_bonus=0.1, kl_correction=True)
    step, noisy = make_step(1), make_step(1)
    for field in ("policy", "sampling", "rollout", "reference", "entropy"):
        values = torch.where(step.mask.bool(), vars(step)[field], noise)
        vars(noisy)[field] = values
    clean = loss_and_gradient(config, step)
    other = loss_and_gradient(config, noisy)
    torch.testing.assert_close(other[0], clean[0], atol=0, rtol=0)
    torch.testing.assert_close(other[1], clean[1], atol=0, rtol=0)
    assert not clean[1][~step.mask.bool()].any()
    sums = [grpo_loss(config, make_inputs(config, s, s.policy)).stats.sums for s in (step, noisy)]
    assert {k: v.item() for k, v in sums[0].items()} == {k: v.item() for k, v in sums[1].items()}


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_importance_prepared_before_equals_importance_made_on_the_way(level):
    config = config_of("grpo", importance={"level": level, "mode": "truncate", "high": 1.3})
    step = make_step(8)
    prepared = mismatch_weights(
        config.importance,
        learner=step.sampling,
        rollout=step.rollout,
        is_real=step.mask.bool(),
    )
    by_token = token_loss(
        config, make_inputs(config, step, step.policy, importance=prepared.weights)
    )
    whole = grpo_loss(config, make_inputs(config, step, step.policy))
    torch.testing.assert_close(by_token.loss, whole.loss, atol=0, rtol=0)


class TestMissingInputs:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({}, "beta above 0 needs the reference's log-probabilities, got none"),
            ({"beta": 0, "updates_per_batch": 2}, "needs the first update's log-probabilities"),
            ({"beta": 0, "sampling_logprobs": "rollout"}, "needs the sampler's log-probabilities"),
            ({"beta": 0, "importance": IMPORTANCE[1]}, "importance needs the sampler's"),
            ({"beta": 0, "entropy_bonus": 0.1}, "needs the policy's entropies, got none"),
        ],
    )
    def test_what_the_config_needs_must_be_there(self, options, message):
        with pytest.raises(ValueError, match=message):
            one_token(LossConfig(**options))

    @pytest.mark.parametrize(
        ("options", "got"),
        [
            ({}, "updates_per_batch=1 and sampling_logprobs=learner"),
            (
                {"updates_per_batch": 2, "sampling_logprobs": "rollout"},
                "updates_per_batch=2 and sampling_logprobs=rollout",
            ),
        ],
    )
    def test_first_updates_logprobs_that_are_not_read_are_refused(self, options, got):
        with pytest.raises(ValueError, match=f"must be left out when they are not read, .*{got}"):
            one_token(LossConfig(beta=0, **options), sampling=-1.5, rollout=tensor(-1.0))

    @pytest.mark.parametrize(
        "config",
        [config_of("gspo"), LossConfig(beta=0, importance=IMPORTANCE[2])],
    )
    def test_losses_over_whole_completions_are_no_sum_over_tokens(self, config):
        with pytest.raises(ValueError, match="must go through grpo_loss, got name="):
            one_token(config)

    def test_sequence_weights_must_be_prepared_for_tokens(self):
        with pytest.raises(ValueError, match="needs weights from mismatch_weights, got none"):
            one_token(config_of("grpo", importance=IMPORTANCE[2]), rollout=tensor(-1.0))
