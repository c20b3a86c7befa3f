"""The gene trie as a logits processor of vLLM's V2 model runner, the default on CUDA.

The runner keeps the tokens on the device: each step copies the newest token of every row to the
host, which waits for the device once. A request that comes back after a preemption is walked anew
from the runner's buffer of all tokens. See `actors/vllm_gene_processor.py` for the V1 runner.
Shapes: B rows of the batch, V vocabulary.
"""

from typing import TYPE_CHECKING

from vllm.v1.worker.gpu.sample.logits_processor import (
    LogitsContext,
    LogitsProcessor,
    LogitsProcRequestState,
)

from actors.gene_requests import check_params, load_trie, start_walk
from c2s_rl.decoding.gene_walk import GeneWalk

if TYPE_CHECKING:
    import torch
    from vllm import SamplingParams
    from vllm.config import VllmConfig


class GeneTrieProcessorV2(LogitsProcessor):
    """Masks each row to what the trie allows there."""

    def __init__(self, vllm_config: "VllmConfig", req_states: LogitsProcRequestState) -> None:
        self._trie = load_trie(vllm_config)
        self._states = req_states
        self._walks: dict[int, GeneWalk] = {}  # by slot

    @classmethod
    def validate_params(cls, sampling_params: "SamplingParams") -> None:
        """Refuse requests that the trie cannot hold to its rule."""
        check_params(sampling_params)

    def add_request(self, req_idx: int, sampling_params: "SamplingParams") -> bool:
        """Start the walk of the request that takes a slot, whatever was there before."""
        self._walks.pop(req_idx, None)
        walk = start_walk(self._trie, sampling_params)
        if walk is None:
            return False
        self._walks[req_idx] = walk
        return True

    def apply(self, logits: "torch.Tensor", ctx: LogitsContext) -> "torch.Tensor":
        """Mask `logits` [B, V] in place; row and place in the batch are the same here."""
        from c2s_rl.decoding.gene_mask import keep_allowed

        newest_B = ctx.input_ids.tolist()
        rows: list[int] = []
        walks: list[GeneWalk] = []
        for row, slot in enumerate(ctx.idx_mapping_np.tolist()):
            walk = self._walks.get(slot)
            length = int(ctx.seq_lens_upper_bound_np[row])
            # A prompt that is not read to its end samples nothing that counts.
            if walk is None or length < self._states.prefill_len.np[slot]:
                continue
            self._catch_up(walk, slot, length, newest=newest_B[row])
            rows.append(row)
            walks.append(walk)
        return keep_allowed(logits, rows, walks)

    def _catch_up(self, walk: GeneWalk, slot: int, length: int, *, newest: int) -> None:
        """Take the tokens sampled since the walk's last step; usually one."""
        prompt_length = int(self._states.prompt_len.np[slot])
        first, num_new = walk.num_tokens, length - prompt_length - walk.num_tokens
        if num_new == 0 or walk.is_done:
            return
        tokens = [newest]
        if num_new > 1:
            row = self._states.all_token_ids.gpu[slot]
            tokens = row[prompt_length + first : length].tolist()
        for token in tokens:
            if walk.is_done:
                break  # an engine that runs ahead samples once more after the end
            walk.advance(token)
