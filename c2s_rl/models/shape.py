"""The size of a freshly made GPT-NeoX (Pythia's architecture), as a config section.

Kept apart from `base_model.py` so that checking a config loads no torch.
"""

from typing import Self

from pydantic import Field, model_validator

from c2s_rl.config import FrozenConfig

# What vLLM's CPU attention takes (vllm/v1/attention/backends/cpu_attn.py); CUDA takes these too.
HEAD_SIZES = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256)
# 256 byte tokens, end-of-sequence and padding: a byte-level BPE cannot be smaller.
MIN_VOCABULARY = 258


class GptNeoxShape(FrozenConfig):
    """Size of a GPT-NeoX; the feed-forward layer is 4 x hidden_size, as in every Pythia."""

    hidden_size: int = Field(256, ge=32, description="Width of the residual stream.")
    num_layers: int = Field(6, ge=1, description="Number of transformer blocks.")
    num_heads: int = Field(
        4, ge=1, description="Attention heads; each hidden_size / num_heads wide."
    )
    vocabulary_size: int = Field(
        4096,
        ge=MIN_VOCABULARY,
        description="Most tokens of the byte-level BPE; fewer when nothing is left to merge.",
    )
    max_position: int = Field(
        2048, ge=32, description="Longest prompt + target + end token, in tokens."
    )

    @model_validator(mode="after")
    def _check_heads(self) -> Self:
        if self.hidden_size % self.num_heads:
            raise ValueError(
                "hidden_size must be a multiple of num_heads, "
                f"got {self.hidden_size} and {self.num_heads}"
            )
        if self.hidden_size // self.num_heads not in HEAD_SIZES:
            raise ValueError(
                f"hidden_size / num_heads must be one of {HEAD_SIZES}, "
                f"got {self.hidden_size} / {self.num_heads}"
            )
        return self
