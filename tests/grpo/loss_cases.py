"""Random steps and the configs of every loss, shared by the tests of the objective."""

from types import SimpleNamespace

import torch

from c2s_rl.grpo.loss import StepTotals, TokenInputs, grpo_loss, token_weights
from c2s_rl.grpo.loss_config import LossConfig, LossName

ALL = tuple(LossName)
LENGTHS = (7, 3, 1, 5)


def make_step(seed, lengths=LENGTHS, dtype=torch.float64):
    """Log-probabilities, advantages and mask of one optimiser step; padding holds noise."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=dtype)

    shape = (len(lengths), max(*lengths, 1))
    policy = -normal(*shape).abs()
    mask = (torch.arange(shape[1]) < torch.tensor(lengths).unsqueeze(1)).to(dtype)
    return SimpleNamespace(
        policy=policy,
        sampling=policy + 0.3 * normal(*shape),
        rollout=policy + 0.3 * normal(*shape),
        reference=policy + 0.3 * normal(*shape),
        entropy=normal(*shape).abs(),
        importance=normal(*shape).abs(),
        advantages=normal(len(lengths)),
        mask=mask,
        totals=StepTotals(len(lengths), int(mask.sum()), max_tokens=9),
    )


def make_inputs(config, step, policy, *, rows=slice(None), **changes):
    """What a learner hands to the loss for some rows of a step."""
    given = {
        "policy": policy[rows],
        "advantages": step.advantages[rows].unsqueeze(1),
        "weights": token_weights(config, step.mask[rows], step.totals),
        "sampling": step.sampling[rows] if config.updates_per_batch > 1 else None,
        "rollout": step.rollout[rows],
        "reference": step.reference[rows] if config.beta > 0 else None,
        "entropy": step.entropy[rows] if config.entropy_bonus > 0 else None,
    }
    return TokenInputs(**(given | changes))


def loss_and_gradient(config, step, *, parts=(slice(None),), loss=grpo_loss):
    """Sum the losses of parts of a step and give the policy's gradient."""
    policy = step.policy.clone().requires_grad_()
    value = sum(loss(config, make_inputs(config, step, policy, rows=rows)).loss for rows in parts)
    value.backward()
    return value.detach(), policy.grad


def config_of(name, **options):
    """Several updates a batch, so that ratios are not 1, and a KL penalty."""
    return LossConfig(name=name, **({"updates_per_batch": 2, "beta": 0.04} | options))
