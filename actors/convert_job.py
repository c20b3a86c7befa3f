"""`convert` as a Ray job: its parts are mapped over a pool of workers by Ray Data.

A worker is an actor with one thread that opens the files itself, writes its parts to the work
folder, which must lie on storage that all nodes see, and returns how many rows are done. Who needs
no cluster, for the parts are few or one worker is asked for, stays in this process and its threads.
"""

import os
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import ray

from actors.session import RayConfig, ray_session
from c2s_rl.errors import C2SError
from c2s_rl.pipeline.convert import run
from c2s_rl.pipeline.convert_config import ConvertConfig
from c2s_rl.pipeline.convert_work import PartTask
from c2s_rl.pipeline.convert_workers import InThreads, MakeWorker


def run_convert(config: ConvertConfig, output: Path, ray_config: RayConfig) -> None:
    """Convert on the cluster that is named, or in this process.

    Args:
        config: With `workers`: null takes Ray where a cluster is named, with a worker a CPU of it.
        output: Folder for the shards.
        ray_config: Which cluster.

    Raises:
        C2SError: As `convert.run` raises it.
    """
    workers = config.workers
    is_named = bool(ray_config.address or os.environ.get("RAY_ADDRESS"))
    num_workers = workers.num_workers
    if num_workers == 1 or (num_workers is None and not is_named):
        run(config, output, executor=InThreads(workers.num_threads))
        return
    with ray_session(ray_config, num_cpus=(num_workers or 1) * workers.num_cpus):
        if num_workers is None:
            cpus = float(ray.cluster_resources().get("CPU", 1))
            num_workers = max(1, int(cpus // workers.num_cpus))
        run(config, output.absolute(), executor=OnRay(num_workers, workers.num_cpus))


@dataclass(frozen=True)
class OnRay:
    """Does tasks in a pool of Ray actors: an `Executor`."""

    num_workers: int
    """Actors at most; a conversion of fewer parts takes fewer."""
    num_cpus: float
    """That each reserves."""

    def __call__(self, make_worker: MakeWorker, tasks: Sequence[PartTask]) -> Iterator[int]:
        """Do all tasks; see `Executor`."""
        if not tasks:
            return
        # Blocks of one row: a task is a part, which is work enough for one call.
        rows = ray.data.from_items([vars(task) for task in tasks], override_num_blocks=len(tasks))
        done = rows.map(
            _RayWorker,
            fn_constructor_args=(make_worker,),
            compute=ray.data.ActorPoolStrategy(size=min(self.num_workers, len(tasks))),
            num_cpus=self.num_cpus,
        )
        for row in done.iter_rows():
            if row["error"]:
                raise pickle.loads(row["error"])
            yield int(row["rows"])


class _RayWorker:
    """One worker; lives in an actor."""

    def __init__(self, make_worker: MakeWorker) -> None:
        self._work = make_worker()

    def __call__(self, row: dict[str, int]) -> dict[str, int | bytes]:
        try:
            return {"rows": self._work(PartTask(**row)), "error": b""}
        except C2SError as error:
            # As data: Ray Data wraps what is raised into what it makes of it, traceback and all.
            return {"rows": 0, "error": pickle.dumps(error)}
