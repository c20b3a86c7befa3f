"""Which transport a run uses, and what an engine is started with for it."""

import pytest

from actors.engine_weights import EngineSync, engine_sync
from actors.run_config import load_run
from actors.sync_config import Backend, SyncConfig, choose_backend
from c2s_rl.errors import ConfigError
from c2s_rl.models.lora import LoraConfig


@pytest.mark.parametrize(
    ("backend", "gpus", "is_colocated", "expected"),
    [
        ("auto", (0, 0), False, Backend.SHARED_MEMORY),
        ("auto", (1, 0), False, Backend.SHARED_MEMORY),
        ("auto", (1, 1), False, Backend.NCCL),
        ("auto", (0.5, 0.5), True, Backend.IPC),
        ("shared_memory", (1, 1), True, Backend.SHARED_MEMORY),
        ("nccl", (1, 1), False, Backend.NCCL),
        ("ipc", (1, 1), True, Backend.IPC),
    ],
)
def test_the_transport_follows_from_the_devices(backend, gpus, is_colocated, expected):
    config = SyncConfig(backend=backend)
    chosen = choose_backend(
        config, learner_gpus=gpus[0], rollout_gpus=gpus[1], is_colocated=is_colocated
    )
    assert chosen is expected


@pytest.mark.parametrize(
    ("backend", "gpus", "is_colocated", "message"),
    [
        ("nccl", (0, 1), False, r"nccl needs learner and rollout .* got learner.num_gpus=0"),
        ("ipc", (1, 0), True, r"ipc needs .* on GPUs, got .* rollout.num_gpus=0"),
        ("ipc", (1, 1), False, "ipc needs shared GPUs .* got separate ones"),
        ("nccl", (1, 1), True, "nccl needs GPUs of their own .* got shared ones"),
    ],
)
def test_a_transport_that_the_devices_lack_is_refused(backend, gpus, is_colocated, message):
    config = SyncConfig(backend=backend)
    with pytest.raises(ValueError, match=message):
        choose_backend(
            config, learner_gpus=gpus[0], rollout_gpus=gpus[1], is_colocated=is_colocated
        )


def test_a_run_with_the_wrong_transport_does_not_start(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(
        "name: x\nalign: {task: cell_generation, num_steps: 10}\n"
        "rewards: [{name: validity, options: {num_genes: 5}}]\nsync: {backend: nccl}\n"
    )
    with pytest.raises(ConfigError, match=r"sync.backend nccl needs learner and rollout workers"):
        load_run(path, [])


@pytest.mark.parametrize(
    ("lora", "staleness", "expected"),
    [
        (None, 3, EngineSync(Backend.NCCL, 9.0)),
        (LoraConfig(rank=4, sync="merged"), 3, EngineSync(Backend.NCCL, 9.0)),
        # the newest, the one that is being loaded, and those that running requests may be behind
        (LoraConfig(rank=4), 0, EngineSync(Backend.NCCL, 9.0, adapter_rank=4, num_adapters=2)),
        (LoraConfig(rank=4), 3, EngineSync(Backend.NCCL, 9.0, adapter_rank=4, num_adapters=5)),
    ],
)
def test_an_engine_has_room_for_the_adapters_in_use(lora, staleness, expected):
    assert engine_sync(lora, backend=Backend.NCCL, deadline_s=9.0, staleness=staleness) == expected
