"""TRL's own GRPO methods, called on given tensors by a trainer that was never set up."""

from collections import defaultdict
from types import SimpleNamespace

import torch
from trl import GRPOTrainer

ACCELERATOR = SimpleNamespace(
    device=torch.device("cpu"),
    num_processes=1,
    process_index=0,
    sync_gradients=False,
    reduce=lambda x, reduction: x,
    gather=lambda x: x,
)


def trl_loss(tensors, policy, *, rows=slice(None), accumulation=1, **settings):
    """Loss of `GRPOTrainer._compute_loss` for some rows, in an accumulation of equal parts."""
    trainer = object.__new__(GRPOTrainer)
    trainer.__dict__ |= _loss_state(policy[rows], tensors.entropy[rows], accumulation) | settings
    mask = tensors.mask[rows].long()
    inputs = {
        "prompt_ids": torch.zeros(len(mask), 1, dtype=torch.long),
        "prompt_mask": torch.ones(len(mask), 1, dtype=torch.long),
        "completion_ids": torch.zeros_like(mask),
        "completion_mask": mask,
        "advantages": tensors.advantages[rows],
        "old_per_token_logps": tensors.sampling[rows],
        "ref_per_token_logps": tensors.reference[rows],
        "num_items_in_batch": tensors.mask.sum(),
        "importance_sampling_ratio": tensors.importance[rows],
    }
    return trainer._compute_loss(None, inputs)


def trl_args(**settings):
    """The part of GRPOConfig that the loss reads, with TRL's defaults but for the KL."""
    defaults = {
        "delta": None,
        "use_bias_correction_kl": False,
        "sapo_temperature_pos": 1.0,
        "sapo_temperature_neg": 1.05,
        "steps_per_generation": 1,
    }
    return SimpleNamespace(**(defaults | settings))


def _loss_state(policy, entropy, accumulation):
    return {
        "_get_per_token_logps_and_entropies": lambda *_, **__: (policy, entropy, None),
        "loss_type": "grpo",
        "importance_sampling_level": "token",
        "epsilon_low": 0.2,
        "epsilon_high": 0.2,
        "beta": 0.0,
        "args": trl_args(steps_per_generation=accumulation),
        "max_completion_length": 9,
        "model": SimpleNamespace(training=True),
        "current_gradient_accumulation_steps": accumulation,
        "accelerator": ACCELERATOR,
        "_metrics": {"train": defaultdict(list)},
        "top_entropy_quantile": 1.0,
        "off_policy_mask_threshold": None,
        "aux_loss_enabled": False,
        "use_vllm": False,
        "vllm_importance_sampling_correction": True,
        "_entropy_bonus_enabled": False,
        "use_adaptive_entropy": False,
    }


def trl_scored(rewards_P_G, *, learner=None, rollout=None, lengths=None, **settings):
    """Advantages and importance ratios of `GRPOTrainer._generate_and_score_completions`."""
    rewards = torch.tensor([r for group in rewards_P_G for r in group]).unsqueeze(1)
    lengths = [1] * len(rewards) if lengths is None else lengths
    ids = [[1] * n for n in lengths]
    sampled = None
    if rollout is not None:
        sampled = [row[:n].tolist() for row, n in zip(rollout, lengths, strict=True)]
    trainer = object.__new__(GRPOTrainer)
    trainer.__dict__ |= _scoring_state(learner, rewards, len(rewards_P_G[0])) | settings
    trainer.__dict__["_generate"] = lambda prompts: (
        [[1]] * len(prompts),
        ids,
        None,
        [""] * len(prompts),
        sampled,
        {},
        None,
        None,
    )
    return trainer._generate_and_score_completions([{"prompt": "p"} for _ in ids])


def _scoring_state(learner, rewards, group_size):
    return {
        "accelerator": ACCELERATOR,
        "model": SimpleNamespace(training=True, is_gradient_checkpointing=False),
        "environment_factories": None,
        "environments": None,
        "tools": None,
        "_tokenizer": SimpleNamespace(pad_token_id=0),
        "pad_to_multiple_of": None,
        "mask_truncated_completions": False,
        "args": SimpleNamespace(
            per_device_train_batch_size=len(rewards),
            gradient_checkpointing_kwargs=None,
            steps_per_generation=1,
            gradient_accumulation_steps=1,
        ),
        "num_iterations": 1,
        "num_generations": group_size,
        "use_vllm": learner is not None,
        "vllm_importance_sampling_correction": True,
        "_get_per_token_logps_and_entropies": lambda *_, **__: (learner, None, None),
        "beta": 0.0,
        "_calculate_rewards": lambda *_: rewards,
        "multi_objective_aggregation": "sum_then_normalize",
        "reward_weights": torch.ones(1),
        "reward_func_names": ["reward"],
        "_metrics": {"train": defaultdict(list)},
        "_logs": defaultdict(list, {"rewards": defaultdict(list)}),
        "_pending_extra_logs": {},
        "_pending_metrics": {},
        "scale_rewards": "group",
    }
