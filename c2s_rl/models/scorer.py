"""The policy as the learner trains it: packed rows in, log-probabilities or a finished loss out.

Shared prompts (`shared_prompt`) and the fused LM head (`scoring_head`) put together in one module,
so that DeepSpeed can wrap it at any ZeRO stage. The padded `policy.CompletionScorer` is the
reference that this one is tested against. Left out: packing and the loss (`c2s_rl.grpo`).
Shape suffixes: L packed tokens, N completion tokens, D hidden.
"""

from dataclasses import dataclass

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from c2s_rl.models.logprobs import (
    FusedLogprobs,
    FusedLoss,
    FusedOptions,
    RestrictedColumns,
    TokenLoss,
)
from c2s_rl.models.prompt_layout import SharedPromptLayout
from c2s_rl.models.scoring_head import replace_head
from c2s_rl.models.shared_prompt import shared_prompt_hidden, use_shared_prompts


@dataclass(frozen=True, eq=False)
class PackedInputs:
    """One packed row, and what is scored of it."""

    input_ids_1_L: torch.Tensor
    """[1, L] int64."""
    position_ids_1_L: torch.Tensor
    """[1, L] int64."""
    layout: SharedPromptLayout
    """Where prompts and completions lie."""
    predict_N: torch.Tensor
    """[N] int64 index into L of the state that predicts each completion token."""
    targets_N: torch.Tensor
    """[N] int64 completion tokens."""
    columns: RestrictedColumns | None = None
    """Support of each token's distribution; None for the whole vocabulary."""


class PackedScorer(nn.Module):
    """Wraps a causal language model; its forward pass scores packed completions."""

    def __init__(self, model: PreTrainedModel | PeftModel, options: FusedOptions) -> None:
        """Switch the model to shared prompts and a fused head, in place.

        Args:
            model: Without dropout (evaluation mode); full or with a LoRA adapter.
            options: Temperature and chunk size; whether entropies are wanted.

        Raises:
            ConfigError: If the model's LM head cannot be fused.
        """
        super().__init__()
        use_shared_prompts(model)
        replace_head(model)
        self.model = model
        self._options = options

    def forward(
        self, inputs: PackedInputs, token_loss: TokenLoss | None = None
    ) -> FusedLogprobs | FusedLoss:
        """Score the completion tokens of a packed row.

        log p(token) under softmax(logits / temperature) over the columns allowed, in float32
        whatever the model's type: the processed distribution that the sampler draws from.

        Args:
            inputs: One packed row.
            token_loss: Also sum this loss over the tokens, with its gradient formed on the way.

        Returns:
            Log-probabilities with gradient, or the loss with gradient and log-probabilities
            without; in the order of `targets_N`.
        """
        hidden_1_L_D = shared_prompt_hidden(
            self.model, inputs.input_ids_1_L, inputs.position_ids_1_L, inputs.layout
        )
        hidden_N_D = hidden_1_L_D[0, inputs.predict_N]
        head = replace_head(self.model)  # the one from above
        if token_loss is None:
            return head.logprobs(
                hidden_N_D, inputs.targets_N, options=self._options, columns=inputs.columns
            )
        return head.token_loss(
            hidden_N_D, inputs.targets_N, token_loss, options=self._options, columns=inputs.columns
        )
