"""Generated text to genes: c2s-rl against cell2sentence 1.2.0's post-processing, same texts.

    python -m tests.benchmarks.parsing [--quick]

Workload: 1,000 generated sentences of 700 words over a vocabulary of 13,000 symbols; one word in
twenty repeats an earlier one, one in twenty is no gene. Timed: c2s_rl parses the batch
(`parse_cells`); the peer's `post_process_generated_cell_sentences` takes one text after another
and the vocabulary as a list, as its signature asks. The peer is timed on the first 100 texts, and
both figures are a text. A third side is c2s_rl's own definition, `parse_cell` text by text. Not
timed: imports, compilation, the hash table (made once a vocabulary), making the texts. Each side
runs in its own process on one thread; sides take turns; median CPU time. All must find the same
genes and the same number of unknown words in the first 100 texts.
"""

import argparse
import hashlib
import json
import time
from collections.abc import Callable, Sequence

import numpy as np

from tests.benchmarks.convert import ONE_THREAD
from tests.benchmarks.harness import Result, in_turns, report
from tests.benchmarks.peers import load_cell2sentence

MODULE = "tests.benchmarks.parsing"
SIDES = ("c2s_rl", "c2s_rl_one_by_one", "cell2sentence")
NUM_SYMBOLS, NUM_WORDS = 13_000, 700
NUM_TEXTS, NUM_PEER_TEXTS = 1000, 100
REPEATED, UNKNOWN = 0.05, 0.05  # shares of the words
BOUND, BOUND_ONE_BY_ONE = 50.0, 1.0

Genes = tuple[list[str], int]  # known genes of a text, sorted, and its unknown words


def workload(num_texts: int) -> tuple[tuple[str, ...], list[str]]:
    """Symbols and texts."""
    rng = np.random.default_rng(0)
    symbols = tuple(f"GENE{i}" for i in range(NUM_SYMBOLS))
    texts: list[str] = []
    for _ in range(num_texts):
        words = [symbols[g] for g in rng.choice(NUM_SYMBOLS, NUM_WORDS, replace=False)]
        kind = rng.random(NUM_WORDS)
        for place in np.flatnonzero(kind < REPEATED):
            words[place] = words[rng.integers(place + 1)]
        for place in np.flatnonzero(kind > 1 - UNKNOWN):
            words[place] = f"GENX{place}"
        texts.append(" ".join(words))
    return symbols, texts


def prepare(side: str, symbols: tuple[str, ...], texts: list[str]) -> Callable[[], Sequence[Genes]]:
    """Everything that is made once; returns the work to be timed."""
    if side == "cell2sentence":
        peer, vocabulary_list = load_cell2sentence(), list(symbols)

        def work() -> Sequence[Genes]:
            read = [
                peer.post_process_generated_cell_sentences(text, vocabulary_list) for text in texts
            ]
            return [([w for w in words if w != "NOT_A_GENE"], num) for words, num in read]

        return work
    from c2s_rl.cells.sentence import Vocabulary, parse_cell, parse_cells

    vocabulary = Vocabulary(symbols, symbols)
    flags = [False] * len(texts)

    def parse() -> Sequence[Genes]:
        if side == "c2s_rl":
            cells = parse_cells(texts, vocabulary, is_truncated_C=flags)
        else:
            cells = [parse_cell(text, vocabulary, is_truncated=False) for text in texts]
        # As arrays, which is what rewards and metrics take; spelled outside of the clock.
        return [(cell.genes_K, len(cell.unknown)) for cell in cells]

    return parse


def spelled(read: Sequence[Genes], symbols: Sequence[str]) -> list[Genes]:
    return [
        (sorted(g if isinstance(g, str) else symbols[g] for g in genes), num) for genes, num in read
    ]


def run_side(side: str, num_texts: int, num_checked: int) -> None:
    """Time one side in this process and print one JSON object."""
    symbols, texts = workload(num_texts)
    if side == "cell2sentence":
        texts = texts[:num_checked]
    work = prepare(side, symbols, texts)
    found = json.dumps(spelled(work()[:num_checked], symbols))
    start = time.process_time()
    work()
    seconds = time.process_time() - start
    digest = int(hashlib.sha256(found.encode()).hexdigest()[:12], 16)
    print(json.dumps({"microseconds": 1e6 * seconds / len(texts), "digest": digest}))


def results(*, quick: bool) -> list[Result]:
    """Two lines: against the package, and against our own definition in Python."""
    num_texts, num_checked, rounds = (20, 3, 1) if quick else (NUM_TEXTS, NUM_PEER_TEXTS, 3)
    options = ["--texts", str(num_texts), "--checked", str(num_checked)]
    figures = in_turns(MODULE, SIDES, rounds=rounds, options=options, env=ONE_THREAD)
    ours = figures["c2s_rl"]
    lines: list[Result] = []
    for side, against, bound in (
        ("cell2sentence", "cell2sentence's post-processing", BOUND),
        ("c2s_rl_one_by_one", "parse_cell in a loop", BOUND_ONE_BY_ONE),
    ):
        theirs = figures[side]
        if ours["digest"] != theirs["digest"]:
            raise ValueError(f"all sides must find the same genes, got others from {side}")
        lines.append(
            Result(
                what="generated text to genes, CPU time",
                against=against,
                workload=f"{num_texts} texts of {NUM_WORDS} words, {NUM_SYMBOLS} symbols, "
                f"one thread: {ours['microseconds']:.0f} against "
                f"{theirs['microseconds']:.0f} us a text",
                ratio=theirs["microseconds"] / ours["microseconds"],
                bound=bound,
            )
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", choices=SIDES, help="time one side in this process")
    parser.add_argument("--texts", type=int, default=NUM_TEXTS)
    parser.add_argument("--checked", type=int, default=NUM_PEER_TEXTS)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.side:
        run_side(options.side, options.texts, options.checked)
    else:
        report(results(quick=options.quick))


if __name__ == "__main__":
    main()
