"""The rank model's fit and its inverse: c2s-rl against cell2sentence 1.2.0, same cells.

    python -m tests.benchmarks.rank_model [--data FILE.h5ad] [--quick]

Workload: 10,000 cells, the Kang PBMC five times over (13,215 genes, 697 expressed a cell), or drawn
cells where they are not at hand (see `convert.py`).

fit      log1p(CP10k) as CSR in memory -> slope and intercept of expression over log10(rank).
         c2s_rl ranks with its tie-break and sums by rank; the peer's
         `benchmark_expression_conversion` makes the rows dense, ranks them
         (`sort_transcript_counts`), makes a table (`get_benchmark_df`) and fits scikit-learn's
         LinearRegression. Its pictures and metrics are left out, and it is given 1,024 cells at a
         time, its own sample size, because all at once take 3 GB. It fits ranks below 1,000 only.
inverse  cell sentences as text -> expression. c2s_rl reads them in chunks of 256 and makes sparse
         rows; the peer's `reconstruct_expression_from_cell_sentence` makes one dense row a text.

Not timed: reading the file, imports, compilation, making the sentences. Each side runs in its own
process on one thread; sides take turns; median CPU time. Both must give the same line (1 % of the
slope, for the ranks the peer leaves out) and the same expression (1e-3 of its sum, which is not
0 below the line for the peer).
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
from scipy import sparse

from c2s_rl.cells.inverse import RepeatRule, sentences_to_expression
from c2s_rl.cells.rank import rank_rows, stable_hash
from c2s_rl.cells.rank_model import RankForm, RankModel, fit_rank_sums, rank_sums
from c2s_rl.cells.reading import TEXTS_AT_ONCE, SentenceReader
from c2s_rl.cells.spelling import SentenceWriter
from c2s_rl.cells.vocabulary import Vocabulary
from tests.benchmarks.convert import ONE_THREAD, cells_at_hand
from tests.benchmarks.harness import Figures, Result, in_turns, report
from tests.benchmarks.peers import load_cell2sentence

MODULE = "tests.benchmarks.rank_model"
SIDES = ("c2s_rl", "cell2sentence")
NUM_CELLS = 10_000
PEER_CELLS = 1024  # the package's default sample_size
CHUNK_CELLS = 512  # as the conversion ranks
BOUND = 20.0


class Workload:
    """The cells, and their sentences."""

    def __init__(self, data: Path, num_cells: int) -> None:
        adata = anndata.read_h5ad(data)
        rows = np.resize(np.arange(adata.n_obs), num_cells)
        self.matrix = sparse.csr_matrix(adata.X)[rows]
        symbols = tuple(name.upper() for name in adata.var_names)
        self.vocabulary = Vocabulary(symbols, symbols)
        self.cell_ids = [f"{adata.obs_names[row]}-{i}" for i, row in enumerate(rows)]
        self.gene_hashes = np.array([stable_hash(s, 42) for s in symbols], dtype=np.uint64)

    def ranked(self, start: int):
        rows = self.matrix[start : start + CHUNK_CELLS]
        ids = self.cell_ids[start : start + CHUNK_CELLS]
        return rank_rows(
            rows.indptr.astype(np.int64),
            rows.indices,
            rows.data,
            cell_hashes=np.array([stable_hash(cell, 42) for cell in ids], dtype=np.uint64),
            gene_hashes=self.gene_hashes,
            top_k=None,
        )

    def fit(self) -> RankModel:
        """Rank, sum and fit, in the chunks of the conversion."""
        chunks = [self.ranked(start) for start in range(0, len(self.cell_ids), CHUNK_CELLS)]
        sums = [rank_sums(ranked.indptr, ranked.values) for ranked in chunks]
        total = sums[0]
        for one in sums[1:]:
            total += one
        return fit_rank_sums(total, form=RankForm.LOG_RANK)

    def sentences(self) -> list[str]:
        writer = SentenceWriter(self.vocabulary)
        texts: list[str] = []
        for start in range(0, len(self.cell_ids), CHUNK_CELLS):
            ranked = self.ranked(start)
            texts += writer.write(ranked.indptr, ranked.genes)
        return texts


def peer_fit(matrix: sparse.csr_matrix) -> tuple[float, float]:
    """The numbers of `benchmark_expression_conversion`, by the functions that it calls."""
    import pandas as pd
    from sklearn.linear_model import LinearRegression

    peer = load_cell2sentence()
    parts = []
    for start in range(0, matrix.shape[0], PEER_CELLS):
        dense = matrix[start : start + PEER_CELLS].copy().todense()
        parts.append(peer.get_benchmark_df(dense, peer.sort_transcript_counts(dense)))
    table = pd.concat(parts)
    x = table["log_rank_normalized_expression"]
    is_fitted = x < peer.BASE10_THRESHOLD
    line = LinearRegression().fit(
        x[is_fitted].to_numpy().reshape(-1, 1), table["normalized_expression"][is_fitted]
    )
    return line.coef_.item(), line.intercept_.item()


def inverse_of(
    side: str, cells: Workload, texts: list[str], line: RankModel
) -> Callable[[], float]:
    """Return the work: all texts to expression, and its sum so that nothing is left undone."""
    if side == "c2s_rl":
        reader = SentenceReader(cells.vocabulary)

        def ours() -> float:
            total = 0.0
            for start in range(0, len(texts), TEXTS_AT_ONCE):
                part = texts[start : start + TEXTS_AT_ONCE]
                words = reader.read(part, [False] * len(part))
                rows = sentences_to_expression(
                    words.indptr,
                    words.genes,
                    line,
                    num_genes=len(cells.vocabulary),
                    repeats=RepeatRule.MEAN,
                )
                total += float(rows.values.sum(dtype=np.float64))
            return total

        return ours
    peer, symbols = load_cell2sentence(), list(cells.vocabulary.symbols)

    def theirs() -> float:
        rows = (
            peer.reconstruct_expression_from_cell_sentence(
                text, " ", symbols, line.slope, line.intercept
            )
            for text in texts
        )
        return sum(float(row.sum(dtype=np.float64)) for row in rows)

    return theirs


def run_side(side: str, data: Path, num_cells: int) -> None:
    """Time one side in this process and print one JSON object."""
    cells = Workload(data, num_cells)
    line = cells.fit()  # compiles the kernels, and gives both sides the same inverse
    texts = cells.sentences()
    if side == "cell2sentence":
        peer_fit(cells.matrix[:10])
    start = time.process_time()
    if side == "c2s_rl":
        model = cells.fit()
        slope, intercept = model.slope, model.intercept
    else:
        slope, intercept = peer_fit(cells.matrix)
    fit_seconds = time.process_time() - start
    inverse_of(side, cells, texts[:10], line)()
    invert = inverse_of(side, cells, texts, line)
    start = time.process_time()
    total = invert()
    inverse_seconds = time.process_time() - start
    figures = {
        "fit_us": 1e6 * fit_seconds / num_cells,
        "inverse_us": 1e6 * inverse_seconds / num_cells,
        "slope": slope,
        "intercept": intercept,
        "total": total,
    }
    print(json.dumps(figures))


def check(ours: Figures, theirs: Figures) -> None:
    """Both sides must give the same line and the same expression."""
    for name, tolerance in (("slope", 0.01), ("intercept", 0.01), ("total", 1e-3)):
        if abs(ours[name] - theirs[name]) > tolerance * abs(theirs[name]):
            raise ValueError(
                f"both sides must give the same {name}, got {ours[name]} and {theirs[name]}"
            )


def compare(data: Path, num_cells: int, *, what: str, rounds: int) -> list[Result]:
    """Run both sides in turns.

    Raises:
        ValueError: If the sides do not agree.
    """
    options = ["--data", str(data), "--cells", str(num_cells)]
    figures = in_turns(MODULE, SIDES, rounds=rounds, options=options, env=ONE_THREAD)
    ours, theirs = (figures[side] for side in SIDES)
    check(ours, theirs)
    return [
        Result(
            what=f"rank model, {side}, CPU time",
            against="cell2sentence",
            workload=f"{num_cells} {what}, one thread: {ours[key]:.0f} against "
            f"{theirs[key]:.0f} us a cell",
            ratio=theirs[key] / ours[key],
            bound=BOUND,
        )
        for side, key in (("fit", "fit_us"), ("inverse", "inverse_us"))
    ]


def results(*, quick: bool) -> list[Result]:
    """Two lines; `quick` takes a few cells, to see that it runs."""
    with cells_at_hand(None) as (data, what):
        cells, rounds = (200, 1) if quick else (NUM_CELLS, 3)
        return compare(data, cells, what=what, rounds=rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", choices=SIDES, help="time one side in this process")
    parser.add_argument("--data", type=Path, help="other cells: log1p(CP10k) in an .h5ad file")
    parser.add_argument("--cells", type=int, default=NUM_CELLS)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.side:
        run_side(options.side, options.data, options.cells)
    else:
        cells, rounds = (200, 1) if options.quick else (options.cells, 3)
        with cells_at_hand(options.data) as (data, what):
            report(compare(data, cells, what=what, rounds=rounds))


if __name__ == "__main__":
    main()
