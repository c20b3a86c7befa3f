"""The LM head's scores and gradients as two functions of autograd.

What they compute is in `c2s_rl.models.head_chunks`; callers use `c2s_rl.models.logprobs`, which
checks the input.
Shape suffixes: N completion tokens (flat), n those of a chunk, D hidden, V vocabulary, U columns
scored.
"""

from collections.abc import Callable

import torch
from torch.autograd.function import FunctionCtx, once_differentiable

from c2s_rl.models.head_chunks import ChunkedHead, HeadCall, Scores, accumulation_dtype
from c2s_rl.models.head_gradients import HeadGradients

# (log-probabilities [n], entropies [n] or None, which of the N tokens) -> scalar share of the loss
TokenLoss = Callable[[torch.Tensor, torch.Tensor | None, slice], torch.Tensor]


class _Context(FunctionCtx):
    """What autograd keeps between the passes."""

    call: HeadCall
    gradients: HeadGradients | None
    saved_tensors: tuple[
        torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor, torch.Tensor | None
    ]
    needs_input_grad: tuple[bool, ...]


class LogprobsFunction(torch.autograd.Function):
    """Keeps hidden states, weight and a number or two a token; projects again to go back."""

    @staticmethod
    def forward(
        ctx: _Context,
        hidden_N_D: torch.Tensor,
        weight_V_D: torch.Tensor,
        bias_V: torch.Tensor | None,
        call: HeadCall,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return log-probabilities [N] and entropies [N] or None."""
        dtype = accumulation_dtype(hidden_N_D)
        with_entropy = call.options.with_entropy
        head = ChunkedHead(
            call, weight_V_D, bias_V, dtype=dtype, with_entropy=with_entropy, with_gradient=False
        )
        scores = Scores.empty(call, dtype)
        for rows in head.chunks():
            scores.put_(rows, head.score(hidden_N_D[rows], rows)[0])
        ctx.call = call
        ctx.set_materialize_grads(False)
        # The weight is saved as itself: under ZeRO-3 it is empty until the backward pass reaches
        # the head, whose hook fills it again. A copy, cast or view of it would stay in memory.
        kept = hidden_N_D, weight_V_D, bias_V, scores.logsumexp, scores.entropy
        ctx.save_for_backward(*kept)  # type: ignore[arg-type] # None is allowed
        return scores.logprobs, scores.entropy

    @staticmethod
    @once_differentiable
    def backward(
        ctx: _Context, grad_logprobs_N: torch.Tensor | None, grad_entropy_N: torch.Tensor | None
    ) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of hidden states, weight and bias."""
        hidden_N_D, weight_V_D, bias_V, logsumexp_N, entropy_N = ctx.saved_tensors
        if grad_logprobs_N is None:
            grad_logprobs_N = torch.zeros_like(logsumexp_N)
        dtype = logsumexp_N.dtype
        with_entropy = grad_entropy_N is not None
        head = ChunkedHead(
            ctx.call, weight_V_D, bias_V, dtype=dtype, with_entropy=with_entropy, with_gradient=True
        )
        inputs = hidden_N_D, weight_V_D, bias_V
        needs = ctx.needs_input_grad
        gradients = HeadGradients(ctx.call, *inputs, needs=needs, dtype=dtype)
        for rows in head.chunks():
            entropy_n = entropy_N[rows] if entropy_N is not None else None
            chunk = head.score_again(hidden_N_D[rows], rows, logsumexp_N[rows], entropy_n)
            grad_entropy_n = grad_entropy_N[rows] if grad_entropy_N is not None else None
            grad_n_U = head.differentiate_(chunk, grad_logprobs_N[rows], grad_entropy_n)
            gradients.add_(head, grad_n_U, hidden_N_D[rows], rows)
        return *gradients.take(), None


class TokenLossFunction(torch.autograd.Function):
    """Forms the gradients of the loss with respect to its inputs while it computes it."""

    @staticmethod
    def forward(
        ctx: _Context,
        hidden_N_D: torch.Tensor,
        weight_V_D: torch.Tensor,
        bias_V: torch.Tensor | None,
        call: HeadCall,
        token_loss: TokenLoss,
        is_training: bool,  # noqa: FBT001 - autograd passes by position
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Return the loss, log-probabilities [N] and entropies [N] or None."""
        dtype = accumulation_dtype(hidden_N_D)
        is_training = is_training and any(ctx.needs_input_grad)
        with_entropy = call.options.with_entropy
        head = ChunkedHead(
            call,
            weight_V_D,
            bias_V,
            dtype=dtype,
            with_entropy=with_entropy,
            with_gradient=is_training,
        )
        inputs = hidden_N_D, weight_V_D, bias_V
        gradients = None
        if is_training:
            needs = ctx.needs_input_grad
            gradients = HeadGradients(call, *inputs, needs=needs, dtype=dtype)
        scores = Scores.empty(call, dtype)
        loss = torch.zeros((), dtype=dtype, device=hidden_N_D.device)
        for rows in head.chunks():
            of_chunk, chunk = head.score(hidden_N_D[rows], rows)
            scores.put_(rows, of_chunk)
            if gradients is None:
                loss += token_loss(of_chunk.logprobs, of_chunk.entropy, rows)
                continue
            part, grad_logprobs_n, grad_entropy_n = _differentiated(token_loss, of_chunk, rows)
            loss += part
            grad_n_U = head.differentiate_(chunk, grad_logprobs_n, grad_entropy_n)
            gradients.add_(head, grad_n_U, hidden_N_D[rows], rows)
        ctx.gradients = gradients
        ctx.mark_non_differentiable(scores.logprobs)
        if scores.entropy is not None:
            ctx.mark_non_differentiable(scores.logprobs, scores.entropy)
        return loss, scores.logprobs, scores.entropy

    @staticmethod
    @once_differentiable
    def backward(
        ctx: _Context, grad_loss: torch.Tensor, *_: torch.Tensor | None
    ) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of hidden states, weight and bias."""
        if ctx.gradients is None:
            raise RuntimeError("the backward pass of a fused loss can be made once, got a second")
        gradients, ctx.gradients = ctx.gradients, None
        return *gradients.take(grad_loss), None, None, None


def _differentiated(
    token_loss: TokenLoss, scores: Scores, rows: slice
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Evaluate a chunk's loss and its derivatives by log-probability and by entropy."""
    with torch.enable_grad():
        logprobs_n = scores.logprobs.requires_grad_()
        entropy_n = scores.entropy.requires_grad_() if scores.entropy is not None else None
        loss = token_loss(logprobs_n, entropy_n, rows)
        leaves = [logprobs_n] if entropy_n is None else [logprobs_n, entropy_n]
        grads = torch.autograd.grad(loss, leaves, allow_unused=True)
    grad_logprobs_n = torch.zeros_like(logprobs_n) if grads[0] is None else grads[0]
    return loss.detach(), grad_logprobs_n, grads[1] if len(grads) > 1 else None
