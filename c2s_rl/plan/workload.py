"""What one optimiser step works on: prompts, completions, micro-batches, and the tokens in them.

A group is a prompt with its G completions. The learner packs whole groups, the prompt once, up to a
token budget a micro-batch; padded rows, which repeat the prompt G times, stand beside it for
comparison. Completions count with their mean length for time and with their longest for memory.
Letters: P prompt tokens, C completion tokens, G completions of a prompt.
"""

import math
from dataclasses import dataclass

from c2s_rl.errors import PlanError
from c2s_rl.plan.shape import ModelShape


@dataclass(frozen=True)
class Workload:
    """One optimiser step."""

    num_prompts: int
    """Prompts, so groups, of a step."""
    group_size: int
    """G."""
    prompt_tokens: int
    """P."""
    completion_tokens: int
    """C, mean."""
    max_completion_tokens: int
    """Where sampling stops."""
    num_steps: int
    """Optimiser steps of the run."""
    source: str = "given"
    """Where the lengths come from."""

    @property
    def num_completions(self) -> int:
        """Of a step."""
        return self.num_prompts * self.group_size

    @property
    def step_completion_tokens(self) -> int:
        """Of a step."""
        return self.num_completions * self.completion_tokens

    @property
    def packed_tokens(self) -> int:
        """Tokens a step forwards with the prompt once a group: prompts x (P + G C)."""
        return self.num_prompts * (self.prompt_tokens + self.group_size * self.completion_tokens)

    @property
    def padded_tokens(self) -> int:
        """Tokens a step forwards with the prompt in every row: prompts x G (P + C)."""
        return self.num_completions * (self.prompt_tokens + self.completion_tokens)

    def check_fits(self, shape: ModelShape) -> None:
        """Refuse sequences that the model cannot hold.

        Raises:
            PlanError: If prompt and longest completion exceed the model's context.
        """
        longest = self.prompt_tokens + self.max_completion_tokens
        if longest > shape.max_position:
            raise PlanError(
                f"prompt + longest completion must fit the {shape.max_position} tokens of "
                f"{shape.name}'s context, got {self.prompt_tokens} + {self.max_completion_tokens}; "
                "write fewer genes (corpus.num_genes) or lower align.sampling.max_tokens"
            )


@dataclass(frozen=True)
class Method:
    """How the learner trains."""

    element_bytes: int
    """Of weights and activations: 2 bfloat16, 4 float32."""
    zero_stage: int
    """DeepSpeed's."""
    micro_batch_tokens: int
    """Budget of a micro-batch."""
    has_reference: bool
    """KL against a frozen policy (beta above 0)."""
    is_packed: bool = True
    """Prompt once a group; False: padded rows."""
    is_checkpointed: bool = False
    """Activations are recomputed in the backward pass."""
    lora_rank: int | None = None
    """Adapters on all matrices of the layers; None trains everything."""
    head_columns: int | None = None
    """Columns of the head that sampling may ever allow; None: the whole vocabulary."""
    head_chunk_tokens: int = 1024
    """Completion tokens whose logits are alive at a time."""

    def columns(self, shape: ModelShape) -> int:
        """Columns of the head that are computed for a token."""
        return min(self.head_columns or shape.vocabulary, shape.vocabulary)


@dataclass(frozen=True)
class MicroBatches:
    """The micro-batches of the busiest rank."""

    num_groups: int
    """Groups of the rank."""
    num_micro_batches: int
    tokens: int
    """Forwarded by the rank in a step, prompts of split groups repeated."""
    num_prompt_copies: int
    """Times a prompt is forwarded; num_groups when no group is split."""
    peak_tokens: int
    """Most tokens in one micro-batch, completions at their longest."""

    @property
    def copies_per_group(self) -> int:
        """1 packed, more where groups are split, G padded."""
        return self.num_prompt_copies // self.num_groups


def cut_micro_batches(workload: Workload, method: Method, num_ranks: int) -> MicroBatches:
    """Share groups over ranks and cut them into micro-batches, as the packer does.

    The busiest rank has ceil(prompts / ranks) groups. Packed: floor(budget / (P + G C)) whole
    groups a micro-batch; a group that exceeds the budget alone is split by completions, each part
    with the prompt again: ceil(G / floor((budget - P) / C)) parts. A single row over budget goes
    alone. Padded: rows of P + C, floor(budget / (P + C)) a micro-batch.

    Args:
        workload: The step.
        method: Budget and form.
        num_ranks: Data-parallel ranks.
    """
    groups = math.ceil(workload.num_prompts / num_ranks)
    prompt, mean = workload.prompt_tokens, workload.completion_tokens
    size, budget = workload.group_size, method.micro_batch_tokens
    alone = prompt + workload.max_completion_tokens
    if not method.is_packed:
        rows = groups * size
        num = math.ceil(rows / max(1, budget // (prompt + mean)))
        longest = min(max(1, budget // alone), rows) * alone
        return MicroBatches(groups, num, rows * (prompt + mean), rows, longest)
    group_tokens = prompt + size * mean
    most = groups * (prompt + size * workload.max_completion_tokens)
    peak = max(alone, min(budget, most))
    if group_tokens <= budget:
        num = math.ceil(groups / (budget // group_tokens))
        return MicroBatches(groups, num, groups * group_tokens, groups, peak)
    rows_a_part = max(1, (budget - prompt) // mean)
    parts = groups * math.ceil(size / rows_a_part)
    tokens = parts * prompt + groups * size * mean
    return MicroBatches(groups, parts, tokens, parts, peak)
