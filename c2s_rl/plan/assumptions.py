"""What a plan takes for granted; every value can be set with `--assume key=value`.

Measured on the run's own cluster they make the plan better; the defaults are round numbers that
careful dense training and vLLM reach on H100s, to be replaced by measurements.
"""

from pydantic import Field

from c2s_rl.config import FrozenConfig


class Assumptions(FrozenConfig):
    """Lengths, rates and reserves that neither config nor cluster says."""

    prompt_tokens: int | None = Field(
        None, ge=1, description="Tokens of a prompt; default: from the corpus, or estimated"
    )
    completion_tokens: int | None = Field(
        None, ge=1, description="Mean tokens of a completion; default: likewise"
    )
    tokens_per_gene: float = Field(
        # The top 80 to 1,000 genes of the Kang cells in SmolLM2's 49k byte-pair encoding.
        3.8,
        gt=0,
        description="For estimates with a published tokenizer",
    )
    head_columns: int = Field(
        # All human symbols take 1,172 distinct tokens of SmolLM2's 49,152.
        1200,
        ge=1,
        description="Columns of the LM head that the gene trie leaves, where it is on",
    )
    packed: bool = Field(default=True, description="Prompt once a group; false: padded rows")
    learner_mfu: float = Field(
        0.4, gt=0, le=1, description="Share of peak FLOP/s in forward and backward passes"
    )
    prefill_mfu: float = Field(0.5, gt=0, le=1, description="Share of peak FLOP/s in prefill")
    memory_share: float = Field(
        0.7, gt=0, le=1, description="Share of memory bandwidth in decoding and the optimiser"
    )
    link_share: float = Field(0.7, gt=0, le=1, description="Share of link and network bandwidth")
    engine_overhead_ms: float = Field(
        4.0, ge=0, description="Milliseconds an engine step costs beside the model: scheduling"
    )
    hop_us: float = Field(10.0, ge=0, description="Microseconds a tensor-parallel exchange waits")
    wake_s: float = Field(1.0, ge=0, description="Seconds to put an engine to sleep and wake it")
    reserve_gb: float = Field(
        4.0, ge=0, description="GB a GPU keeps for the CUDA context, NCCL and fragmentation"
    )
