"""Cells to shards on disk: against cell2sentence, against reading the file, memory, Ray workers.

    python -m tests.benchmarks.convert_shards [--quick]

1. Counts in memory (CSR float32, 2,000 of 20,000 genes a cell, synthetic) to shards on disk, two
   threads. c2s_rl: the whole stage on a file that lies in memory: checks, normalises, ranks, hashes
   ids, writes Parquet (ids and ranked genes, as the peer; no values) with hashes and manifest,
   flushed to disk. The peer, on one thread as it is: `generate_sentences` of normalised values, and
   `save_to_disk` of sentences and ids. Normalising is not timed for the peer. Clock, of one call
   after one on 64 cells.
2. The same cells in a gzip-compressed .h5ad as anndata writes it, two threads: the whole stage
   against `indptr[:]`, `indices[:]`, `data[:]` through h5py. Clock; the file is in the page cache.
3. Peak memory of the stage's process, one thread: a file of 1,000,000 cells of 200 genes against
   one of 100,000. Imports included.
4. Cells a second of two Ray workers over one, of 160,000 such cells as four data sets in one
   folder, so that parts outnumber what it takes to start a pool (1.9 s with one worker, 2.7 s with
   two, mostly `import ray.data` in each); Ray itself is started before the clock, and has converted
   once. The ideal is 2, so the ratio is half of theirs.
"""

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np

from tests.benchmarks.harness import Result, in_turns, peak_megabytes

if TYPE_CHECKING:
    import anndata

