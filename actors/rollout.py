"""Rollout worker: one vLLM engine in one Ray actor, G seeded samples a prompt.

Nothing imported here may import numba before the engine is up: vLLM's scan of loaded modules for
Triton kernels stumbles over an object of llvmlite when the engine starts on CPU (0.32.0).
Shape suffixes: G completions of one prompt.
"""

import logging
import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from actors.engine_weights import EngineSync, WeightReceiver, engine_rank
from actors.gene_requests import TRIE_KEY, processor_path
from actors.sync_config import Backend
from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.config import FrozenConfig
from c2s_rl.decoding.constraint import gene_trie_for
from c2s_rl.errors import DataError
from c2s_rl.grpo.roles import RolloutAnswer, RolloutRequest
from c2s_rl.grpo.sampling import SamplingConfig
from c2s_rl.types import Completion, Group

if TYPE_CHECKING:
    from vllm import RequestOutput, SamplingParams
    from vllm.inputs import TokensPrompt
    from vllm.logprobs import FlatLogprobs

logger = logging.getLogger(__name__)

# vLLM's smallest KV block on CPU: a prompt's prefix is shared in whole blocks only.
CPU_BLOCK_SIZE = 32

# Prompt tokens decoded along with a completion: a tokenizer may drop the first space of a text,
# and the first token of a completion begins with one.
TEXT_CONTEXT = 4


class RolloutConfig(FrozenConfig):
    """One vLLM engine a worker."""

    num_workers: int = Field(1, ge=1, description="Rollout workers, one engine each")
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="Engine precision")
    kv_cache_gib: int = Field(2, ge=1, description="KV cache on CPU, GiB a worker")
    gpu_memory_utilization: float = Field(
        0.85, gt=0, le=1, description="Share of a GPU's memory that the engine may take"
    )
    max_num_seqs: int = Field(64, ge=1, description="Completions decoded at once")
    max_model_len: int | None = Field(
        None, ge=2, description="Longest prompt + completion, tokens; default: the model's own"
    )
    num_cpus: float = Field(1.0, ge=0, description="Ray CPUs a worker reserves")
    num_gpus: float = Field(
        0.0,
        ge=0,
        description="Ray GPUs a worker reserves; 0 runs on CPU, 2 or more split the model",
    )
    num_threads: int | None = Field(None, ge=1, description="Threads on CPU; default: all cores")
    deadline_s: float = Field(1800.0, gt=0, description="Longest wait for one batch, seconds")


