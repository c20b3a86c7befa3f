"""Tiny random models of the three architectures, and packed groups to run them on."""

import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from c2s_rl.grpo.batch import Row, pad_rows
from c2s_rl.grpo.packing import PackedPart, pack_rows
from c2s_rl.models.policy import CompletionScorer
from c2s_rl.models.shared_prompt import shared_prompt_hidden

VOCABULARY = 50
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}
# Sliding layers see 7 of up to 29 tokens: in some completions nothing, in some a part of the
# prompt. The cap of 2 bends scores that are around 1.
GEMMA = {
    "num_key_value_heads": 2,
    "head_dim": 8,
    "query_pre_attn_scalar": 3,
    "sliding_window": 7,
    "attn_logit_softcapping": 2.0,
    "final_logit_softcapping": None,
}
# eager attention is the only one of transformers that applies Gemma-2's cap
MODELS = {
    "gpt_neox": lambda: GPTNeoXForCausalLM._from_config(GPTNeoXConfig(**SIZES)),
    "llama_tied": lambda: LlamaForCausalLM._from_config(
        LlamaConfig(**SIZES, num_key_value_heads=2, tie_word_embeddings=True)
    ),
    "llama_untied": lambda: LlamaForCausalLM._from_config(
        LlamaConfig(**SIZES, num_key_value_heads=1, tie_word_embeddings=False)
    ),
    "gemma2": lambda: Gemma2ForCausalLM._from_config(
        Gemma2Config(**SIZES, **GEMMA), attn_implementation="eager"
    ),
}


def make_model(name):
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)  # attention that differs between tokens
    return model


def make_part(prompt_length, completion_lengths, seed):
    generator = torch.Generator().manual_seed(seed)

    def draw(length):
        return tuple(torch.randint(1, VOCABULARY, (length,), generator=generator).tolist())

    prompt = draw(prompt_length)
    return PackedPart(
        prompt, tuple(Row(prompt, draw(n), (0.0,) * n, 0.0) for n in completion_lengths)
    )


def make_parts():
    """Unequal completions, equal ones, one alone, and a group split in two parts."""
    split = make_part(9, [5, 5, 8, 3], seed=4)
    return [
        make_part(20, [1, 6, 6, 2, 9], seed=1),
        make_part(1, [12], seed=2),
        PackedPart(split.prompt_ids, split.rows[:3]),
        PackedPart(split.prompt_ids, split.rows[3:]),
    ]


def padded_logprobs(model, parts):
    """The oracle: [B, T] with every completion behind its own copy of the prompt; 0 at padding."""
    batch = pad_rows([row for part in parts for row in part.rows], pad_id=0)
    logprobs = CompletionScorer(model, temperature=1.0)(
        batch.input_ids_B_L,
        batch.attention_mask_B_L,
        batch.prompt_lengths_B,
        batch.completion_ids_B_T,
    )
    return logprobs * batch.mask_B_T


def packed_logprobs(model, parts, head=None):
    """[B, T] from the packed row; 0 at padding."""
    batch = pack_rows(parts, pad_id=0)
    hidden = shared_prompt_hidden(model, batch.input_ids_1_L, batch.position_ids_1_L, batch.layout)
    head = head or model.get_output_embeddings()
    logits = head(hidden[0, batch.predict_N]).float()
    logprobs = torch.log_softmax(logits, dim=-1).gather(1, batch.targets_N.unsqueeze(1))
    return batch.padded(logprobs.squeeze(1))


def weighted_gradients(model, logprobs):
    """Gradients of a sum in which every token has a weight of its own; clears them."""
    weights = torch.randn(logprobs.shape, generator=torch.Generator().manual_seed(5))
    (logprobs * weights).sum().backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return gradients


def relative_error(value, expected):
    return ((value - expected).norm() / expected.norm()).item()
