"""How completions are sampled: the one place that rollout and learner both read."""

from pydantic import Field, model_validator

from c2s_rl.config import FrozenConfig
from c2s_rl.decoding.constraint import GeneConstraint, GeneMode
from c2s_rl.types import Task


class SamplingConfig(FrozenConfig):
    """The sampling distribution; no top-p or top-k, for what is sampled is what is optimised."""

    group_size: int = Field(8, ge=2, description="G, completions a prompt")
    max_tokens: int = Field(256, ge=1, description="Longest completion, in tokens")
    temperature: float = Field(
        1.0, gt=0, description="Divides the logits, in the sampler and in every log-probability"
    )
    genes: GeneConstraint = Field(
        default_factory=GeneConstraint, description="Which genes a completion may hold"
    )

    @model_validator(mode="after")
    def _genes_fit(self) -> "SamplingConfig":
        # every gene takes a token and the end one more; the trie checks with the real lengths
        needed = self.genes.min_genes + 1
        if self.genes.mode is GeneMode.ON and self.max_tokens < needed:
            raise ValueError(
                f"max_tokens must be at least {needed} for genes.min_genes={needed - 1} and the "
                f"end, got {self.max_tokens}"
            )
        return self

    def for_task(self, task: Task) -> "SamplingConfig":
        """Decide what depends on the task; what workers are given.

        Raises:
            ConfigError: See `GeneConstraint.for_task`.
        """
        return self.model_copy(update={"genes": self.genes.for_task(task)})
