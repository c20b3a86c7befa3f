"""Bytes that a learner rank and an engine hold, by part.

Letters: N stored parameters, n trained ones, W ranks, e bytes an element (2 bfloat16, 4 float32),
D hidden, F feed-forward width, Q and K query and key width, L layers.

Learner, states (arXiv:1910.02054 section 3.1 and figure 1):
    weights      e N; ZeRO-3: e N / W, and two of the largest modules gathered
    gradients    e n; ZeRO-2 and 3: e n / W
    optimiser    8 n of Adam's moments, 4 n of master weights with bfloat16 or under ZeRO (DeepSpeed
                 keeps a float32 copy of its partition whatever the type); from ZeRO-1 on / W
    reference    like the weights where beta is above 0; nothing with LoRA (the adapter is off)
    buckets      2 x min(n, 5e8) x e under ZeRO, DeepSpeed's default size
Learner, activations of a micro-batch: `layer_activation_bytes` a token and layer; with
checkpointing only each layer's input, e D, and one layer in full while it is recomputed. One more
layer's worth for the gradients of the layer that is being walked backward. Attention is taken to
run in one kernel that keeps no matrix of scores.
Head: 8 bytes a logit (value and gradient, float32) for one chunk of tokens, and 2 e D for the
hidden state and gradient of every completion token of the micro-batch.
Engine: e N / T with T-fold tensor parallelism, and the KV cache, 2 L K e a token.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from c2s_rl.plan.shape import Family, ModelShape
from c2s_rl.plan.workload import Method, MicroBatches, Workload

# deepspeed/runtime/zero/config.py: reduce_bucket_size and allgather_bucket_size, elements.
ZERO_BUCKET = 500_000_000
# Tokens vLLM runs through the model at once for LLM() on 70 GB or more (vllm/engine/arg_utils.py).
PREFILL_TOKENS = 16384


@dataclass(frozen=True)
class Part:
    """One thing that takes memory."""

    name: str
    num_bytes: float
    is_state: bool = True
    """It stays between micro-batches; False: only while the learner or engine computes."""


def total_bytes(parts: Sequence[Part], *, is_state: bool | None = None) -> float:
    """Sum of all parts, or of those that stay (True) or pass (False)."""
    return sum(p.num_bytes for p in parts if is_state is None or p.is_state == is_state)


def layer_activation_bytes(shape: ModelShape, element_bytes: int) -> int:
    """Bytes a layer keeps for its backward pass, per token.

    GPT-NeoX: the input once (both norms share it), two norm outputs, the fused projection (Q + 2 K;
    the value is a view of it), rotated query and key, attention's output, feed-forward before and
    after its activation: e (3 D + 3 Q + 3 K + 2 F), 17 D e at Pythia's widths.
    Llama: each norm keeps its input in float32, the normalised and the scaled value: 2 (4 + 2 e) D;
    query, key, value, output: e (2 Q + 2 K); gate, its activation, up, their product: 4 e F.
    Gemma-2: four norms keep input and normalised value in float32, two of them feed a matrix:
    (32 + 2 e) D; the rest as Llama's.
    To each 4 bytes a head: attention's log of the sum of exponentials.

    Source: read off the modules in transformers 5.19; tests/plan/test_measured.py measures them.
    """
    e, hidden = element_bytes, shape.hidden
    attention = 2 * shape.query_width + 2 * shape.kv_width
    statistics = 4 * shape.num_heads
    if shape.family is Family.GPT_NEOX:
        fused = attention + shape.query_width + shape.kv_width
        return e * (3 * hidden + fused + 2 * shape.intermediate) + statistics
    rest = e * (attention + 4 * shape.intermediate) + statistics
    if shape.family is Family.LLAMA:
        return 2 * (4 + 2 * e) * hidden + rest
    return (32 + 2 * e) * hidden + rest


def stored_activation_bytes(shape: ModelShape, method: Method, tokens: int) -> int:
    """Bytes between the forward and the backward pass of the backbone.

    L layers in full, or their inputs alone with checkpointing, and the final norm's.
    """
    e = method.element_bytes
    final = e * shape.hidden if shape.family is Family.GPT_NEOX else (4 + e) * shape.hidden
    layer = e * shape.hidden if method.is_checkpointed else layer_activation_bytes(shape, e)
    return tokens * (shape.num_layers * layer + final)


def activation_bytes(shape: ModelShape, method: Method, tokens: int) -> int:
    """Peak of a micro-batch: what is stored, and one layer (checkpointed: two) being worked on."""
    layer = tokens * layer_activation_bytes(shape, method.element_bytes)
    return stored_activation_bytes(shape, method, tokens) + layer * (1 + method.is_checkpointed)


def trained_parameters(shape: ModelShape, method: Method) -> int:
    """Number n: all, or the adapters'."""
    if method.lora_rank is None:
        return shape.num_parameters
    return shape.adapter_parameters(method.lora_rank)


