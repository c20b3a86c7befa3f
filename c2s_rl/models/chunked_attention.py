"""Attention by matrix products over chunks of queries: soft-cap and sliding window, any device.

Keeps one chunk's scores at a time, recomputes them backward, and computes in float32 whatever the
input's type. Keys that no query of a chunk may see, being behind the window or ahead of a causal
query, are not computed.
Left out: dropout.
Shape suffixes as in prompt_attention, and Q queries of a chunk, R query heads per key-value head.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from c2s_rl.models.prompt_attention import Attended, Block, BlockGradients

CHUNK_SCORES = 2**20  # scores a chunk holds over all heads: 4 MiB in float32, stays in a cache
MIN_CHUNK, MAX_CHUNK = 16, 512  # queries: matrix products slow down below, waste above


@dataclass(frozen=True, eq=False)
class _Chunk:
    """Some queries of a block and the keys that any of them sees."""

    queries: slice
    keys: slice
    hidden_Q_J: torch.Tensor | None
    """[Q, J] bool, True where the query must not see the key; None: all seen."""


class ChunkedKernel:
    """The general block kernel; see `BlockKernel` for the contract."""

    def forward(self, block: Block) -> Attended:
        """Attend within the block alone."""
        sequences, heads, length, size = block.query_B_H_S_E.shape
        out = block.query_B_H_S_E.new_zeros(sequences, heads, length, size)
        lse = out.new_full((sequences, heads, length), -torch.inf, dtype=torch.float32)
        key, value = block.key_B_K_J_E.float(), block.value_B_K_J_E.float()
        for chunk in _chunks(block):
            query = _fold(block.query_B_H_S_E[:, :, chunk.queries], key.shape[1])
            scores = _scores(block, chunk, query, key[:, :, chunk.keys])
            # a row of -inf must give exp(-inf) = 0, not exp(-inf + inf)
            top = scores.amax(-1, keepdim=True).clamp_(min=torch.finfo(torch.float32).min)
            weights = scores.sub_(top).exp_()
            total = weights.sum(-1, keepdim=True)
            mean = weights @ value[:, :, chunk.keys] / total.clamp(min=1e-38)
            out[:, :, chunk.queries] = _unfold(mean, heads).to(out.dtype)
            lse[:, :, chunk.queries] = _unfold(total.log() + top, heads).squeeze(-1)
        return Attended(out, lse)

    def backward(
        self, block: Block, attended: Attended, grad_out_B_H_S_E: torch.Tensor
    ) -> BlockGradients:
        """Differentiate, given what the queries got over all their blocks."""
        heads, key_heads = block.query_B_H_S_E.shape[1], block.key_B_K_J_E.shape[1]
        key, value = block.key_B_K_J_E.float(), block.value_B_K_J_E.float()
        grad_query = torch.zeros_like(block.query_B_H_S_E)
        grad_key, grad_value = torch.zeros_like(key), torch.zeros_like(value)
        for chunk in _chunks(block):
            rows = chunk.queries
            query = _fold(block.query_B_H_S_E[:, :, rows], key_heads)
            grad_out = _fold(grad_out_B_H_S_E[:, :, rows], key_heads)
            out = _fold(attended.out_B_H_S_E[:, :, rows], key_heads)
            lse = _fold(attended.lse_B_H_S[:, :, rows].unsqueeze(-1), key_heads)
            scores = _scores(block, chunk, query, key[:, :, chunk.keys])
            weights = (scores - lse).exp_()
            grad_value[:, :, chunk.keys] += weights.mT @ grad_out
            # softmax: d score = weight * (d weight - sum(d out * out))
            grad_scores = grad_out @ value[:, :, chunk.keys].mT
            grad_scores.sub_((grad_out * out).sum(-1, keepdim=True)).mul_(weights)
            if block.rule.softcap is not None:
                # d tanh(x) = 1 - tanh(x)^2; a hidden score's weight is 0, its tanh any number
                tanh = scores.div_(block.rule.softcap).clamp_(min=-1.0)
                grad_scores.mul_(1.0 - tanh.square_())
            grad_scores.mul_(block.rule.scale)
            rows_gradient = _unfold(grad_scores @ key[:, :, chunk.keys], heads)
            grad_query[:, :, rows] = rows_gradient.to(grad_query.dtype)
            grad_key[:, :, chunk.keys] += grad_scores.mT @ query
        return BlockGradients(grad_query, grad_key, grad_value)


def _scores(
    block: Block, chunk: _Chunk, query_B_K_RQ_E: torch.Tensor, key_B_K_J_E: torch.Tensor
) -> torch.Tensor:
    """[B, K, R*Q, J] scaled, capped scores; -inf where hidden."""
    scores = (query_B_K_RQ_E * block.rule.scale) @ key_B_K_J_E.mT
    if block.rule.softcap is not None:
        scores.div_(block.rule.softcap).tanh_().mul_(block.rule.softcap)
    if chunk.hidden_Q_J is not None:
        per_head = torch.unflatten(scores, 2, (-1, len(chunk.hidden_Q_J)))
        per_head.masked_fill_(chunk.hidden_Q_J, -torch.inf)
    return scores


def _chunks(block: Block) -> Iterator[_Chunk]:
    sequences, heads, length, _ = block.query_B_H_S_E.shape
    num_keys = block.key_B_K_J_E.shape[2]
    size = CHUNK_SCORES // (sequences * heads * num_keys)
    size = max(MIN_CHUNK, min(MAX_CHUNK, size))
    for start in range(0, length, size):
        queries = slice(start, min(start + size, length))
        positions = block.query_positions_S[queries]
        first, last = 0, num_keys
        first_position = int(block.key_positions_J[0])
        if block.is_causal:
            last = min(last, int(positions.max()) - first_position + 1)
        if block.rule.window is not None:
            first = max(first, int(positions.min()) - block.rule.window + 1 - first_position)
        if first < last:
            keys = slice(first, last)
            yield _Chunk(queries, keys, _hidden(block, positions, block.key_positions_J[keys]))


def _hidden(
    block: Block, query_positions_Q: torch.Tensor, key_positions_J: torch.Tensor
) -> torch.Tensor | None:
    distance_Q_J = query_positions_Q.unsqueeze(1) - key_positions_J
    hidden_Q_J = torch.zeros_like(distance_Q_J, dtype=torch.bool)
    if block.is_causal:
        hidden_Q_J |= distance_Q_J < 0
    if block.rule.window is not None:
        hidden_Q_J |= distance_Q_J >= block.rule.window
    return hidden_Q_J if bool(hidden_Q_J.any()) else None


def _fold(x_B_H_Q_E: torch.Tensor, num_key_heads: int) -> torch.Tensor:
    """Lay the query heads of one key-value head behind one another: [B, K, R*Q, E], float32."""
    return torch.unflatten(x_B_H_Q_E.float(), 1, (num_key_heads, -1)).flatten(2, 3)


def _unfold(x_B_K_RQ_E: torch.Tensor, num_heads: int) -> torch.Tensor:
    """Undo `_fold`: [B, H, Q, E]."""
    key_heads = x_B_K_RQ_E.shape[1]
    return torch.unflatten(x_B_K_RQ_E, 2, (num_heads // key_heads, -1)).flatten(1, 2)
