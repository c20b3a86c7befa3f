"""Attention of a packed row with FlexAttention, the kernel for CUDA.

One fused kernel with a block mask: blocks of 128 x 128 scores that hold nothing are skipped, so no
keys are copied and completions do not meet each other. Soft-cap, sliding window and grouped heads
are part of the kernel. On other devices it runs uncompiled and forward only, which is how its mask
and its scores are tested without a GPU.
Left out: dropout. Not run on a GPU by the tests of this repository's CPU machines.
Shape suffixes: L packed tokens, H heads, K key-value heads, E head size.
"""

from collections.abc import Callable
from functools import cache, lru_cache

import torch
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from c2s_rl.models.prompt_attention import AttentionRule
from c2s_rl.models.prompt_layout import SharedPromptLayout

# Layers of a pass share their masks: one per window (Gemma-2 has two), for policy and reference.
CACHED_MASKS = 4

Index = torch.Tensor
ScoreChange = Callable[[torch.Tensor, Index, Index, Index, Index], torch.Tensor]


def flex_prompt_attention(
    query_1_H_L_E: torch.Tensor,
    key_1_K_L_E: torch.Tensor,
    value_1_K_L_E: torch.Tensor,
    *,
    layout: SharedPromptLayout,
    rule: AttentionRule,
) -> torch.Tensor:
    """Attend over a packed row; differentiable on CUDA.

    Returns:
        [1, H, L, E].
    """
    attend: Callable[..., torch.Tensor] = flex_attention
    if query_1_H_L_E.is_cuda:
        attend = _compiled_attention()
    out: torch.Tensor = attend(
        query_1_H_L_E,
        key_1_K_L_E,
        value_1_K_L_E,
        score_mod=None if rule.softcap is None else _capping(rule.softcap),
        block_mask=block_mask(layout, rule.window, query_1_H_L_E.device),
        scale=rule.scale,
        enable_gqa=query_1_H_L_E.shape[1] != key_1_K_L_E.shape[1],
    )
    return out


@lru_cache(maxsize=CACHED_MASKS)
def block_mask(layout: SharedPromptLayout, window: int | None, device: torch.device) -> BlockMask:
    """Who sees whom in a packed row, as blocks to compute, to mask and to skip."""
    part_L, completion_L = torch.tensor(layout.sequence_ids_L, device=device).T
    position_L = torch.tensor(layout.position_ids_L, device=device)
    reach = layout.num_tokens if window is None else window

    def is_seen(_b: Index, _h: Index, query: Index, key: Index) -> torch.Tensor:
        # completion -1 is the prompt; it lies before its completions, so `key <= query` is enough
        own = (completion_L[key] < 0) | (completion_L[key] == completion_L[query])
        near = position_L[query] - position_L[key] < reach
        seen: torch.Tensor = (part_L[key] == part_L[query]) & own & (key <= query) & near
        return seen

    build = torch.compile(create_block_mask) if device.type == "cuda" else create_block_mask
    length = layout.num_tokens
    mask: BlockMask = build(is_seen, None, None, length, length, device=device)
    return mask


def _capping(softcap: float) -> ScoreChange:
    def cap(score: torch.Tensor, _b: Index, _h: Index, _q: Index, _k: Index) -> torch.Tensor:
        return softcap * torch.tanh(score / softcap)

    return cap


@cache
def _compiled_attention() -> Callable[..., torch.Tensor]:
    """Compiled once a process; rows differ in length, so shapes stay dynamic."""
    compiled: Callable[..., torch.Tensor] = torch.compile(flex_attention, dynamic=True)
    return compiled