def optimiser_bytes(method: Method, num_parameters: int) -> int:
    """Adam's moments, and the float32 master weights where DeepSpeed keeps them; unsharded."""
    has_master = method.element_bytes == 2 or method.zero_stage > 0
    return num_parameters * (12 if has_master else 8)


def learner_parts(
    shape: ModelShape, workload: Workload, method: Method, num_ranks: int, batches: MicroBatches
) -> tuple[Part, ...]:
    """Everything one learner rank holds at its peak.

    Args:
        shape: The model.
        workload: For the share of completion tokens in a micro-batch.
        method: Precision, ZeRO stage, adapters, checkpointing.
        num_ranks: W.
        batches: Micro-batches of the busiest rank.
    """
    e, stage = method.element_bytes, method.zero_stage
    weights = shape.num_parameters * e
    trained = trained_parameters(shape, method)
    adapters = 0 if method.lora_rank is None else trained * e
    is_copied = method.has_reference and method.lora_rank is None
    gathered = 2 * max(shape.layer_parameters, shape.head_parameters) * e
    completion_tokens = min(
        batches.peak_tokens, workload.num_completions * workload.max_completion_tokens
    )
    logits = min(method.head_chunk_tokens, completion_tokens) * method.columns(shape) * 8
    scored = completion_tokens * shape.hidden * 2 * e
    return (
        Part("weights", weights / num_ranks if stage == 3 else weights),
        Part("gathered weights", gathered if stage == 3 and num_ranks > 1 else 0, is_state=False),
        Part("adapters", adapters),
        Part("gradients", trained * e / (num_ranks if stage >= 2 else 1)),
        Part(
            "optimiser states",
            optimiser_bytes(method, trained) / (num_ranks if stage >= 1 else 1),
        ),
        Part("reference", 0 if not is_copied else weights / (num_ranks if stage == 3 else 1)),
        Part("ZeRO buckets", 2 * min(trained, ZERO_BUCKET) * e if stage else 0),
        Part("activations", activation_bytes(shape, method, batches.peak_tokens), is_state=False),
        Part("logits and hidden states", logits + scored, is_state=False),
    )


def kv_bytes_per_token(shape: ModelShape, element_bytes: int) -> int:
    """Key and value of one token in all layers: 2 L K e."""
    return 2 * shape.num_layers * shape.kv_width * element_bytes


def kv_bytes(shape: ModelShape, element_bytes: int, tokens: int) -> int:
    """KV of one sequence; layers with a sliding window keep no more than the window."""
    layer = 2 * shape.kv_width * element_bytes
    full = shape.num_layers - shape.num_window_layers
    kept = tokens if shape.window is None else min(tokens, shape.window)
    return layer * (full * tokens + shape.num_window_layers * kept)


def engine_parts(
    shape: ModelShape, element_bytes: int, *, tensor_parallel: int, max_num_seqs: int
) -> tuple[Part, ...]:
    """What one device of an engine holds before any KV cache.

    weights e N / T; workspace: the widest layer of a prefill chunk, e (2 D + 3 F / T) a token, and
    two float32 copies of the logits of every running sequence, 8 V.
    """
    widest = 2 * shape.hidden + 3 * shape.intermediate / tensor_parallel
    workspace = PREFILL_TOKENS * element_bytes * widest + 8 * max_num_seqs * shape.vocabulary
    return (
        Part("engine weights", shape.num_parameters * element_bytes / tensor_parallel),
        Part("engine workspace", workspace),
    )


def group_kv_bytes(shape: ModelShape, workload: Workload, element_bytes: int) -> float:
    """KV that a sequence adds at its longest, its G-th part of the shared prompt included."""
    prompt = kv_bytes(shape, element_bytes, workload.prompt_tokens)
    longest = workload.prompt_tokens + workload.max_completion_tokens
    alone = kv_bytes(shape, element_bytes, longest) - prompt
    return prompt / workload.group_size + alone
