"""Stage train-embedder: training cells in, a small scGPT of their own out, in the published form.

    c2s-rl train-embedder --config FILE

A reward in scGPT's embedding space needs an scGPT that knows the cells. Where no published one is
at hand this stage trains one in minutes, on the cells of training prompts alone, which it is given
exactly as the reward gives cells: the sentence's genes, in bins by rank. The folder is whole or not
there; an interrupted run starts again. Left out: fine-tuning a published model.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from c2s_rl.cells.rank import stable_hash
from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.checkpoint import MANIFEST, atomic_folder, require_replaceable, sha256_of
from c2s_rl.data.prompt_set import read_prompts
from c2s_rl.data.shards import read_cells, read_manifest
from c2s_rl.errors import DataError
from c2s_rl.evaluation.real_cells import gather_real_cells
from c2s_rl.models.scgpt_config import EmbedderConfig
from c2s_rl.runlog import RunLog
from c2s_rl.types import IntArray

if TYPE_CHECKING:
    from c2s_rl.models.scgpt_files import ScGPTArgs
    from c2s_rl.models.scgpt_training import TrainedScGPT

__all__ = ["EmbedderConfig", "EmbedderManifest", "run"]

SPECIAL_TOKENS = ("<pad>", "<cls>", "<eoc>")  # the ones of published vocabularies

log = logging.getLogger(__name__)


class EmbedderManifest(BaseModel):
    """What an scGPT folder was trained on and how well it guesses; its manifest.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_cells: int = Field(description="Cells trained on, all of training prompts.")
    num_held_out: int = Field(description="Further cells of training prompts, for the loss.")
    num_genes: int = Field(description="Longest cell in genes: the corpus' sentence length.")
    num_tokens: int = Field(description="Genes that a training cell writes, and special tokens.")
    held_out_mse: float = Field(description="Error of masked bins on held-out cells, bins^2.")
    held_out_mse_from_cls: float = Field(description="The same, guessed from the embedding.")
    mean_bin_mse: float = Field(description="The same, guessing the mean bin.")
    gene_mean_mse: float = Field(description="The same, guessing the gene's mean bin.")
    cells_manifest_sha256: str = Field(description="SHA-256 of the cells' manifest.json.")
    corpus_manifest_sha256: str = Field(description="SHA-256 of the corpus' manifest.json.")
    config: EmbedderConfig = Field(description="The stage's config, resolved.")


def run(
    config: EmbedderConfig,
    cells: Path,
    corpus: Path,
    output: Path,
    *,
    on_step: Callable[[int, Mapping[str, float]], None] = lambda _step, _figures: None,
) -> EmbedderManifest:
    """Train an scGPT and write its folder.

    Args:
        config: Which model, and how long.
        cells: What the stage `convert` wrote.
        corpus: What the stage `corpus` wrote.
        output: Folder to write; put in place as a whole at the end, an older one is replaced.
        on_step: Called with the number of each step, from 1, and its figures.

    Returns:
        The manifest as written.

    Raises:
        MissingFileError: If cells, corpus or the package scgpt are not there.
        DataError: If the training prompts have too few cells.
        StageError: If `output` holds something that no stage wrote.
    """
    from c2s_rl.models.scgpt_files import write_folder

    require_replaceable(output)
    sample = _read_sample(config, cells, corpus)
    with atomic_folder(output) as folder:
        with RunLog(folder, start_step=1) as runlog:

            def report(step: int, figures: Mapping[str, float]) -> None:
                runlog.log(step, figures)
                on_step(step, figures)

            args, trained = _train(config, sample, report)
        write_folder(folder, args, sample.token_ids, trained.model, extra_args={"MVC": True})
        manifest = EmbedderManifest(
            num_cells=len(sample.train),
            num_held_out=len(sample.held_out),
            num_genes=sample.num_genes,
            num_tokens=len(sample.token_ids),
            held_out_mse=trained.held_out.model,
            held_out_mse_from_cls=trained.held_out.from_cls,
            mean_bin_mse=trained.held_out.mean_bin,
            gene_mean_mse=trained.held_out.gene_mean,
            cells_manifest_sha256=sha256_of(cells / MANIFEST),
            corpus_manifest_sha256=sha256_of(corpus / MANIFEST),
            config=config,
        )
        (folder / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
    log.info(
        "scGPT of %d cells: held-out bins are missed by %.1f, by %.1f where the mean is guessed",
        manifest.num_cells,
        manifest.held_out_mse**0.5,
        manifest.mean_bin_mse**0.5,
    )
    return manifest


@dataclass(frozen=True, eq=False)
class _Sample:
    """Cells of training prompts, cut to the sentence's length."""

    train: tuple[IntArray, ...]
    held_out: tuple[IntArray, ...]
    vocabulary: Vocabulary
    token_ids: Mapping[str, int]
    """Genes that one of the cells writes, then the special tokens, as published ones do."""
    num_genes: int


def _read_sample(config: EmbedderConfig, cells: Path, corpus: Path) -> _Sample:
    """Read the training side and keep a seeded part of its cells out."""
    vocabulary, prompts = read_manifest(cells).vocabulary, read_prompts(corpus)
    real = gather_real_cells(prompts.records, read_cells(cells), len(vocabulary))
    rows = sorted(
        real.train_rows, key=lambda row: stable_hash(real.cells.cell_ids[row], config.seed)
    )
    num_held_out = round(config.eval_fraction * len(rows))
    if not 0 < num_held_out < len(rows) - 1:
        raise DataError(
            "an scGPT must have cells to learn from and cells kept out, got "
            f"{len(rows) - num_held_out} and {num_held_out} of training prompts in {corpus}"
        )
    genes = [real.cells.genes_of(row)[: prompts.num_genes] for row in rows]
    written = np.unique(np.concatenate(genes)).tolist()
    names = [*(vocabulary.symbols[gene] for gene in written), *SPECIAL_TOKENS]
    return _Sample(
        train=tuple(genes[num_held_out:]),
        held_out=tuple(genes[:num_held_out]),
        vocabulary=vocabulary,
        token_ids={name: row for row, name in enumerate(names)},
        num_genes=prompts.num_genes,
    )


def _train(
    config: EmbedderConfig, sample: _Sample, on_step: Callable[[int, Mapping[str, float]], None]
) -> tuple["ScGPTArgs", "TrainedScGPT"]:
    from c2s_rl.models.scgpt_files import ScGPTArgs
    from c2s_rl.models.scgpt_tokens import BinScope, CellTokenizer, scgpt_rows
    from c2s_rl.models.scgpt_training import train_scgpt

    args = ScGPTArgs(
        embsize=config.embsize,
        nheads=config.nheads,
        d_hid=config.d_hid,
        nlayers=config.nlayers,
        dropout=config.dropout,
        n_bins=config.n_bins,
        max_seq_len=sample.num_genes + 1,
    )
    row_N = scgpt_rows(sample.vocabulary, sample.token_ids)
    everything = np.ones(len(row_N), dtype=np.bool_)
    tokenizer = CellTokenizer(row_N, everything, BinScope.SENTENCE, args.n_bins, sample.num_genes)
    trained = train_scgpt(
        [tokenizer.tokens(genes_K) for genes_K in sample.train],
        [tokenizer.tokens(genes_K) for genes_K in sample.held_out],
        args,
        sample.token_ids,
        config,
        on_step,
    )
    return args, trained