class VLLMRolloutWorker(WeightReceiver):
    """Samples groups; lives in its own process."""

    def __init__(
        self,
        policy: Path,
        vocabulary: Vocabulary,
        sampling: SamplingConfig,
        config: RolloutConfig,
        sync: EngineSync,
        *,
        can_sleep: bool = False,
    ) -> None:
        from transformers import AutoTokenizer
        from vllm import LLM
        from vllm.config.weight_transfer import WeightTransferConfig

        from actors.weight_sync import BACKEND, register

        register()
        is_cpu = config.num_gpus == 0
        is_ours = sync.backend is Backend.SHARED_MEMORY
        self._vocabulary = vocabulary
        self._sampling = sampling
        self._sync = sync
        self._keys = count()
        self._under_way: dict[str, tuple[RolloutRequest, tuple[int, ...]]] = {}
        tokenizer = AutoTokenizer.from_pretrained(policy, local_files_only=True)
        self._trie = gene_trie_for(tokenizer, vocabulary, sampling.genes)
        trie_folder = tempfile.TemporaryDirectory()
        trie_path = Path(trie_folder.name) / "gene_trie.npz"
        if self._trie is not None:
            self._trie.check_budget(sampling.max_tokens)
            self._trie.save(trie_path)
        self._llm = LLM(
            str(policy),
            dtype=config.dtype,
            # Compiling costs minutes and buys nothing for small models on CPU.
            enforce_eager=is_cpu,
            block_size=CPU_BLOCK_SIZE if is_cpu else None,
            # Per-request seeds on CPU fail when a prefill is cut between scheduler steps.
            enable_chunked_prefill=None if not is_cpu else False,
            tensor_parallel_size=max(1, int(config.num_gpus)),
            max_model_len=config.max_model_len,
            max_num_seqs=config.max_num_seqs,
            gpu_memory_utilization=config.gpu_memory_utilization,
            logprobs_mode="processed_logprobs",
            enable_sleep_mode=can_sleep,
            weight_transfer_config=WeightTransferConfig(
                backend=BACKEND if is_ours else sync.backend.value
            ),
            enable_lora=sync.adapter_rank is not None,
            max_loras=sync.num_adapters,
            max_lora_rank=engine_rank(sync.adapter_rank or 1),
            logits_processors=[processor_path()] if self._trie else None,
            additional_config={TRIE_KEY: str(trie_path)} if self._trie else {},
        )
        trie_folder.cleanup()  # the engine has read it
        self.set_version(0)
        self._tokenizer = self._llm.get_tokenizer()
        self._max_model_len = int(self._llm.llm_engine.model_config.max_model_len)

    def node(self) -> str:
        """Answer, once the engine is up, with the id of the node it runs on."""
        import ray

        node_id: str = ray.get_runtime_context().get_node_id()
        return node_id

    def submit(self, requests: Sequence[RolloutRequest]) -> None:
        """Queue one group a request; `advance` samples them.

        Raises:
            DataError: If a prompt and the longest completion do not fit the model's context.
        """
        prompt_ids = [self._encode(request) for request in requests]
        for request, ids in zip(requests, prompt_ids, strict=True):
            key = str(next(self._keys))
            prompt: TokensPrompt = {"prompt_token_ids": list(ids)}
            if request.cache_scope:
                prompt["cache_salt"] = request.cache_scope
            self._llm.llm_engine.add_request(
                key,
                prompt,
                self._params(request),
                lora_request=self.adapter,
            )
            self._under_way[key] = (request, ids)

    def advance(self, max_seconds: float) -> list[RolloutAnswer]:
        """Run the engine until groups are finished, or for `max_seconds`; returns those groups.

        The engine's own schedule does not depend on where the calls end: it goes on from where it
        stood. Every call makes at least one engine step, a token for each sample.
        """
        stop = time.monotonic() + max_seconds
        answers: list[RolloutAnswer] = []
        while self._under_way and not answers:
            for output in self._llm.llm_engine.step():
                if output.finished:
                    request, ids = self._under_way.pop(output.request_id)
                    answers.append(RolloutAnswer(request.ticket, self._group(request, ids, output)))
            if time.monotonic() > stop:
                break
        return answers

    def generate(self, requests: Sequence[RolloutRequest]) -> list[Group]:
        """Sample one group a request, in the order of the requests; nothing else is under way.

        Raises:
            DataError: If a prompt and the longest completion do not fit the model's context.
        """
        self.submit([replace(request, ticket=i) for i, request in enumerate(requests)])
        groups: dict[int, Group] = {}
        while self._under_way:
            groups |= {answer.ticket: answer.group for answer in self.advance(math.inf)}
        return [groups[i] for i in range(len(requests))]

    def sleep(self) -> None:
        """Move the weights to main memory and give the GPU's back; CUDA only."""
        self._llm.sleep(level=1)

    def wake(self) -> None:
        """Undo `sleep`."""
        self._llm.wake_up()

    def _encode(self, request: RolloutRequest) -> tuple[int, ...]:
        ids = tuple(self._tokenizer.encode(request.record.prompt, add_special_tokens=False))
        max_tokens = self._max_tokens(request)
        if len(ids) + max_tokens > self._max_model_len:
            raise DataError(
                f"prompt + sampling.max_tokens must be at most {self._max_model_len} tokens "
                f"(the model's context), got {len(ids)} + {max_tokens} "
                f"for prompt {request.record.prompt_id!r}"
            )
        return ids

    def _max_tokens(self, request: RolloutRequest) -> int:
        return request.max_tokens or self._sampling.max_tokens

    def _params(self, request: RolloutRequest) -> "SamplingParams":
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            n=request.num_samples or self._sampling.group_size,
            temperature=self._sampling.temperature,
            max_tokens=self._max_tokens(request),
            seed=request.seed,
            output_kind=RequestOutputKind.FINAL_ONLY,
            logprobs=0,  # 0 alternatives: the sampled token's own log-probability only
            # One list a sample instead of objects a token, and the text decoded once at the end:
            # the engine's own thread would spend its time on them between the model's steps.
            flat_logprobs=True,
            detokenize=False,
            extra_args={TRIE_KEY: self._trie is not None},
        )

    def _group(
        self, request: RolloutRequest, prompt_ids: tuple[int, ...], output: "RequestOutput"
    ) -> Group:
        from c2s_rl.cells.parse import parse_cell  # kernels: see the top of this module

        completions: list[Completion] = []
        # vLLM returns the n samples in order of finishing; their index makes the order stable
        for sample in sorted(output.outputs, key=lambda sample: sample.index):
            token_ids = tuple(sample.token_ids)
            completions.append(
                Completion(
                    text=self._text(prompt_ids, token_ids),
                    token_ids_T=token_ids,
                    rollout_logprobs_T=_sampled_logprobs(token_ids, sample.logprobs),
                    # tokens of several versions count as the oldest
                    policy_version=min(int(span.version) for span in sample.weight_versions),
                    is_truncated=sample.finish_reason == "length",
                )
            )
        return Group(
            record=request.record,
            prompt_token_ids=prompt_ids,
            completions_G=tuple(completions),
            cells_G=tuple(
                parse_cell(c.text, self._vocabulary, is_truncated=c.is_truncated)
                for c in completions
            ),
        )

    def _text(self, prompt_ids: tuple[int, ...], token_ids: tuple[int, ...]) -> str:
        context = prompt_ids[-TEXT_CONTEXT:]
        before = self._tokenizer.decode(context, skip_special_tokens=True)
        text: str = self._tokenizer.decode(context + token_ids, skip_special_tokens=True)
        return text[len(before) :]


def _sampled_logprobs(token_ids: tuple[int, ...], flat: "FlatLogprobs") -> tuple[float, ...]:
    assert tuple(flat.token_ids) == token_ids, "vLLM scored other tokens than it sampled"
    return tuple(flat.logprobs)
