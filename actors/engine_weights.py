"""The rollout worker's side of weight sync: a published version in, an engine that uses it out.

Whole weights replace the engine's own. An adapter comes as a new one for each version, under an id
and a path never used before: vLLM's prefix cache tells adapters apart by them, so nothing that an
older version computed is served, and requests of older versions may still be running.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from actors.sync_config import Backend
from c2s_rl.errors import StageError
from c2s_rl.grpo.roles import PublishedWeights, WeightsForm
from c2s_rl.models.lora import LoraConfig

if TYPE_CHECKING:
    from vllm import LLM
    from vllm.lora.request import LoRARequest


@dataclass(frozen=True)
class EngineSync:
    """What an engine must be started with to take weights later."""

    backend: Backend = Backend.SHARED_MEMORY
    """Transport of whole weights."""
    deadline_s: float = 120.0
    """Longest wait for the learner, seconds."""
    adapter_rank: int | None = None
    """Rank of the adapters it will get; None for whole weights."""
    num_adapters: int = 1
    """Adapter versions that may be in use at the same time."""

    @property
    def is_local(self) -> bool:
        """Whether engines must be on the machine of learner rank 0, to read what it publishes."""
        return self.adapter_rank is not None or self.backend is Backend.SHARED_MEMORY


def engine_sync(
    lora: LoraConfig | None, *, backend: Backend, deadline_s: float, staleness: int
) -> EngineSync:
    """Derive an engine's settings from the run's.

    Args:
        lora: The policy's adapter, if it has one.
        backend: Transport of whole weights.
        deadline_s: Longest wait for the learner.
        staleness: Versions that a running request may be behind. One more is the newest, and one
            more is being loaded.
    """
    if lora is None or lora.sync == "merged":
        return EngineSync(backend, deadline_s)
    return EngineSync(backend, deadline_s, adapter_rank=lora.rank, num_adapters=staleness + 2)


def engine_rank(rank: int) -> int:
    """Smallest adapter rank that vLLM has buffers for and that is not below `rank`."""
    from vllm.config.lora import MaxLoRARanks

    return min(size for size in get_args(MaxLoRARanks) if size >= rank)


class WeightReceiver:
    """Weight sync of a rollout worker; the class that inherits it starts the engine."""

    _llm: "LLM"
    _sync: EngineSync
    _num_received: int = 0
    _adapters: "tuple[LoRARequest, ...]" = ()

    @property
    def adapter(self) -> "LoRARequest | None":
        """What to sample with: the newest adapter, or None for the engine's own weights."""
        return self._adapters[-1] if self._adapters else None

    def update_weights(self, weights: PublishedWeights) -> None:
        """Take a published version; what was cached under the former weights is not served.

        Raises:
            WeightSyncError: If the weights did not arrive as they were published.
            StageError: If an adapter comes to an engine that was started without adapters.
        """
        if weights.form is WeightsForm.ADAPTER:
            self._load_adapter(weights)
        else:
            if weights.form is WeightsForm.SHARED_MEMORY:
                self._load_shared(weights)
            # What is being sampled keeps its tokens; their keys and values are computed anew.
            self._llm.reset_prefix_cache(reset_running_requests=True)
        self.set_version(weights.version)

    def set_version(self, version: int) -> None:
        """Have the engine note by which weights it samples each token.

        A request keeps its adapter to its end; as its tokens count as the oldest version noted for
        any of them, the version it started with is the one they get.
        """
        self._llm.llm_engine.set_weight_version(str(version))

    def init_transfer(self, init_info: dict[str, object]) -> None:
        """Meet the learner; called by it for nccl and ipc."""
        self._llm.collective_rpc("init_weight_transfer_engine", kwargs={"init_info": init_info})

    def start_transfer(self) -> None:
        """Make the layers ready for weights."""
        self._llm.collective_rpc("start_weight_update")

    def receive_transfer(self, update_info: dict[str, object]) -> None:
        """Take what is described, while the learner sends it."""
        self._llm.collective_rpc("update_weights", kwargs={"update_info": update_info})

    def finish_transfer(self) -> None:
        """Bring the layers back into the form that answers requests."""
        self._llm.collective_rpc("finish_weight_update")

    def _load_shared(self, weights: PublishedWeights) -> None:
        from actors.weight_sync import update_info

        if self._num_received == 0:
            self.init_transfer({"deadline_s": self._sync.deadline_s})
        self._num_received += 1
        self.start_transfer()
        self.receive_transfer(update_info(weights))
        self.finish_transfer()

    def _load_adapter(self, weights: PublishedWeights) -> None:
        from vllm.lora.request import LoRARequest

        if self._sync.adapter_rank is None:
            raise StageError(
                "an engine that takes adapters must be started with their rank, "
                f"got an adapter of version {weights.version}"
            )
        # The id is this engine's own count: a version may be published twice, with other weights.
        self._num_received += 1
        request = LoRARequest(
            f"policy-{self._num_received}-version-{weights.version}",
            self._num_received,
            weights.location,
        )
        kept = self._sync.num_adapters - 1
        for old in self._adapters[: len(self._adapters) - kept]:
            self._llm.llm_engine.remove_lora(old.lora_int_id)
        # Loaded now, not with the first request, so that a broken adapter is an error of the sync
        self._llm.llm_engine.add_lora(request)
        self._adapters = (*self._adapters[-kept:], request)
