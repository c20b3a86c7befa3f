"""The stages `pretrain` and `sft` as a Ray Train worker group: one process a rank, gloo or NCCL.

The caller connects to Ray first (`actors.session.ray_session`). What a worker does is in
`c2s_rl/pipeline/sft_train.py`. Left out: restarting dead workers by itself; the same command run
again goes on from the newest checkpoint.
"""

import logging
import math
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from actors.engine_env import learner_env, num_cores
from actors.follow_metrics import OnMetrics, followed
from c2s_rl.errors import C2SError, StageError
from c2s_rl.pipeline.sft import (
    SftConfig,
    SftFolders,
    SftJob,
    SftWorkersConfig,
    check_metric,
    is_done,
    plan,
)
from c2s_rl.pipeline.tokens import TokenInputs, write_token_shards
from c2s_rl.runlog import METRICS

__all__ = ["SftFolders", "run_sft"]

# Ray Train waits this long for room in the cluster before it counts a failure and tries again
# (RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S); by default it would try for ever.
ROOM_TIMEOUT_S = 60.0

logger = logging.getLogger(__name__)


def run_sft(
    config: SftConfig,
    folders: SftFolders,
    *,
    on_metrics: OnMetrics | None = None,
) -> None:
    """Train in this process's Ray session until the policy is written; returns at once if it is.

    Args:
        config: The stage's config: SFT's or, as a `PretrainConfig`, pretraining's.
        folders: Inputs and output.
        on_metrics: Called in a thread with every new line of metrics.jsonl, for progress bars.

    Raises:
        C2SError: As `plan` and `train` raise it, whichever process it was in.
        StageError: If a worker died or raised anything else.
    """
    job = plan(config, folders)
    if is_done(job):
        logger.info("%s is already there", job.policy)
        return
    write_token_shards(
        TokenInputs(job.folders.corpus, job.folders.base_model),
        config.data,
        job.tokens,
        seed=config.seed,
    )
    check_metric(job)
    with followed(job.folders.output / METRICS, on_metrics), _signals_kept():
        _fit(job)


def _fit(job: SftJob) -> None:
    from ray.train import (
        FailureConfig,
        LoggingConfig,
        RunConfig,
        ScalingConfig,
        TrainingFailedError,
    )
    from ray.train.torch import TorchConfig, TorchTrainer

    workers = job.config.workers
    storage = job.folders.output / ".ray"
    shutil.rmtree(storage, ignore_errors=True)
    trainer = TorchTrainer(
        _work,
        train_loop_config={"job": job},
        torch_config=TorchConfig(backend="nccl" if workers.num_gpus else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=workers.num_workers,
            use_gpu=workers.num_gpus > 0,
            resources_per_worker=_resources(workers),
        ),
        run_config=RunConfig(
            name=job.config.stage,
            storage_path=str(storage),
            worker_runtime_env={"env_vars": _environment(workers)},
            logging_config=LoggingConfig(log_level="ERROR"),
            failure_config=FailureConfig(
                controller_failure_limit=math.ceil(workers.deadline_s / ROOM_TIMEOUT_S) - 1
            ),
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        raise _root_cause(error) from error
    finally:
        shutil.rmtree(storage, ignore_errors=True)


def _work(settings: dict[str, SftJob]) -> None:
    """One rank's whole life; the imports are slow and belong to the worker alone."""
    job = settings["job"]
    if job.config.workers.num_gpus == 0:
        from actors.deepspeed_cpu import skip_shared_memory_op

        skip_shared_memory_op()
    from c2s_rl.pipeline.sft_train import train

    train(job)


def _resources(workers: SftWorkersConfig) -> dict[str, float]:
    cpus = {"CPU": workers.num_cpus}
    return cpus | {"GPU": workers.num_gpus} if workers.num_gpus else cpus


def _environment(workers: SftWorkersConfig) -> dict[str, str]:
    """Ray would set OMP_NUM_THREADS to the reserved CPUs; one worker shall use all cores."""
    num_threads = workers.num_threads or max(1, num_cores() // workers.num_workers)
    return learner_env(num_threads, is_cpu=workers.num_gpus == 0)


def _root_cause(error: Exception) -> C2SError:
    """Find the error that the user can act on among what Ray wrapped around it."""
    from ray.train import ControllerError, WorkerGroupError

    causes: list[BaseException] = [error]
    if isinstance(error, WorkerGroupError):
        # The others often only report that their peer is gone.
        causes = [error.worker_failures[rank] for rank in sorted(error.worker_failures)]
    elif isinstance(error, ControllerError):
        causes = [error.controller_failure]
    chain = [inner for cause in causes for inner in _inner(cause)]
    for inner in chain:
        if isinstance(inner, C2SError):
            return inner
    first = chain[0]
    return StageError(
        f"training workers must end without an error, got {type(first).__name__}: {first}"
    )


def _inner(error: BaseException) -> Iterator[BaseException]:
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Give Ctrl-C back to the caller: Ray Train takes it over and never returns it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
