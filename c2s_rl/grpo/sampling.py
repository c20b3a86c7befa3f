"""How completions are sampled: the one place that rollout and learner both read."""

from pydantic import Field

from c2s_rl.config import FrozenConfig


class SamplingConfig(FrozenConfig):
    """The sampling distribution; no top-p or top-k, for what is sampled is what is optimised."""

    group_size: int = Field(8, ge=2, description="G, completions a prompt")
    max_tokens: int = Field(256, ge=1, description="Longest completion, in tokens")
    temperature: float = Field(
        1.0, gt=0, description="Divides the logits, in the sampler and in every log-probability"
    )
