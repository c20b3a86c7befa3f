"""Kendall's tau of a group of completions on a gene program, against a loop of scipy calls.

    python -m tests.benchmarks.tau [--rounds 5]

The workload is the paper's L1000 run: 32 completions, the 40 apoptosis genes among 978 landmarks.
Every completion names 300 of the 978 genes, so most of the 40 share the last rank, in the target
too. Each side in its own process, one thread:
- `kernel`: `program_tau`, what the Kendall reward calls: from sentences to 32 tau-b.
- `scipy`: `scipy.stats.kendalltau` on each row, from ranks that are given to it.
The kernel's side checks that both agree.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numpy as np

from tests.benchmarks.harness import Figures, Result, in_turns, report

MODULE = "tests.benchmarks.tau"
SIDES = ("kernel", "scipy")
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
NUM_CELLS, NUM_PROGRAM, NUM_VOCABULARY, NUM_NAMED = 32, 40, 978, 300
BOUND = 100.0
MAX_DIFFERENCE = 1e-12


def workload() -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Completions, target and program as vocabulary indices."""
    rng = np.random.default_rng(0)

    def cell() -> np.ndarray:
        return rng.permutation(NUM_VOCABULARY)[:NUM_NAMED].astype(np.int32)

    program = np.sort(rng.permutation(NUM_VOCABULARY)[:NUM_PROGRAM]).astype(np.int32)
    return [cell() for _ in range(NUM_CELLS)], cell(), program


def ranks(genes: np.ndarray, program: np.ndarray) -> np.ndarray:
    """Place in the sentence, from 1; the place after the last for genes that it lacks."""
    place = {gene: k for k, gene in enumerate(genes.tolist(), start=1)}
    return np.array([place.get(gene, len(genes) + 1) for gene in program.tolist()])


def tau_kernel() -> Callable[[], np.ndarray]:
    from c2s_rl.evaluation.rank import program_tau

    cells, target, program = workload()
    return lambda: program_tau(cells, target, program, num_vocabulary=NUM_VOCABULARY, variant="b")


def tau_scipy() -> Callable[[], np.ndarray]:
    from scipy.stats import kendalltau

    cells, target, program = workload()
    ranks_B_N = [ranks(cell, program) for cell in cells]
    target_N = ranks(target, program)
    return lambda: np.array([kendalltau(row, target_N).statistic for row in ranks_B_N])


def measure(compute: Callable[[], np.ndarray], *, repeats: int, calls: int) -> float:
    """Median microseconds a call, warm."""
    compute()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        for _ in range(calls):
            compute()
        seconds.append((time.perf_counter() - start) / calls)
    return 1e6 * statistics.median(seconds)


def measure_side(side: str, *, repeats: int) -> Figures:
    """Microseconds for all completions; the kernel's side also says how far scipy's values are."""
    if side == "scipy":
        return {"us": measure(tau_scipy(), repeats=repeats, calls=5)}
    compute = tau_kernel()
    difference = float(np.abs(compute() - tau_scipy()()).max())
    return {"us": measure(compute, repeats=repeats, calls=500), "difference": difference}


def results(*, quick: bool, rounds: int = 5) -> list[Result]:
    """Both sides in turns."""
    options = ["--repeats", "1"] if quick else []
    sides = in_turns(MODULE, SIDES, rounds=1 if quick else rounds, options=options, env=ONE_THREAD)
    kernel, scipy = sides["kernel"], sides["scipy"]
    if not kernel["difference"] <= MAX_DIFFERENCE:
        raise ValueError(f"both sides must agree to {MAX_DIFFERENCE}, got {kernel['difference']}")
    return [
        Result(
            "Kendall's tau-b, time a group", "scipy loop",
            f"{NUM_CELLS} completions of {NUM_NAMED} of {NUM_VOCABULARY} genes, {NUM_PROGRAM} "
            f"genes, ties: {kernel['us']:.0f} and {scipy['us']:.0f} us, values within "
            f"{kernel['difference']:.0e}, 1 thread",
            scipy["us"] / kernel["us"], BOUND,
        )
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=20, help="timed repeats of a side")
    parser.add_argument("--side", choices=SIDES, help="measure one side in this process")
    options = parser.parse_args()
    if options.side is None:
        report(results(quick=False, rounds=options.rounds))
    else:
        print(json.dumps(measure_side(options.side, repeats=options.repeats)))


if __name__ == "__main__":
    main()
