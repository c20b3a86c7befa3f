"""Shared-prompt forward pass: a prompt goes through the network once, with all its completions.

A row holds whole groups one after another, each as `prompt, completion 0, completion 1, ...`.
Every prompt token sees the prompt up to itself; every completion token sees its prompt and its own
completion up to itself, nothing else. Position ids go on from the prompt in each completion, so
each completion gets the hidden states that it would get alone behind a copy of the prompt.
The attention function is registered with transformers, so that any model written for its
AttentionInterface runs it unchanged: GPT-NeoX, Llama, Gemma-2 (soft-cap, sliding window, grouped
heads), plain, under LoRA, with checkpointed layers and under any ZeRO stage.
Left out: dropout (policy and sampler must be the same model), a key-value cache, prompt tuning.
Shape suffixes: L packed tokens, D hidden, H heads, K key-value heads, E head size.
"""

from typing import TypedDict, Unpack, cast

import torch
from peft import PeftModel
from torch import nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface

from c2s_rl.models.chunked_attention import ChunkedKernel
from c2s_rl.models.flex_prompt_attention import flex_prompt_attention
from c2s_rl.models.prompt_attention import (
    AttentionRule,
    BlockKernel,
    FlashKernel,
    piecewise_attention,
)
from c2s_rl.models.prompt_layout import SharedPromptLayout

SHARED_PROMPT = "shared_prompt"


class AttentionOptions(TypedDict, total=False):
    """What models hand to an attention function by name, as far as it is read here."""

    scaling: float
    dropout: float
    softcap: float | None
    sliding_window: int | None
    shared_prompt: SharedPromptLayout


def register_shared_prompt_attention() -> None:
    """Make `SHARED_PROMPT` an attention implementation of transformers; may be called again."""
    AttentionInterface.register(SHARED_PROMPT, shared_prompt_attention)
    AttentionMaskInterface.register(SHARED_PROMPT, _no_mask)


def use_shared_prompts(model: PreTrainedModel | PeftModel) -> None:
    """Switch a loaded model to shared-prompt attention, the only one it then runs with."""
    register_shared_prompt_attention()
    base = _without_adapter_wrapper(model)
    base.set_attn_implementation(SHARED_PROMPT)


def shared_prompt_hidden(
    model: PreTrainedModel | PeftModel,
    input_ids_1_L: torch.Tensor,
    position_ids_1_L: torch.Tensor,
    layout: SharedPromptLayout,
) -> torch.Tensor:
    """Run the backbone over a packed row, without the language-model head.

    Args:
        model: A causal language model that `use_shared_prompts` switched, in evaluation mode.
        input_ids_1_L: [1, L] int64.
        position_ids_1_L: [1, L] int64, as in `layout.position_ids_L`.
        layout: Where prompts and completions lie in the row.

    Returns:
        [1, L, D] hidden states after the final norm: what the head projects.

    Raises:
        ValueError: If the model has another attention, or the row is not as long as the layout.
    """
    base = _without_adapter_wrapper(model)
    attention = base.config._attn_implementation
    if attention != SHARED_PROMPT:
        raise ValueError(
            f"the attention of a model on packed rows must be {SHARED_PROMPT!r}, got {attention!r}"
        )
    if input_ids_1_L.shape != (1, layout.num_tokens):
        raise ValueError(
            f"a packed row must be one row as long as its layout, {layout.num_tokens} tokens, "
            f"got shape {tuple(input_ids_1_L.shape)}"
        )
    hidden_1_L_D: torch.Tensor = base.base_model(
        input_ids=input_ids_1_L,
        position_ids=position_ids_1_L,
        use_cache=False,
        shared_prompt=layout,
    ).last_hidden_state
    return hidden_1_L_D


def shared_prompt_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Unpack[AttentionOptions],
) -> tuple[torch.Tensor, None]:
    """Attend over a packed row; transformers calls this in every layer.

    Args:
        module: The calling layer; unused.
        query: [1, H, L, E] with rotary positions applied.
        key: [1, K, L, E] likewise; H is a multiple of K.
        value: [1, K, L, E].
        attention_mask: None, what the registered mask function gives.
        options: `AttentionOptions`; models add others (position ids, cache flags) that mean
            nothing here.

    Returns:
        [1, L, H, E] and None in place of attention weights.

    Raises:
        ValueError: Without a layout, with dropout, or with a mask of the caller's own.
    """
    layout = options.get("shared_prompt")
    if layout is None:
        raise ValueError(
            "shared-prompt attention must be called through shared_prompt_hidden, "
            "got a forward pass without a layout"
        )
    dropout = options.get("dropout", 0.0)
    if dropout or attention_mask is not None:
        raise ValueError(
            "shared-prompt attention takes neither dropout nor a mask, "
            f"got dropout {dropout} and mask {attention_mask}"
        )
    window = options.get("sliding_window")
    rule = AttentionRule(
        scale=options.get("scaling", query.shape[-1] ** -0.5),
        softcap=options.get("softcap"),
        window=window if window is not None and window < layout.longest_sequence else None,
    )
    return attend_row(query, key, value, layout=layout, rule=rule).transpose(1, 2), None


def attend_row(
    query_1_H_L_E: torch.Tensor,
    key_1_K_L_E: torch.Tensor,
    value_1_K_L_E: torch.Tensor,
    *,
    layout: SharedPromptLayout,
    rule: AttentionRule,
) -> torch.Tensor:
    """Attend with the kernel for this device and rule; the one place that decides which.

    CUDA: FlexAttention. CPU: PyTorch's fused kernel block by block, or, for a soft-cap or a
    window, which that one lacks, chunked matrix products (1.4 to 1.6 times slower). Measured on
    one core (4 heads of 64, float32, forward and backward, for P x C x G of 256 x 256 x 16,
    1024 x 256 x 16, 4096 x 256 x 8): block by block 110, 304, 906 ms; fused attention on copies
    of the prompt's keys and values behind each completion 134, 352, 1089 ms; one fused call with
    an [L, L] mask 1085, 1551 ms and not tried.

    Returns:
        [1, H, L, E].
    """
    inputs = (query_1_H_L_E, key_1_K_L_E, value_1_K_L_E)
    if query_1_H_L_E.is_cuda:
        return flex_prompt_attention(*inputs, layout=layout, rule=rule)
    kernel: BlockKernel = ChunkedKernel()
    if query_1_H_L_E.device.type == "cpu" and rule.softcap is None and rule.window is None:
        kernel = FlashKernel()
    return piecewise_attention(*inputs, layout=layout, rule=rule, kernel=kernel)


def _without_adapter_wrapper(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """Adapter layers stay: they are inside the model that peft wraps."""
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    return cast("PreTrainedModel", base)


def _no_mask(*_: object, **__: object) -> None:
    """Who sees whom follows from the layout: no [L, L] mask is built."""
