"""Weight sync through shared memory against one memcpy of the same bytes.

    python -m tests.benchmarks.weight_sync

Transport: from tensors in the learner's process to checked, readable tensors in the rollout
worker's, messages between the two included; not the loading into an engine. Steady state: the
first two versions, which also create the slots, are not measured. The peer copies the same tensors
into one array of its own process, a memcpy each, in one thread, and checks nothing.
"""

import argparse
import itertools
import json
import multiprocessing
import statistics
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from torch import nn

from actors.shared_weights import SharedReader, SharedWriter
from actors.weight_source import WeightSource
from tests.benchmarks.harness import Figures, Result, in_turns, report

MODULE = "tests.benchmarks.weight_sync"
BOUND = 0.7
BUCKET_BYTES = 256 * 2**20
NUM_WARM = 2


# name -> (vocabulary, hidden, inner, layers): embeddings and linear layers of models that size
SHAPES = {
    "quick": (100, 32, 64, 2),
    "4M": (3_200, 192, 768, 6),
    "135M": (49_152, 576, 1_536, 38),
}


def make_model(shape: str) -> nn.Module:
    vocabulary, hidden, inner, num_layers = SHAPES[shape]
    layers = [
        nn.ModuleDict(
            {
                "qkv": nn.Linear(hidden, 3 * hidden),
                "out": nn.Linear(hidden, hidden),
                "up": nn.Linear(hidden, inner),
                "down": nn.Linear(inner, hidden),
                "norm": nn.LayerNorm(hidden),
            }
        )
        for _ in range(num_layers)
    ]
    model = nn.ModuleDict({"embed": nn.Embedding(vocabulary, hidden)})
    model["layers"] = nn.ModuleList(layers)
    return model


def num_bytes(shape: str) -> int:
    with torch.device("meta"):
        return sum(p.numel() * 4 for p in make_model(shape).parameters())


def measure_transport(shape: str, *, repeats: int, threads: int) -> Figures:
    source = WeightSource(make_model(shape), is_sharded=False, bucket_bytes=BUCKET_BYTES)
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    worker = multiprocessing.get_context("spawn").Process(target=read_all, args=(theirs, threads))
    worker.start()
    seconds: list[float] = []
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        writer = SharedWriter(Path(folder), deadline_s=60, num_threads=threads)
        ours.recv()
        for version in range(NUM_WARM + repeats):
            start = time.perf_counter()
            ours.send(writer.publish(source, version))
            num_tensors = ours.recv()
            seconds.append(time.perf_counter() - start)
            assert num_tensors == len(source.metadata())
        ours.send(None)
        worker.join()
    return {"seconds": statistics.median(seconds[NUM_WARM:])}


def read_all(pipe: Connection, threads: int) -> None:
    """The other process: takes every version that is announced."""
    reader = SharedReader(deadline_s=60, num_threads=threads)
    pipe.send("ready")
    while (weights := pipe.recv()) is not None:
        tensors = dict(reader.acquire(weights.location, weights.generation, weights.buckets))
        pipe.send(len(tensors))
        del tensors
        reader.release()


def measure_memcpy(shape: str, *, repeats: int) -> Figures:
    sources = [
        p.detach().reshape(-1).view(torch.uint8).numpy() for p in make_model(shape).parameters()
    ]
    ends = list(itertools.accumulate(len(source) for source in sources))
    target = np.zeros(ends[-1], dtype=np.uint8)
    seconds: list[float] = []
    for _ in range(NUM_WARM + repeats):
        start = time.perf_counter()
        for source, end in zip(sources, ends, strict=True):
            np.copyto(target[end - len(source) : end], source)
        seconds.append(time.perf_counter() - start)
    return {"seconds": statistics.median(seconds[NUM_WARM:])}


def results(*, quick: bool) -> list[Result]:
    shapes = ["quick"] if quick else ["135M"]
    rounds, repeats = (1, 3) if quick else (3, 15)
    found: list[Result] = []
    for shape in shapes:
        sides = in_turns(
            MODULE,
            ["transport", "memcpy"],
            rounds=rounds,
            options=["--shape", shape, "--repeats", str(repeats)],
        )
        size = num_bytes(shape)
        transport, memcpy = sides["transport"]["seconds"], sides["memcpy"]["seconds"]
        workload = (
            f"{shape} parameters, float32, {size / 2**20:.0f} MiB, 2 processes, 2 threads each; "
            f"{size / transport / 1e9:.1f} against {size / memcpy / 1e9:.1f} GB/s"
        )
        found.append(Result("weight sync transport", "memcpy", workload, memcpy / transport, BOUND))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", choices=["transport", "memcpy"])
    parser.add_argument("--shape", choices=SHAPES, default="quick")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    if options.side == "transport":
        print(
            json.dumps(
                measure_transport(options.shape, repeats=options.repeats, threads=options.threads)
            )
        )
    elif options.side == "memcpy":
        print(json.dumps(measure_memcpy(options.shape, repeats=options.repeats)))
    else:
        report(results(quick=False))


if __name__ == "__main__":
    main()
