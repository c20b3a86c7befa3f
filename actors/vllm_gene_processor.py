"""The gene trie as a logits processor of vLLM's V1 model runner: on CPU, on CUDA by choice.

Named by its path in `LLM(logits_processors=[...])`, so that it works in an engine of another
process too. Only requests that ask for the trie are held to it (`actors/gene_requests.py`). The
runner applies it before the temperature, so its "processed" log-probabilities are those of the
masked distribution.
Shapes: B rows of the batch, V vocabulary.
"""

from dataclasses import dataclass

import torch
from vllm import SamplingParams
from vllm.config import VllmConfig
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from actors.gene_requests import check_params, load_trie, start_walk
from c2s_rl.decoding.gene_mask import keep_allowed
from c2s_rl.decoding.gene_walk import GeneWalk


@dataclass
class _Request:
    """A request in the batch."""

    walk: GeneWalk
    output_ids: list[int]
    """The runner's own list of sampled tokens, which grows from step to step."""

    def catch_up(self) -> None:
        """Take the tokens sampled since the last step; all of them after a preemption."""
        for token in self.output_ids[self.walk.num_tokens :]:
            if self.walk.is_done:
                break  # an engine that runs ahead samples once more after the end
            self.walk.advance(token)


class GeneTrieProcessor(LogitsProcessor):
    """Masks each row to what the trie allows there."""

    def __init__(
        self,
        vllm_config: VllmConfig,
        device: torch.device,
        is_pin_memory: bool,  # noqa: FBT001 vLLM's interface
    ) -> None:
        self._trie = load_trie(vllm_config)
        self._requests: dict[int, _Request] = {}

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Refuse requests that the trie cannot hold to its rule."""
        check_params(sampling_params)

    def is_argmax_invariant(self) -> bool:
        """Say that the most likely token may change."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follow requests that entered, left or moved in the batch.

        Tokens are not read here: with asynchronous scheduling the last one is still unknown.
        """
        process_dict_updates(self._requests, batch_update, self._new_request)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Mask `logits` [B, V] in place."""
        for request in self._requests.values():
            request.catch_up()
        walks = [request.walk for request in self._requests.values()]
        return keep_allowed(logits, list(self._requests), walks)

    def _new_request(
        self, params: SamplingParams, _prompt_ids: list[int] | None, output_ids: list[int]
    ) -> _Request | None:
        walk = start_walk(self._trie, params)
        return None if walk is None else _Request(walk, output_ids)
