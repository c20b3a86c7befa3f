"""Embedding cells with scGPT: c2s-rl against the scgpt package's own paths, per cell.

    python -m tests.benchmarks.scgpt [--quick] [--rounds 3]

Workload: cells of 100 to 200 ranked genes out of 13,215, and two models with random weights: of the
shape that `train-embedder` makes by default, and of the published whole-human model's shape. Timed,
on the clock, in each side from cells to embeddings in memory, after one call that warms up:

    c2s_rl     rankings -> `ScGPTEmbedder.embed`
    bfloat16   the same with the option dtype: bfloat16
    tasks      AnnData -> `scgpt.tasks.cell_emb.get_batch_cell_embeddings` (what `embed_data` calls
               once a model is loaded; loads with worker processes, 64 cells a batch)
    tokenizer  matrix -> `scgpt.preprocess.binning`, `tokenize_and_pad_batch`, `_encode`, as the
               package's fine-tuning evaluates; in the process itself, 64 cells a batch

All sides use the same two threads, weights and genes, and must come to the same embeddings.
`cached` is c2s_rl asked for the same real cells a second time.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from c2s_rl.cells.rank_model import RankForm, RankModel
from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.models.cell_embedder import CellEmbedderConfig, embed_once, load_cell_embedder
from c2s_rl.models.encoding_cache import EncodingCache
from c2s_rl.models.scgpt_files import ScGPTArgs, build_model, write_folder
from tests.benchmarks.harness import Figures, Result, in_turns, report
from tests.benchmarks.peers import load_scgpt

MODULE = "tests.benchmarks.scgpt"
SIDES = ("c2s_rl", "tasks", "tokenizer")
NUM_VOCABULARY = 13_215
PACKAGE_BATCH = 64  # its default
BOUND = 1.5
TWO_THREADS = {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}
RANK_MODEL = RankModel(RankForm.LOG_RANK, slope=-0.7149, intercept=2.6759, r2=0.87)


@dataclass(frozen=True)
class Size:
    """A model and how many cells it is given."""

    name: str
    cells: int
    embsize: int
    nheads: int
    d_hid: int
    nlayers: int
    max_genes: int = 200

    def __str__(self) -> str:
        return (
            f"{self.name} model, {self.nlayers} layers of {self.embsize}; {self.cells} cells of "
            f"{self.max_genes // 2} to {self.max_genes} genes"
        )


SIZES = {
    "trained": Size("trained", 1024, embsize=64, nheads=4, d_hid=128, nlayers=2),
    "published": Size("published", 128, embsize=512, nheads=8, d_hid=512, nlayers=12),
    "tiny": Size("tiny", 16, embsize=16, nheads=2, d_hid=16, nlayers=2, max_genes=12),
}


@dataclass(frozen=True, eq=False)
class Inputs:
    """What every side is given."""

    folder: Path
    vocabulary: Vocabulary
    cells: list[np.ndarray]
    """Rankings."""
    matrix_C_N: np.ndarray
    """The same cells as expression by rank."""


def make_inputs(size: Size, folder: Path) -> Inputs:
    symbols = tuple(f"G{i}" for i in range(NUM_VOCABULARY))
    vocabulary = Vocabulary(symbols, symbols)
    rng = np.random.default_rng(0)
    lengths = rng.integers(size.max_genes // 2, size.max_genes + 1, size=size.cells)
    cells = [rng.permutation(NUM_VOCABULARY)[:n].astype(np.int32) for n in lengths]
    matrix_C_N = np.zeros((size.cells, NUM_VOCABULARY), dtype=np.float32)
    for row, genes in zip(matrix_C_N, cells, strict=True):
        row[genes] = RANK_MODEL.expression(len(genes))
    args = ScGPTArgs(
        embsize=size.embsize, nheads=size.nheads, d_hid=size.d_hid, nlayers=size.nlayers
    )
    tokens = {name: row for row, name in enumerate([*symbols, "<pad>", "<cls>", "<eoc>"])}
    torch.manual_seed(0)
    write_folder(folder, args, tokens, build_model(args, tokens, has_mvc=True), {})
    return Inputs(folder, vocabulary, cells, matrix_C_N)


def ours(inputs: Inputs, dtype: str = "float32") -> Callable[[], np.ndarray]:
    config = CellEmbedderConfig(kind="scgpt", folder=inputs.folder, dtype=dtype)
    embedder = load_cell_embedder(config, inputs.vocabulary, RANK_MODEL)
    return lambda: embedder.embed(inputs.cells)


def cached(inputs: Inputs) -> Callable[[], np.ndarray]:
    config = CellEmbedderConfig(kind="scgpt", folder=inputs.folder)
    embedder = load_cell_embedder(config, inputs.vocabulary, RANK_MODEL)
    cache = EncodingCache(folder=inputs.folder / "cache")
    return lambda: embed_once(embedder, inputs.cells, cache)


def package_parts(inputs: Inputs) -> tuple[torch.nn.Module, object, dict[str, object]]:
    """Load model and vocabulary with the package's own functions, as its `embed_data` does."""
    scgpt = load_scgpt()
    vocab = scgpt.tokenizer.GeneVocab.from_file(inputs.folder / "vocab.json")
    configs = json.loads((inputs.folder / "args.json").read_text())
    model = scgpt.model.TransformerModel(
        ntoken=len(vocab), d_model=configs["embsize"], nhead=configs["nheads"],
        d_hid=configs["d_hid"], nlayers=configs["nlayers"], vocab=vocab, do_mvc=True,
        dropout=configs["dropout"], pad_token=configs["pad_token"],
        pad_value=configs["pad_value"], use_fast_transformer=False,
    )  # fmt: skip
    weights = torch.load(inputs.folder / "best_model.pt", weights_only=True)
    scgpt.utils.load_pretrained(model, weights, verbose=False)
    return model.eval(), vocab, configs


