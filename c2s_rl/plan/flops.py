"""Floating-point operations of a step, by part.

A multiply-add counts as two. For a token, every weight matrix costs 2 x inputs x outputs forward
(so about 2 N for a model of N parameters) and twice that backward, once for the gradient of the
input and once for that of the weight. Attention costs 4 x heads x head_dim a layer for every pair
of a query and a key that it sees: 2 for the score, 2 for the weighted value. Norms, rotations and
activations are left out: below 1 % at width 1000.

Sources: arXiv:2001.08361 section 2.1; arXiv:2205.05198 appendix A (per-layer terms).
Letters: P prompt tokens, C completion tokens, G completions of a prompt, D hidden, V vocabulary.
"""

from dataclasses import dataclass, fields

from c2s_rl.plan.shape import ModelShape
from c2s_rl.plan.workload import Method, Workload


@dataclass(frozen=True)
class Extent:
    """What a forward pass goes over."""

    tokens: int
    pairs: int
    """Query-key pairs in a layer of full attention."""
    window_pairs: int
    """Query-key pairs in a layer with a sliding window."""

    def __add__(self, other: "Extent") -> "Extent":
        return Extent(
            self.tokens + other.tokens,
            self.pairs + other.pairs,
            self.window_pairs + other.window_pairs,
        )

    def times(self, factor: int) -> "Extent":
        """The same, `factor` times."""
        return Extent(self.tokens * factor, self.pairs * factor, self.window_pairs * factor)


def causal_pairs(start: int, stop: int, window: int | None = None) -> int:
    """Pairs of the queries at positions start..stop-1: sum of min(position + 1, window)."""
    ramp_stop = stop if window is None else min(stop, window)
    ramp_stop = max(ramp_stop, start)
    ramp = (start + 1 + ramp_stop) * (ramp_stop - start) // 2
    return ramp + (0 if window is None else (stop - ramp_stop) * window)


def continuation(shape: ModelShape, start: int, stop: int) -> Extent:
    """Tokens start..stop-1 of one sequence, the ones before them cached or shared."""
    return Extent(stop - start, causal_pairs(start, stop), causal_pairs(start, stop, shape.window))


def group_extent(shape: ModelShape, workload: Workload, *, num_prompt_copies: int = 1) -> Extent:
    """One group with its prompt forwarded `num_prompt_copies` times.

    pairs = copies x P (P + 1) / 2 + G (C P + C (C + 1) / 2), capped by the window where there is
    one. Padded rows are copies = G.

    Args:
        shape: For the window.
        workload: P, C, G.
        num_prompt_copies: 1 packed, G padded, between them when a group is split.
    """
    prompt, total = workload.prompt_tokens, workload.prompt_tokens + workload.completion_tokens
    return continuation(shape, 0, prompt).times(num_prompt_copies) + continuation(
        shape, prompt, total
    ).times(workload.group_size)


def dense_extent(rows: int, length: int) -> Extent:
    """Rows through a kernel that computes masked pairs too, as plain SDPA and `eager` do."""
    return Extent(rows * length, rows * length * length, rows * length * length)


def matrix_flops(shape: ModelShape, tokens: int) -> int:
    """Forward, all layers: 2 x tokens x layers x weights of a layer."""
    return 2 * tokens * shape.num_layers * shape.layer_matrix_parameters


def attention_flops(shape: ModelShape, extent: Extent) -> int:
    """Forward, all layers: 4 x heads x head_dim x pairs."""
    full = shape.num_layers - shape.num_window_layers
    pairs = full * extent.pairs + shape.num_window_layers * extent.window_pairs
    return 4 * shape.query_width * pairs


def backbone_flops(shape: ModelShape, extent: Extent) -> int:
    """Forward, without the head."""
    return matrix_flops(shape, extent.tokens) + attention_flops(shape, extent)


def head_flops(shape: ModelShape, tokens: int, columns: int) -> int:
    """One projection: 2 x tokens x D x columns."""
    return 2 * tokens * shape.hidden * columns


@dataclass(frozen=True)
class LearnerFlops:
    """Of a learner, for one step or one rank's share of it."""

    forward: int
    """Backbone, policy."""
    backward: int
    """Backbone, gradients of inputs and of what is trained."""
    recompute: int
    """Second forward pass of gradient checkpointing."""
    reference: int
    """Backbone forward of the frozen policy."""
    head: int
    """All projections on the vocabulary, the reference's too."""

    @property
    def total(self) -> int:
        """Sum of the parts."""
        parts: list[int] = [vars(self)[field.name] for field in fields(self)]
        return sum(parts)


def learner_flops(
    shape: ModelShape, method: Method, extent: Extent, completion_tokens: int
) -> LearnerFlops:
    """Count forward, backward and what comes with them.

    Full training: backward = 2 x forward. LoRA: the frozen matrices need only the gradient of
    their input, 1 x their forward; adapters of n parameters add 2 n a token forward and 4 n
    backward; attention is 2 x as ever. Head: 1 projection forward, 2 backward (input and weight; 1
    where it is frozen), and 1 for the reference; none is repeated, the loss forms its gradient
    while the logits are there. Checkpointing repeats the backbone's forward once.

    Args:
        shape: The model.
        method: What is trained and how.
        extent: Tokens and pairs that the policy forwards.
        completion_tokens: Those among them that are scored.
    """
    matrices = matrix_flops(shape, extent.tokens)
    attention = attention_flops(shape, extent)
    projection = head_flops(shape, completion_tokens, method.columns(shape))
    adapters = 0
    if method.lora_rank is not None:
        adapters = 2 * extent.tokens * shape.adapter_parameters(method.lora_rank)
        backward = matrices + 2 * adapters + 2 * attention
        num_projections = 2
    else:
        backward = 2 * (matrices + attention)
        num_projections = 3
    forward = matrices + attention + adapters
    return LearnerFlops(
        forward=forward,
        backward=backward,
        recompute=forward if method.is_checkpointed else 0,
        reference=matrices + attention if method.has_reference else 0,
        head=projection * (num_projections + method.has_reference),
    )


@dataclass(frozen=True)
class RolloutFlops:
    """Of the engines, for one step."""

    prefill: int
    """Prompts, once a group."""
    decode: int
    """Completions, with the full head for every sampled token."""

    @property
    def total(self) -> int:
        """Sum of the parts."""
        return self.prefill + self.decode


def rollout_flops(shape: ModelShape, workload: Workload) -> RolloutFlops:
    """Count generation with prefix sharing: prompts x P prefilled, completions decoded.

    The sampler projects on the whole vocabulary and masks afterwards.
    """
    prompt, total = workload.prompt_tokens, workload.prompt_tokens + workload.completion_tokens
    prefill = backbone_flops(shape, continuation(shape, 0, prompt))
    decode = backbone_flops(shape, continuation(shape, prompt, total))
    decode += head_flops(shape, workload.completion_tokens, shape.vocabulary)
    return RolloutFlops(
        prefill=workload.num_prompts * prefill, decode=workload.num_completions * decode
    )
