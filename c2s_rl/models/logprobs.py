"""Log-probabilities of completion tokens fused with the LM head.

`fused_logprobs` gives them with gradient; its backward pass projects a second time.
`fused_token_loss` is given the loss as well, forms all gradients while it has the logits, and needs
no second projection. Neither ever holds logits of all tokens: of vocabulary width there is one
chunk of tokens. Left out: the loss (`c2s_rl.grpo.loss`) and finding the head in a model
(`c2s_rl.models.scoring_head`).
Shape suffixes: N completion tokens (flat), n those of a chunk, D hidden, V vocabulary, U columns
scored.
"""

from typing import NamedTuple

import torch

from c2s_rl.errors import DataError
from c2s_rl.models.columns import RestrictedColumns
from c2s_rl.models.head_autograd import LogprobsFunction, TokenLoss, TokenLossFunction
from c2s_rl.models.head_chunks import FusedOptions, HeadCall

__all__ = [
    "FusedLogprobs",
    "FusedLoss",
    "FusedOptions",
    "RestrictedColumns",
    "TokenLoss",
    "fused_logprobs",
    "fused_token_loss",
]

DEFAULTS = FusedOptions()


# Named tuples, not dataclasses: ZeRO-3's hooks look for tensors in tuples only, and a head whose
# output they cannot look into is not gathered for the backward pass.
class FusedLogprobs(NamedTuple):
    """Scores of completion tokens."""

    logprobs_N: torch.Tensor
    """[N] natural logs, float32 (float64 for float64 input), with gradient."""
    entropy_N: torch.Tensor | None
    """[N] entropy in nats of each token's distribution, with gradient; None if not asked for."""


class FusedLoss(NamedTuple):
    """A loss over completion tokens whose gradient is already known."""

    loss: torch.Tensor
    """Scalar sum over the chunks."""
    logprobs_N: torch.Tensor
    """[N] natural logs, without gradient."""
    entropy_N: torch.Tensor | None
    """[N] entropies in nats, without gradient; None if not asked for."""


def fused_logprobs(
    hidden_N_D: torch.Tensor,
    weight_V_D: torch.Tensor,
    targets_N: torch.Tensor,
    *,
    bias_V: torch.Tensor | None = None,
    options: FusedOptions = DEFAULTS,
    columns: RestrictedColumns | None = None,
) -> FusedLogprobs:
    """Score completion tokens under softmax(logits / temperature).

    Args:
        hidden_N_D: [N, D] the backbone's last hidden state that predicts each token.
        weight_V_D: [V, D] of the head. Must be the parameter itself, not a copy or a view: ZeRO-3
            takes its values away after the forward pass and brings them back for the backward.
        targets_N: [N] int64 token ids.
        bias_V: [V] of the head, where it has one.
        options: Temperature, cap, chunk size; whether entropy is wanted.
        columns: The support; None for the whole vocabulary.

    Returns:
        Log-probabilities and, on request, entropies, in the order of `targets_N`.

    Raises:
        ValueError: If shapes do not fit each other.
        DataError: If a target is not a token of the vocabulary or not allowed by `columns`.
    """
    call = _checked(hidden_N_D, weight_V_D, targets_N, options, columns)
    outputs: tuple[torch.Tensor, torch.Tensor | None] = LogprobsFunction.apply(  # type: ignore[no-untyped-call]
        hidden_N_D, weight_V_D, bias_V, call
    )
    return FusedLogprobs(*outputs)


def fused_token_loss(
    hidden_N_D: torch.Tensor,
    weight_V_D: torch.Tensor,
    targets_N: torch.Tensor,
    token_loss: TokenLoss,
    *,
    bias_V: torch.Tensor | None = None,
    options: FusedOptions = DEFAULTS,
    columns: RestrictedColumns | None = None,
) -> FusedLoss:
    """Score completion tokens, sum a loss over them and form its gradients at once.

    Each chunk is projected once: its log-probabilities go to `token_loss`, whose derivative on
    those few numbers gives the gradient of the chunk's logits while they are still there. The
    backward pass only scales what was formed, and can be made once. Without gradients (under
    `torch.no_grad`) it only scores.

    Args:
        hidden_N_D: [N, D] the backbone's last hidden state that predicts each token.
        weight_V_D: [V, D] of the head; frozen (LoRA) it costs no gradient.
        targets_N: [N] int64 token ids.
        token_loss: Called once for each chunk, in order, with log-probabilities [n], entropies [n]
            or None, and the slice of the N tokens they belong to; returns the chunk's share of the
            loss, a scalar that autograd can differentiate. Only losses that are sums over tokens
            can be cut like this.
        bias_V: [V] of the head, where it has one.
        options: Temperature, cap, chunk size; whether entropy is wanted.
        columns: The support; None for the whole vocabulary.

    Returns:
        The loss, with gradient, and what it was computed from, without.

    Raises:
        ValueError: If shapes do not fit each other.
        DataError: If a target is not a token of the vocabulary or not allowed by `columns`.
    """
    call = _checked(hidden_N_D, weight_V_D, targets_N, options, columns)
    # Inside of a Function gradients always look switched off.
    is_training = torch.is_grad_enabled()
    outputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor | None] = TokenLossFunction.apply(  # type: ignore[no-untyped-call]
        hidden_N_D, weight_V_D, bias_V, call, token_loss, is_training
    )
    return FusedLoss(*outputs)


def _checked(
    hidden_N_D: torch.Tensor,
    weight_V_D: torch.Tensor,
    targets_N: torch.Tensor,
    options: FusedOptions,
    columns: RestrictedColumns | None,
) -> HeadCall:
    shapes = [list(t.shape) for t in (hidden_N_D, weight_V_D, targets_N)]
    sizes = [shape[0] for shape in shapes]
    if shapes != [[sizes[0], shapes[0][-1]], [sizes[1], shapes[0][-1]], [sizes[0]]]:
        raise ValueError(
            "hidden states, weight and targets must be [N, D], [V, D] and [N], "
            f"got {', '.join(map(str, shapes))}"
        )
    is_outside_N = (targets_N < 0) | (targets_N >= len(weight_V_D))
    if bool(is_outside_N.any()):
        raise DataError(
            f"completion tokens must be from 0 to {len(weight_V_D) - 1}, "
            f"got {int(targets_N[is_outside_N][0])}"
        )
    positions_N = targets_N if columns is None else columns.positions(targets_N)
    return HeadCall(positions_N, columns, options)
