"""Attention of a packed row, block by block, without a copy of the prompt's keys and values.

A completion's attention is split into a block on the shared prompt, computed for all completions
at once, and a block on itself. Each block yields its normalised output and the log-sum-exp of its
scores; two blocks of the same queries merge by

    lse = log(exp(lse_a) + exp(lse_b)),  out = exp(lse_a - lse) out_a + exp(lse_b - lse) out_b.

Backward, a block's probabilities are exp(score - lse) with the *merged* lse, and of the output the
softmax gradient needs only sum(grad_out * out), which is the merged one: so each block's gradient
is computed alone, from saved tensors no larger than the row, and the gradients add up.
Source: the merge of blocks in FlashAttention (arXiv:2205.14135), across devices in Ring Attention
(arXiv:2310.01889).
Left out: dropout, and a second derivative.
Shape suffixes: L packed tokens, B sequences of a block, S their queries, J their keys, H heads,
K key-value heads, E head size.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import torch
from torch.autograd.function import once_differentiable

from c2s_rl.models.prompt_layout import Piece, SharedPromptLayout


@dataclass(frozen=True)
class AttentionRule:
    """How one layer turns queries and keys into scores."""

    scale: float
    """Scores are query . key * scale."""
    softcap: float | None
    """Scores become softcap * tanh(score / softcap); None leaves them."""
    window: int | None
    """A query sees keys fewer than `window` positions before it; None: all."""


@dataclass(frozen=True, eq=False)
class Block:
    """The tensors of one piece, as views of the row."""

    query_B_H_S_E: torch.Tensor
    key_B_K_J_E: torch.Tensor
    value_B_K_J_E: torch.Tensor
    query_positions_S: torch.Tensor
    """[S] int64 positions in the sequence; those of the first of the B sequences."""
    key_positions_J: torch.Tensor
    """[J] int64, ascending by one."""
    is_causal: bool
    rule: AttentionRule


@dataclass(frozen=True, eq=False)
class Attended:
    """What queries got."""

    out_B_H_S_E: torch.Tensor
    """Weighted mean of the values; 0 where a query sees no key."""
    lse_B_H_S: torch.Tensor
    """float32 log-sum-exp of the scores; -inf where a query sees no key."""


@dataclass(frozen=True, eq=False)
class BlockGradients:
    """Gradients of a block's inputs, in their shapes."""

    query_B_H_S_E: torch.Tensor
    key_B_K_J_E: torch.Tensor
    value_B_K_J_E: torch.Tensor


class BlockKernel(Protocol):
    """Computes one block."""

    def forward(self, block: Block) -> Attended:
        """Attend within the block alone."""

    def backward(
        self, block: Block, attended: Attended, grad_out_B_H_S_E: torch.Tensor
    ) -> BlockGradients:
        """Differentiate, given what the queries got over all their blocks."""


class FlashKernel:
    """PyTorch's fused attention for CPUs: neither soft-cap nor window."""

    def forward(self, block: Block) -> Attended:
        """See `BlockKernel`."""
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            block.query_B_H_S_E,
            block.key_B_K_J_E,
            block.value_B_K_J_E,
            0.0,
            block.is_causal,
            scale=block.rule.scale,
        )
        return Attended(out, lse)

    def backward(
        self, block: Block, attended: Attended, grad_out_B_H_S_E: torch.Tensor
    ) -> BlockGradients:
        """See `BlockKernel`."""
        gradients = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            grad_out_B_H_S_E,
            block.query_B_H_S_E,
            block.key_B_K_J_E,
            block.value_B_K_J_E,
            attended.out_B_H_S_E,
            attended.lse_B_H_S,
            0.0,
            block.is_causal,
            scale=block.rule.scale,
        )
        return BlockGradients(*gradients)


def piecewise_attention(
    query_1_H_L_E: torch.Tensor,
    key_1_K_L_E: torch.Tensor,
    value_1_K_L_E: torch.Tensor,
    *,
    layout: SharedPromptLayout,
    rule: AttentionRule,
    kernel: BlockKernel,
) -> torch.Tensor:
    """Attend over a packed row; differentiable once.

    Returns:
        [1, H, L, E], with memory in the order [1, L, H, E].
    """
    out: torch.Tensor = _Piecewise.apply(  # type: ignore[no-untyped-call]
        query_1_H_L_E, key_1_K_L_E, value_1_K_L_E, layout, rule, kernel
    )
    return out