MODULE = "tests.benchmarks.convert_shards"
NUM_GENES = 20_000
NUM_COPIES = 4  # data sets that one file stands for, where Ray workers are measured
LIMITS = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def counts(num_cells: int, per_cell: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bounds, columns and counts; half of a cell's genes have one count, a few have hundreds."""
    rng = np.random.default_rng(0)
    sets = np.sort(np.argsort(rng.random((64, NUM_GENES)), axis=1)[:, :per_cell], axis=1)
    columns = sets[rng.integers(0, 64, num_cells)].astype(np.int32).ravel()
    values = 1 + rng.negative_binomial(1, 0.35, size=len(columns)).astype(np.float32)
    values[rng.random(len(values)) < 0.01] *= 37
    return np.arange(0, len(columns) + 1, per_cell, dtype=np.int64), columns, values


def log1p_cells(num_cells: int, per_cell: int) -> "anndata.AnnData":
    """Return such cells as log1p(CP10k)."""
    import anndata
    import pandas as pd
    from scipy import sparse

    bounds, columns, values = counts(num_cells, per_cell)
    matrix = sparse.csr_matrix((values, columns, bounds), shape=(num_cells, NUM_GENES))
    totals = np.asarray(matrix.sum(axis=1)).ravel()
    matrix.data = np.log1p(matrix.data * np.repeat(10_000 / totals, per_cell)).astype(np.float32)
    obs = pd.DataFrame(index=[f"cell-{i:09d}" for i in range(num_cells)])
    var = pd.DataFrame(index=[f"GENE{i}" for i in range(NUM_GENES)])
    return anndata.AnnData(matrix, obs=obs, var=var)


def write_h5ad(path: Path, num_cells: int, per_cell: int, *, compression: str | None) -> None:
    """Write cells as anndata does, a hundred thousand at a time."""
    texts = h5py.string_dtype()
    with h5py.File(path, "w") as file:
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        names = {"obs": [f"cell-{i:09d}" for i in range(num_cells)],
                 "var": [f"GENE{i}" for i in range(NUM_GENES)]}  # fmt: skip
        for frame, index in names.items():
            group = file.create_group(frame)
            group.attrs.update({"encoding-type": "dataframe", "encoding-version": "0.2.0"})
            group.attrs.update({"_index": "_index", "column-order": np.zeros(0, dtype="S1")})
            group.create_dataset("_index", data=index, dtype=texts)
        matrix = file.create_group("X")
        matrix.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0"})
        matrix.attrs["shape"] = (num_cells, NUM_GENES)
        size = num_cells * per_cell
        matrix["indptr"] = np.arange(0, size + 1, per_cell, dtype=np.int64)
        kinds = {"indices": "i4", "data": "f4"}
        for name, kind in kinds.items():
            matrix.create_dataset(
                name, shape=size, dtype=kind, compression=compression, chunks=True
            )
        for first in range(0, num_cells, 100_000):
            num = min(100_000, num_cells - first)
            _, columns, values = counts(num, per_cell)
            place = slice(first * per_cell, (first + num) * per_cell)
            matrix["indices"][place], matrix["data"][place] = columns, values


def stage(
    path: Path, output: Path, num_threads: int, *, has_values: bool = True
) -> dict[str, float]:
    """Time the stage; 64 cells are converted before, for compilation."""
    from c2s_rl.pipeline.convert import ConvertConfig, run
    from c2s_rl.pipeline.convert_part import gene_hashes
    from c2s_rl.pipeline.convert_workers import InThreads

    with tempfile.TemporaryDirectory() as folder:
        write_h5ad(Path(folder) / "warm.h5ad", 64, 50, compression="gzip")
        run(ConvertConfig(path=f"{folder}/warm.h5ad"), Path(folder) / "warm")
    gene_hashes.cache_clear()  # the genes are the same; hashing them is part of the work
    start, cpu = time.perf_counter(), time.process_time()
    config = ConvertConfig(path=str(path), write_values=has_values)
    manifest = run(config, output, executor=InThreads(num_threads))
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
    size = sum(file.stat().st_size for file in output.iterdir())
    shutil.rmtree(output)
    return {
        "microseconds": 1e6 * seconds / manifest.num_cells,
        "cpu_microseconds": 1e6 * cpu_seconds / manifest.num_cells,
        "bytes": size / manifest.num_cells,
        "megabytes": peak_megabytes(),
    }


@contextmanager
def lying_in_memory(num_cells: int, per_cell: int, path: Path) -> Iterator[None]:
    """Let the stage find counts in memory where it opens a file."""
    from contextlib import nullcontext

    from c2s_rl.data.cell_file import CellFile
    from c2s_rl.data.h5ad_matrix import CsrMatrix
    from c2s_rl.data.text_column import HeldNames
    from c2s_rl.pipeline import convert_plan, convert_source

    bounds, columns, values = counts(num_cells, per_cell)
    shape = (num_cells, NUM_GENES)
    cells = CellFile(
        path=path,
        place="memory",
        cell_ids=HeldNames([f"cell-{i:09d}" for i in range(num_cells)]),
        var_names=tuple(f"GENE{i}" for i in range(NUM_GENES)),
        obs={},
        matrix=CsrMatrix(shape, bounds, columns, values, place="memory"),
    )
    opened = convert_source.open_source
    path.touch()

    def open_memory(config, scratch):
        return nullcontext(cells) if Path(config.path) == path else opened(config, scratch)

    convert_plan.open_source = convert_source.open_source = open_memory
    yield
    convert_plan.open_source = convert_source.open_source = opened


def peer(num_cells: int, per_cell: int, output: Path) -> dict[str, float]:
    """Time the peer's sentences and Arrow."""
    from datasets import Dataset

    from tests.benchmarks.peers import load_cell2sentence

    utils, adata = load_cell2sentence(), log1p_cells(num_cells, per_cell)
    for cells, place in ((adata[:64].copy(), "warm"), (adata, "cells")):
        start = time.perf_counter()
        vocabulary = utils.generate_vocabulary(cells)
        sentences = utils.generate_sentences(cells, vocabulary)
        table = {"cell_name": list(cells.obs_names), "cell_sentence": sentences}
        Dataset.from_dict(table).save_to_disk(output / place)
        seconds = time.perf_counter() - start
    return {"microseconds": 1e6 * seconds / num_cells}


def pure_read(path: Path) -> dict[str, float]:
    """Time reading the three arrays through h5py."""
    start = time.perf_counter()
    with h5py.File(path) as file:
        num_cells = len(file["X/indptr"][:]) - 1
        for name in ("indices", "data"):
            file["X"][name][:]
    return {"microseconds": 1e6 * (time.perf_counter() - start) / num_cells}


def on_ray(path: Path, output: Path, num_workers: int) -> dict[str, float]:
    """Time the stage on Ray, after a first conversion by the same number of workers."""
    from actors.convert_job import OnRay
    from actors.session import RayConfig, ray_session
    from c2s_rl.pipeline.convert import ConvertConfig, run
    from c2s_rl.pipeline.convert_config import FileConfig

    files = [FileConfig(dataset=f"copy-{i}", path=str(path)) for i in range(NUM_COPIES)]
    write_h5ad(output / "warm.h5ad", 64, 50, compression="gzip")
    executor = OnRay(num_workers, 1.0)
    with ray_session(RayConfig(address="local"), num_cpus=2):
        run(ConvertConfig(path=str(output / "warm.h5ad")), output / "warm", executor=executor)
        start = time.perf_counter()
        manifest = run(ConvertConfig(files=files), output / "cells", executor=executor)
        seconds = time.perf_counter() - start
    return {"microseconds": 1e6 * seconds / manifest.num_cells}


def run_side(side: str, folder: Path, num_cells: int, per_cell: int) -> None:
    """Measure one side in this process and print one JSON object."""
    name, _, argument = side.partition(":")
    file = folder / "cells.h5ad"
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        output = Path(scratch) / "cells"
        match name:
            case "memory":
                path = Path(scratch) / "memory.h5ad"
                with lying_in_memory(num_cells, per_cell, path):
                    figures = stage(path, output, 2, has_values=False)
            case "cell2sentence":
                figures = peer(num_cells, per_cell, Path(scratch))
            case "h5py":
                figures = pure_read(file)
            case "stage":
                figures = stage(folder / f"{argument}.h5ad" if argument else file, output, 2)
            case "bounded":
                figures = stage(folder / f"{argument}.h5ad", output, 1)
            case _:
                figures = on_ray(file, Path(scratch), int(argument))
    print(json.dumps(figures))


def results(*, quick: bool) -> list[Result]:
    """Four lines; `quick` takes a few cells, to see that it runs."""
    num_cells, per_cell, rounds = (512, 200, 1) if quick else (32_768, 2_000, 3)
    sizes = (400, 4_000) if quick else (100_000, 1_000_000)
    with tempfile.TemporaryDirectory(prefix="c2s-rl-") as folder:
        place = Path(folder)
        options = ["--folder", folder, "--cells", str(num_cells), "--genes", str(per_cell)]
        write_h5ad(place / "cells.h5ad", num_cells, per_cell, compression="gzip")
        sides = ("memory", "cell2sentence", "stage", "h5py")
        figures = in_turns(MODULE, sides, rounds=rounds, options=options, env=LIMITS)
        lines = [_against_peer(figures, num_cells, per_cell), _against_read(figures, per_cell)]
        workers = [] if quick else _scaling(place, options)
        for size in sizes:
            write_h5ad(place / f"{size}.h5ad", size, 20 if quick else 200, compression=None)
        memory = in_turns(
            MODULE, [f"bounded:{size}" for size in sizes], rounds=1, options=options, env=LIMITS
        )
    small, large = (memory[f"bounded:{size}"]["megabytes"] for size in sizes)
    lines.append(
        Result(
            what="cells to shards, peak memory",
            against=f"a file of {sizes[0]:,} cells",
            workload=f"{sizes[1]:,} cells of {20 if quick else 200} genes, one thread: "
            f"{large:.0f} against {small:.0f} MB",
            ratio=large / small,
            bound=1.2,
            is_upper=True,
        )
    )
    return lines + workers


def _against_peer(figures: dict[str, dict[str, float]], num_cells: int, per_cell: int) -> Result:
    ours, theirs = figures["memory"], figures["cell2sentence"]
    return Result(
        what="counts in memory to shards",
        against="cell2sentence + Arrow",
        workload=f"{num_cells:,} cells of {per_cell:,} genes, no values, 2 threads: "
        f"{ours['microseconds']:.1f} ({ours['cpu_microseconds']:.1f} of CPU) against "
        f"{theirs['microseconds']:.1f} us a cell, {ours['bytes']:.0f} bytes a cell",
        ratio=theirs["microseconds"] / ours["microseconds"],
        bound=30.0,
    )


def _against_read(figures: dict[str, dict[str, float]], per_cell: int) -> Result:
    ours, theirs = figures["stage"], figures["h5py"]
    return Result(
        what="gzip .h5ad to shards, time",
        against="reading it through h5py",
        workload=f"{per_cell:,} genes a cell, 2 threads: {ours['microseconds']:.1f} "
        f"({ours['cpu_microseconds']:.1f} of CPU) against {theirs['microseconds']:.1f} us a cell",
        ratio=ours["microseconds"] / theirs["microseconds"],
        bound=1.15,
        is_upper=True,
    )


def _scaling(folder: Path, options: list[str]) -> list[Result]:
    """Two Ray workers against one, on more cells: start-up of a pipeline is not what is asked."""
    write_h5ad(folder / "cells.h5ad", 160_000, 2_000, compression="gzip")
    figures = in_turns(MODULE, ("ray:1", "ray:2"), rounds=3, options=options, env=LIMITS)
    one, two = (figures[f"ray:{n}"]["microseconds"] for n in (1, 2))
    return [
        Result(
            what="cells to shards, 1 to 2 Ray workers",
            against="twice as fast",
            workload=f"{NUM_COPIES} x 160,000 cells of 2,000 genes, gzip, with values: "
            f"{one:.1f} and {two:.1f} us a cell",
            ratio=one / two / 2,
            bound=0.8,
        )
    ]


def main() -> None:
    from tests.benchmarks.harness import report

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", help="measure one side in this process")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--cells", type=int)
    parser.add_argument("--genes", type=int)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.side:
        run_side(options.side, options.folder, options.cells, options.genes)
    else:
        report(results(quick=options.quick))


if __name__ == "__main__":
    main()
