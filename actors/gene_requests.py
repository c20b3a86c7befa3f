"""How the rollout worker and the logits processors of either vLLM interface agree on the trie.

The trie travels as a file, named in the engine's `additional_config`; a request asks for it in its
`extra_args`. Nothing heavy is imported: vLLM also loads the processors where requests come in.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from c2s_rl.decoding.gene_trie import GeneTrie
from c2s_rl.decoding.gene_walk import GeneWalk

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.config import VllmConfig

# Key of the engine's additional_config (the trie's file) and of a request's extra_args (True).
TRIE_KEY = "c2s_rl_gene_trie"
V1_PROCESSOR = "actors.vllm_gene_processor:GeneTrieProcessor"
V2_PROCESSOR = "actors.vllm_gene_processor_v2:GeneTrieProcessorV2"


def processor_path() -> str:
    """Return the processor for the model runner that this process's engine will use."""
    from vllm import envs

    return V2_PROCESSOR if envs.VLLM_USE_V2_MODEL_RUNNER else V1_PROCESSOR


def load_trie(config: "VllmConfig") -> GeneTrie:
    """Read the trie that the engine was started with.

    Raises:
        ValueError: If the engine predicts several tokens at once, which would need the masks of
            tokens that are not sampled yet.
    """
    if config.speculative_config is not None:
        raise ValueError("the gene trie needs an engine without speculative decoding, got one with")
    return GeneTrie.load(Path(str(config.additional_config[TRIE_KEY])))


def check_params(params: "SamplingParams") -> None:
    """Check a request where it comes in.

    Raises:
        ValueError: If it asks for the trie without a token budget, or could go on after the end.
    """
    if not is_constrained(params):
        return
    if params.max_tokens is None:
        raise ValueError("a request held to the gene trie must have max_tokens, got None")
    if params.ignore_eos:
        raise ValueError("a request held to the gene trie must stop at its end, got ignore_eos")


def is_constrained(params: "SamplingParams") -> bool:
    """Whether a request is held to the trie."""
    return bool((params.extra_args or {}).get(TRIE_KEY, False))


def start_walk(trie: GeneTrie, params: "SamplingParams") -> GeneWalk | None:
    """Start the walk of a request; None if it is not held to the trie."""
    if not is_constrained(params):
        return None
    assert params.max_tokens is not None  # checked where the request came in
    return trie.walk(params.max_tokens)
