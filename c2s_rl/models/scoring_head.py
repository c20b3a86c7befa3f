"""The LM head as a module that scores completion tokens.

Being a module in the place of the model's own head, it is what DeepSpeed ZeRO-3 hooks on to: the
weight is gathered before its forward and before its backward pass, and let go after each. Left out:
heads that are adapted or quantised, and models that scale their logits.
Shape suffixes: N completion tokens (flat), D hidden, V vocabulary.
"""

from dataclasses import dataclass, replace

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from c2s_rl.errors import ConfigError
from c2s_rl.models.logprobs import (
    FusedLogprobs,
    FusedLoss,
    FusedOptions,
    RestrictedColumns,
    TokenLoss,
    fused_logprobs,
    fused_token_loss,
)

# What other families multiply or divide their logits by; none of ours does.
LOGIT_SCALES = ("logit_scale", "logits_scaling", "output_multiplier", "lm_head_multiplier")


@dataclass(frozen=True, eq=False)
class Scoring:
    """What to do with hidden states instead of projecting them."""

    targets_N: torch.Tensor
    """[N] int64 token ids."""
    options: FusedOptions
    """Temperature and so on; the cap is filled in by the head."""
    columns: RestrictedColumns | None
    """The support; None for the whole vocabulary."""
    token_loss: TokenLoss | None
    """The loss, where its gradients are to be formed at once."""


class ScoringHead(nn.Linear):
    """A model's LM head with its own parameters, tied or not, under their own names.

    Called with hidden states alone it projects, as the layer it replaces. `logprobs` and
    `token_loss` go through the same call, so that hooks see them.
    """

    def __init__(self, linear: nn.Linear, softcap: float | None) -> None:
        # On the meta device the layer's own weights take no memory until they are replaced.
        has_bias = linear.bias is not None
        super().__init__(linear.in_features, linear.out_features, bias=has_bias, device="meta")
        self.weight = linear.weight
        self.bias = linear.bias
        self.softcap = softcap
        self.train(linear.training)

    def logprobs(
        self,
        hidden_N_D: torch.Tensor,
        targets_N: torch.Tensor,
        *,
        options: FusedOptions,
        columns: RestrictedColumns | None = None,
    ) -> FusedLogprobs:
        """Score completion tokens: `fused_logprobs` with this head's weight, bias and cap."""
        scoring = Scoring(targets_N, options, columns, token_loss=None)
        result: FusedLogprobs = self(hidden_N_D, scoring=scoring)
        return result

    def token_loss(
        self,
        hidden_N_D: torch.Tensor,
        targets_N: torch.Tensor,
        token_loss: TokenLoss,
        *,
        options: FusedOptions,
        columns: RestrictedColumns | None = None,
    ) -> FusedLoss:
        """Sum a loss: `fused_token_loss` with this head's weight, bias and cap."""
        scoring = Scoring(targets_N, options, columns, token_loss)
        result: FusedLoss = self(hidden_N_D, scoring=scoring)
        return result

    # Hidden states come by position and the rest by keyword: ZeRO-3's hooks take what comes by
    # position for what a gradient flows through.
    def forward(  # type: ignore[override] # the typed ways in are the two methods above
        self, input: torch.Tensor, *, scoring: Scoring | None = None
    ) -> torch.Tensor | FusedLogprobs | FusedLoss:
        """Project [..., D] to [..., V] without the cap; or score [N, D] where told what."""
        if scoring is None:
            return super().forward(input)
        if scoring.options.softcap is not None:
            raise ValueError(
                f"the cap must be left to the model's config, got {scoring.options.softcap}"
            )
        options = replace(scoring.options, softcap=self.softcap)
        if scoring.token_loss is None:
            return fused_logprobs(
                input, self.weight, scoring.targets_N,
                bias_V=self.bias, options=options, columns=scoring.columns,
            )  # fmt: skip
        return fused_token_loss(
            input, self.weight, scoring.targets_N, scoring.token_loss,
            bias_V=self.bias, options=options, columns=scoring.columns,
        )  # fmt: skip


def replace_head(model: nn.Module) -> ScoringHead:
    """Put a `ScoringHead` in the place of a model's LM head.

    Parameters stay the same objects, so optimisers, ties and state dicts do not notice. Adapters
    come first: a head that peft wraps later would be scored without its adapter.

    Args:
        model: A causal language model, or one that is wrapped by peft.

    Returns:
        The head, which is now part of the model; the same one when called again.

    Raises:
        ConfigError: If there is no causal language model with a plain linear head, or its config
            scales the logits.
    """
    causal = next((m for m in model.modules() if isinstance(m, PreTrainedModel)), None)
    head = causal.get_output_embeddings() if causal is not None else None  # type: ignore[no-untyped-call]
    if isinstance(head, ScoringHead):
        return head
    # Exactly nn.Linear: peft's and quantised layers are linear too, but their weight is not all.
    if causal is None or type(head) is not nn.Linear:
        raise ConfigError(
            "the LM head must be a plain linear layer, neither adapted (leave it out of LoRA's "
            f"targets) nor quantised, got {type(head).__name__} in {type(model).__name__}"
        )
    scoring_head = ScoringHead(head, read_softcap(causal.config))
    causal.set_output_embeddings(scoring_head)  # type: ignore[no-untyped-call]
    return scoring_head


def read_softcap(config: PreTrainedConfig) -> float | None:
    """Read how a model's logits are capped after the projection.

    Raises:
        ConfigError: If they are also scaled, which a `ScoringHead` would leave out.
    """
    values = config.to_dict()
    for key in LOGIT_SCALES:
        if values.get(key) not in (None, 1.0):
            raise ConfigError(
                "logits must be what the LM head gives, up to a cap, "
                f"got {key}={values[key]} in the config of a {config.model_type} model"
            )
    softcap = values.get("final_logit_softcapping")
    return None if softcap is None else float(softcap)