def tasks(inputs: Inputs) -> Callable[[], np.ndarray]:
    import anndata

    cell_emb = load_scgpt().tasks.cell_emb
    model, vocab, configs = package_parts(inputs)
    cell_emb.tqdm = lambda batches, **_: batches  # no bar on the clock
    adata = anndata.AnnData(inputs.matrix_C_N)
    gene_ids = np.array(vocab(list(inputs.vocabulary.symbols)), dtype=int)
    return lambda: cell_emb.get_batch_cell_embeddings(
        adata, model=model, vocab=vocab, max_length=1200, batch_size=PACKAGE_BATCH,
        model_configs=configs, gene_ids=gene_ids,
    )  # fmt: skip


def tokenizer(inputs: Inputs) -> Callable[[], np.ndarray]:
    scgpt = load_scgpt()
    model, vocab, configs = package_parts(inputs)
    gene_ids = np.array(vocab(list(inputs.vocabulary.symbols)), dtype=int)
    pad = {"pad_token": configs["pad_token"], "pad_value": configs["pad_value"]}

    def work() -> np.ndarray:
        bins = np.stack([scgpt.preprocess.binning(row, 51) for row in inputs.matrix_C_N])
        batch = scgpt.tokenizer.tokenize_and_pad_batch(bins, gene_ids, 1200, vocab, **pad)
        batch["values"][:, 0] = pad["pad_value"]  # as its cell_emb gives <cls>
        embedded = []
        with torch.no_grad():
            for start in range(0, len(bins), PACKAGE_BATCH):
                src = batch["genes"][start : start + PACKAGE_BATCH]
                values = batch["values"][start : start + PACKAGE_BATCH]
                mask = src.eq(vocab[configs["pad_token"]])
                embedded.append(model._encode(src, values, mask)[:, 0].numpy())
        whole = np.concatenate(embedded)
        return whole / np.linalg.norm(whole, axis=1, keepdims=True)

    return work


def measure(side: str, size: Size) -> Figures:
    """Time one side in this process."""
    prepare = {
        "c2s_rl": ours, "bfloat16": partial(ours, dtype="bfloat16"), "cached": cached,
        "tasks": tasks, "tokenizer": tokenizer,
    }[side]  # fmt: skip
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the GPU that the package expects
        work = prepare(make_inputs(size, Path(folder)))
        work()
        start = time.perf_counter()
        embedded = work()
        seconds = time.perf_counter() - start
    probe = np.random.default_rng(1).standard_normal(embedded.shape[1])
    return {
        "milliseconds": 1e3 * seconds / len(embedded),
        "mean": float((embedded @ probe).mean()),
        "spread": float((embedded @ probe).std()),
    }


def compare(size: Size, sides: Sequence[str], rounds: int) -> dict[str, Figures]:
    """Measure all sides, which must agree; in this process for 0 rounds."""
    if rounds == 0:
        figures = {side: measure(side, size) for side in sides}
    else:
        options = ["--size", size.name]
        figures = in_turns(MODULE, sides, rounds=rounds, options=options, env=TWO_THREADS)
    means = [figures[side]["mean"] for side in sides]
    # A value on a cut falls on either side of it in the package, by its last bit.
    if max(means) - min(means) > 0.05 * figures[sides[0]]["spread"]:
        raise ValueError(f"all sides must come to the same embeddings, got means {means}")
    return figures


def results(*, quick: bool, rounds: int = 3) -> list[Result]:
    """Time a cell against both of the package's paths, and cached against embedded anew."""
    lines: list[Result] = []
    if quick:
        rounds = 0
    for size in [SIZES["tiny"]] if quick else [SIZES["trained"], SIZES["published"]]:
        figures = compare(size, [*SIDES, "bfloat16", "cached"], rounds)
        cost = {side: figures[side]["milliseconds"] for side in figures}
        for peer, name in (("tasks", "scgpt.tasks.cell_emb"), ("tokenizer", "its tokenizer path")):
            for side in ("c2s_rl", "bfloat16"):
                workload = f"{size}: {cost[side]:.3g} against {cost[peer]:.3g} ms a cell"
                dtype = "" if side == "c2s_rl" else ", bfloat16"
                what = f"scGPT embedding, {size.name}{dtype}"
                lines.append(Result(what, name, workload, cost[peer] / cost[side], BOUND))
        again = cost["c2s_rl"] / cost["cached"]
        lines.append(
            Result(f"real cells again, {size.name}", "embedding them", str(size), again, 10.0)
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--side", choices=(*SIDES, "bfloat16", "cached"), help="time one side in this process"
    )
    parser.add_argument("--size", choices=tuple(SIZES), default="trained")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="tiny shapes: only that it runs")
    options = parser.parse_args()
    if options.side:
        print(json.dumps(measure(options.side, SIZES[options.size])))
    else:
        report(results(quick=options.quick, rounds=options.rounds))


if __name__ == "__main__":
    main()