class _Context(Protocol):
    """What autograd keeps between the two passes."""

    saved_tensors: tuple[torch.Tensor, ...]
    layout: SharedPromptLayout
    rule: AttentionRule
    kernel: BlockKernel

    def save_for_backward(self, *tensors: torch.Tensor) -> None: ...


class _Piecewise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: _Context,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        layout: SharedPromptLayout,
        rule: AttentionRule,
        kernel: BlockKernel,
    ) -> torch.Tensor:
        _, heads, length, size = query.shape
        out = query.new_empty(1, length, heads, size).transpose(1, 2)
        lse = query.new_empty(1, length, heads, dtype=torch.float32).transpose(1, 2)
        positions = _positions(layout, query.device)
        for piece in layout.pieces:
            block = _block(piece, (query, key, value), positions, rule)
            part = kernel.forward(block)
            whole = Attended(_queries(piece, out), _queries(piece, lse))
            if piece.opens_queries:
                whole.out_B_H_S_E.copy_(part.out_B_H_S_E)
                whole.lse_B_H_S.copy_(part.lse_B_H_S)
            else:
                _merge(whole, part)
        ctx.save_for_backward(query, key, value, out, lse, positions)
        ctx.layout, ctx.rule, ctx.kernel = layout, rule, kernel
        return out

    @staticmethod
    @once_differentiable
    def backward(
        ctx: _Context, grad_out: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, None, None, None]:
        query, key, value, out, lse, positions = ctx.saved_tensors
        # every token is a query and a key of an opening piece, so all of these get written
        grad_query, grad_key, grad_value = (torch.empty_like(x) for x in (query, key, value))
        for piece in ctx.layout.pieces:
            gradients = ctx.kernel.backward(
                _block(piece, (query, key, value), positions, ctx.rule),
                Attended(_queries(piece, out), _queries(piece, lse)),
                _queries(piece, grad_out),
            )
            for total, gradient, is_first in (
                (_queries(piece, grad_query), gradients.query_B_H_S_E, piece.opens_queries),
                (_keys(piece, grad_key), gradients.key_B_K_J_E, piece.opens_keys),
                (_keys(piece, grad_value), gradients.value_B_K_J_E, piece.opens_keys),
            ):
                if is_first:
                    total.copy_(gradient)
                else:
                    total.add_(gradient)
        return grad_query, grad_key, grad_value, None, None, None


@lru_cache(maxsize=2)
def _positions(layout: SharedPromptLayout, device: torch.device) -> torch.Tensor:
    """[L], made once for all layers."""
    return torch.tensor(layout.position_ids_L, device=device)


def _merge(whole: Attended, part: Attended) -> None:
    """Fold another block of the same queries into `whole`, in place."""
    # exp(lse_b - lse) = sigmoid(lse_b - lse_a); a query that saw nothing has weight 0
    weight = torch.sigmoid(part.lse_B_H_S - whole.lse_B_H_S).unsqueeze(-1)
    merged = torch.lerp(whole.out_B_H_S_E.float(), part.out_B_H_S_E.float(), weight)
    whole.out_B_H_S_E.copy_(merged)
    whole.lse_B_H_S.copy_(torch.logaddexp(whole.lse_B_H_S, part.lse_B_H_S))


def _block(
    piece: Piece,
    inputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    positions_L: torch.Tensor,
    rule: AttentionRule,
) -> Block:
    query, key, value = inputs
    return Block(
        query_B_H_S_E=_queries(piece, query),
        key_B_K_J_E=_keys(piece, key),
        value_B_K_J_E=_keys(piece, value),
        query_positions_S=positions_L[piece.query_start :][: piece.query_length],
        key_positions_J=positions_L[piece.key_start :][: piece.key_length],
        is_causal=piece.is_causal,
        rule=rule,
    )


def _queries(piece: Piece, x_1_H_L: torch.Tensor) -> torch.Tensor:
    return _sequences(x_1_H_L, piece.query_start, piece.num_sequences, piece.query_length)


def _keys(piece: Piece, x_1_H_L: torch.Tensor) -> torch.Tensor:
    return _sequences(x_1_H_L, piece.key_start, piece.num_sequences, piece.key_length)


def _sequences(x_1_H_L: torch.Tensor, start: int, count: int, length: int) -> torch.Tensor:
    """View `count` sequences that lie behind one another as a batch: [count, H, length, ...]."""
    flat = x_1_H_L[0, :, start : start + count * length]
    return torch.unflatten(flat, 1, (count, length)).transpose(0, 1)
