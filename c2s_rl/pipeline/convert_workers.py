"""Who does the tasks of a conversion: threads of this process. Ray workers are in `actors/`.

Kernels, decompression and Parquet run without Python's lock, so two threads are nearly twice as
fast as one. The result does not depend on who does what.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Protocol

from c2s_rl.pipeline.convert_work import PartTask


class TaskWorker(Protocol):
    """Does tasks one after another; has files open in between."""

    def __call__(self, task: PartTask) -> int:
        """Do one task; returns the rows that are done."""

    def close(self) -> None:
        """Close what is open."""


MakeWorker = Callable[[], TaskWorker]


class Executor(Protocol):
    """Lets workers do tasks."""

    def __call__(self, make_worker: MakeWorker, tasks: Sequence[PartTask]) -> Iterator[int]:
        """Do all tasks.

        Args:
            make_worker: Makes a worker in the thread or process that will use it; picklable.
            tasks: In order of their parts.

        Yields:
            Rows done, task by task, in any order.

        Raises:
            C2SError: As a worker raises it; tasks that were not begun are not done.
        """


def in_order(make_worker: MakeWorker, tasks: Sequence[PartTask]) -> Iterator[int]:
    """Do one task after another, in this thread: an Executor."""
    worker = make_worker()
    try:
        for task in tasks:
            yield worker(task)
    finally:
        worker.close()


@dataclass(frozen=True)
class InThreads:
    """Does tasks in threads of this process: an Executor."""

    num_threads: int | None = None
    """None takes as many as this process may use CPUs."""

    def __call__(self, make_worker: MakeWorker, tasks: Sequence[PartTask]) -> Iterator[int]:
        """Do all tasks; see `Executor`."""
        num_threads = min(self.num_threads or len(os.sched_getaffinity(0)), len(tasks))
        if num_threads <= 1:
            yield from in_order(make_worker, tasks)
            return
        idle: SimpleQueue[TaskWorker] = SimpleQueue()
        workers = [make_worker() for _ in range(num_threads)]
        for worker in workers:
            idle.put(worker)

        def do(task: PartTask) -> int:
            worker = idle.get()
            try:
                return worker(task)
            finally:
                idle.put(worker)

        with ExitStack() as stack:
            for worker in workers:
                stack.callback(worker.close)
            pool = ThreadPoolExecutor(num_threads, thread_name_prefix="convert")
            stack.enter_context(pool)
            futures = [pool.submit(do, task) for task in tasks]
            try:
                for future in futures:
                    yield future.result()
            finally:
                for future in futures:
                    future.cancel()
