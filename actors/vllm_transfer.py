"""vLLM's own transports between GPUs, nccl and ipc, driven by the learner.

vLLM's trainer engines send: rank 0 tells every rollout worker to start, receive and finish an
update, and broadcasts (nccl) or shares GPU memory (ipc) meanwhile; every rank takes part in
gathering shards. Importing them does not touch model classes, as importing an engine would.
Left out: checksums (the transports have their own) and tensor-parallel engines.
"""

import socket
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TYPE_CHECKING, TypeVar

from actors.calls import wait_each
from actors.sync_config import Backend
from actors.weight_publish import SyncTarget
from actors.weight_source import TensorMeta, WeightSource
from c2s_rl.errors import DeadlineError
from c2s_rl.grpo.roles import PublishedWeights, WeightsForm

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.actor import ActorHandle
    from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo
    from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo

T = TypeVar("T")

Payload = dict[str, object]


class EngineClient:
    """Fills vLLM's `VLLMWeightSyncClient` with our rollout workers, every wait with a deadline."""

    def __init__(self, engines: "Sequence[ActorHandle]", *, deadline_s: float) -> None:
        self._engines = list(engines)
        self._deadline_s = deadline_s

    def init_weight_transfer_engine(self, init_info: Payload) -> None:
        """Introduce the workers to the learner; under nccl each gets a rank of its own."""
        infos = rank_offsets(init_info, len(self._engines))
        self._wait(
            [e.init_transfer.remote(i) for e, i in zip(self._engines, infos, strict=True)],
            "meeting the learner",
        )

    def start_weight_update(self) -> None:
        """Make the workers ready for weights."""
        self._wait([e.start_transfer.remote() for e in self._engines], "starting an update")

    def update_weights(self, update_info: Payload) -> None:
        """Have the workers receive, while the learner sends."""
        calls = [e.receive_transfer.remote(update_info) for e in self._engines]
        self._wait(calls, "receiving weights")

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        """Have the workers use what they received; the version comes with the handle instead."""
        del weight_version
        self._wait([e.finish_transfer.remote() for e in self._engines], "finishing an update")

    def _wait(self, calls: "Sequence[ObjectRef[None]]", what: str) -> None:
        peers = [f"rollout worker {index} ({what})" for index in range(len(calls))]
        wait_each(calls, deadline_s=self._deadline_s, peers=peers)


def rank_offsets(init_info: Payload, num_engines: int) -> list[Payload]:
    """Give the engines consecutive ranks of the nccl group; vLLM would give all of them the first.

    vLLM adds `rank_offset` to a worker's rank inside its own engine, and sets it for a single
    engine. An ipc payload has none and is passed on as it is.
    """
    if "rank_offset" not in init_info:
        return [init_info] * num_engines
    first = init_info["rank_offset"]
    assert isinstance(first, int)
    return [init_info | {"rank_offset": first + index} for index in range(num_engines)]


def packed_bytes(metadata: Sequence[TensorMeta], bucket_bytes: int) -> int:
    """Size of vLLM's packing buffer: a bucket, but never less than the largest tensor."""
    return max(bucket_bytes, *(meta.num_bytes for meta in metadata))


def nccl_info(
    *, rank: int, address: tuple[str, int], num_engines: int, buffer_bytes: int
) -> "NCCLTrainerInitInfo":
    """Describe the nccl group: learner rank 0 and one rank for each engine."""
    from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo

    host, port = address
    return NCCLTrainerInitInfo(
        master_address=host,
        master_port=port,
        world_size=1 + num_engines,
        packed=True,
        packed_buffer_size_bytes=buffer_bytes,
        rank=rank,
    )


def ipc_info(*, rank: int, buffer_bytes: int) -> "IPCTrainerInitInfo":
    """Describe the sharing of GPU memory; packed, for gathered tensors do not outlive a bucket."""
    from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo

    return IPCTrainerInitInfo(packed=True, packed_buffer_size_bytes=buffer_bytes, rank=rank)


class VllmPublisher:
    """Sends whole weights when it publishes; the handle only tells the version."""

    def __init__(self, source: WeightSource, target: SyncTarget, *, rank: int) -> None:
        """Meet the engines; every rank must call it.

        Raises:
            DeadlineError: If a rollout worker does not come.
        """
        from vllm.distributed.weight_transfer.factory import WeightTransferTrainerFactory

        self._rank = rank
        self._target = target
        # One thread, so that whoever waits for it can give up: a broadcast cannot be interrupted.
        self._thread = ThreadPoolExecutor(1)
        buffer_bytes = packed_bytes(source.metadata(), target.bucket_bytes)
        info: NCCLTrainerInitInfo | IPCTrainerInitInfo
        if target.sync.backend is Backend.NCCL:
            address = _free_address() if rank == 0 else ("", 0)  # other ranks do not join
            info = nccl_info(
                rank=rank,
                address=address,
                num_engines=len(target.engines),
                buffer_bytes=buffer_bytes,
            )
        else:
            info = ipc_info(rank=rank, buffer_bytes=buffer_bytes)
        client = EngineClient(target.engines, deadline_s=target.sync.deadline_s)
        self._trainer = self._within_deadline(
            self._thread.submit(
                lambda: WeightTransferTrainerFactory.trainer_init(
                    info, client=client, source=source
                )
            ),
            "meet",
        )

    def publish(self, version: int) -> PublishedWeights | None:
        """Send the current weights to every rollout worker.

        Raises:
            DeadlineError: If a rollout worker does not take them; the group cannot be used again.
        """
        self._within_deadline(
            self._thread.submit(self._trainer.send_weights), f"take weights version {version} from"
        )
        if self._rank != 0:
            return None
        return PublishedWeights(version, "", form=WeightsForm.DELIVERED)

    def _within_deadline(self, future: "Future[T]", what: str) -> T:
        deadline_s = self._target.sync.deadline_s
        try:
            return future.result(timeout=deadline_s)
        except FutureTimeoutError as error:
            raise DeadlineError(
                f"{len(self._target.engines)} rollout workers must {what} learner rank "
                f"{self._rank} within {deadline_s:g} s over {self._target.sync.backend}, got no end"
            ) from error


def _free_address() -> tuple[str, int]:
    """This machine's address among the cluster's nodes and a port nobody listens on."""
    import ray

    with socket.socket() as probe:
        probe.bind(("", 0))
        port = int(probe.getsockname()[1])
    return ray.util.get_node_ip_address(), port
