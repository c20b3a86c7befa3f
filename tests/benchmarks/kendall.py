"""Kendall's tau of a group of completions: c2s-rl against a loop over scipy.stats.kendalltau.

    python -m tests.benchmarks.kendall [--quick]

Workload: 32 completions of one prompt, each a permutation of 978 landmarks cut to 900 genes, a
program of 40 genes and one target: 32 tau-b with ties at the shared last rank. Timed on both sides:
from gene lists to taus. The peer's ranks come from a dictionary of positions, as one writes it; a
second figure times scipy alone on ranks that are ready. Not timed: imports, compilation, making
the completions. Each side runs in its own process on one thread; sides take turns; median CPU
time. Both must give the same taus to 1e-12.
"""

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
from scipy.stats import kendalltau

from tests.benchmarks.convert import ONE_THREAD
from tests.benchmarks.harness import Result, in_turns, report

MODULE = "tests.benchmarks.kendall"
SIDES = ("c2s_rl", "scipy", "scipy_on_ranks")
NUM_COMPLETIONS, NUM_PROGRAM, NUM_VOCABULARY, NUM_WRITTEN = 32, 40, 978, 900
BOUND = 100.0


def workload() -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Completions, target and program."""
    rng = np.random.default_rng(0)
    orders = [rng.permutation(NUM_VOCABULARY).astype(np.int32) for _ in range(NUM_COMPLETIONS + 1)]
    program = np.sort(rng.choice(NUM_VOCABULARY, NUM_PROGRAM, replace=False)).astype(np.int32)
    return [order[:NUM_WRITTEN] for order in orders[1:]], orders[0], program


def ranks_of(cell: np.ndarray, program: np.ndarray) -> list[int]:
    positions = {gene: rank for rank, gene in enumerate(cell.tolist(), start=1)}
    return [positions.get(gene, len(cell) + 1) for gene in program.tolist()]


def prepare(side: str) -> Callable[[], list[float]]:
    """Everything that is made once; returns the work to be timed."""
    cells, target, program = workload()
    if side == "c2s_rl":
        from c2s_rl.evaluation.rank import program_tau

        return lambda: program_tau(
            cells, target, program, num_vocabulary=NUM_VOCABULARY, variant="b"
        ).tolist()
    if side == "scipy_on_ranks":
        target_ranks = np.array(ranks_of(target, program))
        ranks = [np.array(ranks_of(cell, program)) for cell in cells]
        return lambda: [float(kendalltau(r, target_ranks).statistic) for r in ranks]

    def loop() -> list[float]:
        target_ranks = ranks_of(target, program)
        return [
            float(kendalltau(ranks_of(cell, program), target_ranks).statistic) for cell in cells
        ]

    return loop


def run_side(side: str, repeats: int) -> None:
    """Time one side in this process and print one JSON object."""
    work = prepare(side)
    taus = work()
    start = time.process_time()
    for _ in range(repeats):
        work()
    seconds = (time.process_time() - start) / repeats
    digest = sum((i + 1) * tau for i, tau in enumerate(taus))
    print(json.dumps({"microseconds": 1e6 * seconds, "digest": digest}))


def results(*, quick: bool) -> list[Result]:
    """Two lines: against the loop as one writes it, and against scipy alone."""
    repeats, rounds = (1, 1) if quick else (200, 3)
    figures = in_turns(
        MODULE, SIDES, rounds=rounds, options=["--repeats", str(repeats)], env=ONE_THREAD
    )
    ours = figures["c2s_rl"]
    lines: list[Result] = []
    for side, against in (
        ("scipy", "a scipy.stats.kendalltau loop"),
        ("scipy_on_ranks", "scipy.stats.kendalltau on ranks that are ready"),
    ):
        theirs = figures[side]
        if abs(ours["digest"] - theirs["digest"]) > 1e-12 * NUM_COMPLETIONS**2:
            raise ValueError(
                f"both sides must give the same taus, got {ours['digest']} and {theirs['digest']}"
            )
        lines.append(
            Result(
                what="Kendall's tau of a group, CPU time",
                against=against,
                workload=f"{NUM_COMPLETIONS} completions of {NUM_WRITTEN} genes x {NUM_PROGRAM} "
                f"program genes, one thread: {ours['microseconds']:.0f} against "
                f"{theirs['microseconds']:.0f} us a group",
                ratio=theirs["microseconds"] / ours["microseconds"],
                bound=BOUND,
            )
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", choices=SIDES, help="time one side in this process")
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.side:
        run_side(options.side, options.repeats)
    else:
        report(results(quick=options.quick))


if __name__ == "__main__":
    main()
