"""Cells to sentences: c2s-rl against cell2sentence 1.2.0, per core, same cells, same run.

    python -m tests.benchmarks.convert [--data FILE.h5ad] [--quick]

Workload: log1p(CP10k) of the Kang PBMC (2,000 cells x 13,215 genes, 697 expressed genes a cell), or
of as many drawn cells where those are not at hand (700 of 20,000 genes, counts as in
`convert_shards.py`), as CSR in memory -> a list of Python strings, all expressed genes of each
cell, ties broken at random. Timed: c2s_rl hashes the cell ids, ranks and spells, in the chunks of
its stage; the peer's `generate_sentences` ranks and joins. Not timed on either side: reading the
file, importing, making the vocabulary, and one earlier call on all cells (compilation, caches).
Each side runs in its own process on one thread; the sides take turns, and the ratio is of the
median CPU times, which other work on the machine disturbs less than it does the clock. Both must
write the same genes for each cell.
"""

import argparse
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import anndata
import numpy as np
from scipy import sparse

from c2s_rl.errors import MissingFileError
from tests.benchmarks.convert_shards import log1p_cells
from tests.benchmarks.harness import PROJECT, Result, in_turns, report
from tests.benchmarks.peers import load_cell2sentence

MODULE = "tests.benchmarks.convert"
KANG = Path("kang") / "kang_ifnb_2000x13215.h5ad"
BOUND = 10.0
SIDES = ("c2s_rl", "cell2sentence")
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
}


@contextmanager
def cells_at_hand(data: Path | None) -> Iterator[tuple[Path, str]]:
    """The file that is named, else the Kang cells, else drawn ones; and what to call them.

    Raises:
        MissingFileError: If the file that is named is not there.
    """
    if data is not None:
        if not data.is_file():
            raise MissingFileError(f"--data must be a file, got {data}")
        yield data, f"cells of {data.name}"
        return
    kang = Path(os.environ.get("C2S_RL_DATA", PROJECT.parent / "shared" / "data")) / KANG
    if kang.is_file():
        yield kang, "Kang cells"
        return
    with tempfile.TemporaryDirectory(prefix="c2s-rl-") as folder:
        drawn = Path(folder) / "drawn.h5ad"
        log1p_cells(2_000, 700).write_h5ad(drawn)
        yield drawn, "drawn cells"


def prepare_c2s_rl(adata: anndata.AnnData) -> Callable[[], Sequence[str]]:
    """Everything that is made once a data set; returns the work to be timed."""
    from c2s_rl.cells.sentence import rank_rows, stable_hash
    from c2s_rl.cells.spelling import SentenceWriter
    from c2s_rl.cells.vocabulary import Duplicates, GeneCase, build_vocabulary
    from c2s_rl.pipeline.convert_source import READ_ROWS

    columns = build_vocabulary(
        list(adata.var_names), gene_case=GeneCase.UPPER, duplicates=Duplicates.ERROR
    )
    symbols = columns.vocabulary.symbols
    gene_hashes = np.array([stable_hash(symbol, 42) for symbol in symbols], dtype=np.uint64)
    writer = SentenceWriter(columns.vocabulary)
    cell_ids = list(adata.obs_names)

    def work() -> Sequence[str]:
        sentences: list[str] = []
        for start in range(0, len(cell_ids), READ_ROWS):
            rows = adata.X[start : start + READ_ROWS]
            ids = cell_ids[start : start + READ_ROWS]
            ranked = rank_rows(
                rows.indptr.astype(np.int64),
                rows.indices,
                rows.data,
                cell_hashes=np.array([stable_hash(cell, 42) for cell in ids], dtype=np.uint64),
                gene_hashes=gene_hashes,
                top_k=None,
            )
            sentences += writer.write(ranked.indptr, ranked.genes)
        return sentences

    return work


def prepare_cell2sentence(adata: anndata.AnnData) -> Callable[[], Sequence[str]]:
    """The peer's own function on its own vocabulary."""
    peer = load_cell2sentence()
    vocabulary = peer.generate_vocabulary(adata)
    return lambda: peer.generate_sentences(adata, vocabulary)


def run_side(side: str, data: Path, num_cells: int) -> None:
    """Time one side in this process and print one JSON object."""
    adata = anndata.read_h5ad(data)[:num_cells].copy()
    adata.X = sparse.csr_matrix(adata.X)
    work = prepare_c2s_rl(adata) if side == "c2s_rl" else prepare_cell2sentence(adata)
    sentences = work()
    start = time.process_time()
    work()
    seconds = time.process_time() - start
    genes = "\n".join(" ".join(sorted(sentence.split(" "))) for sentence in sentences)
    print(
        json.dumps(
            {
                "microseconds": 1e6 * seconds / len(sentences),
                "cells": len(sentences),
                "genes": sum(sentence.count(" ") + 1 for sentence in sentences),
                # 48 bits: what a float carries unrounded
                "digest": int(hashlib.sha256(genes.encode()).hexdigest()[:12], 16),
            }
        )
    )


def compare(data: Path, num_cells: int, *, what: str, rounds: int) -> Result:
    """Run both sides in turns.

    Raises:
        ValueError: If the sides do not write the same genes.
    """
    options = ["--data", str(data), "--cells", str(num_cells)]
    figures = in_turns(MODULE, SIDES, rounds=rounds, options=options, env=ONE_THREAD)
    ours, theirs = (figures[side] for side in SIDES)
    if ours["digest"] != theirs["digest"]:
        raise ValueError(f"both sides must write the same genes of each cell, got others in {data}")
    return Result(
        what="cells to sentences, CPU time",
        against="cell2sentence",
        workload=f"{ours['cells']:.0f} {what}, {ours['genes'] / ours['cells']:.0f} genes a cell, "
        f"one thread: {ours['microseconds']:.1f} against {theirs['microseconds']:.1f} us a cell",
        ratio=theirs["microseconds"] / ours["microseconds"],
        bound=BOUND,
    )


def results(*, quick: bool) -> list[Result]:
    """One line; `quick` takes a few cells, to see that it runs."""
    with cells_at_hand(None) as (data, what):
        return [compare(data, 20 if quick else 2000, what=what, rounds=1 if quick else 3)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", choices=SIDES, help="time one side in this process")
    parser.add_argument("--data", type=Path, help="other cells: log1p(CP10k) in an .h5ad file")
    parser.add_argument("--cells", type=int, default=2000)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.side:
        run_side(options.side, options.data, options.cells)
    else:
        cells, rounds = (20, 1) if options.quick else (options.cells, 3)
        with cells_at_hand(options.data) as (data, what):
            report([compare(data, cells, what=what, rounds=rounds)])


if __name__ == "__main__":
    main()
