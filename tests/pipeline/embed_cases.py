"""A tiny policy, and cells on disk, for the stages that ask policies about cells."""

from dataclasses import dataclass
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from c2s_rl.models.tokenizer import train_bpe
from c2s_rl.pipeline import convert
from c2s_rl.pipeline.convert import ConvertConfig

GENES = tuple(f"GENE{i}" for i in range(30))
WORDS = "Predict the cell type of this cell: Homo sapiens cells, Cell 0123456789"


@dataclass(frozen=True)
class Prepared:
    """Folders of a policy and cells."""

    policy: Path
    h5ad: Path
    cells: Path


def write_policy(folder: Path, *, seed: int = 0) -> Path:
    tokenizer = train_bpe([" ".join(GENES), WORDS], vocabulary_size=340, max_length=512)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tokenizer),
                hidden_size=64,  # heads of 32: the smallest that vLLM attends with on a CPU
                num_hidden_layers=2,
                num_attention_heads=2,
                num_key_value_heads=2,
                intermediate_size=64,
                max_position_embeddings=512,
                initializer_range=0.3,
            )
        )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_adata(num_cells: int = 50) -> ad.AnnData:
    """Cells of two types and two donors; the types differ in which genes are high."""
    rng = np.random.default_rng(0)
    is_b = np.arange(num_cells) % 2 == 0
    counts = rng.poisson(2.0, size=(num_cells, len(GENES))).astype(np.float32)
    counts[is_b, :8] += 9
    counts[~is_b, 8:16] += 9
    counts[:, 0] += 1  # no cell is empty
    donors = np.array(["d1", "d2", "d2"])[np.arange(num_cells) % 3]
    return ad.AnnData(
        sp.csr_matrix(counts),
        obs=pd.DataFrame(
            {
                "cell_type": pd.Categorical(np.where(is_b, "B cell", "T cell")),
                "donor": pd.Categorical(donors),
            },
            index=[f"c{i}" for i in range(num_cells)],
        ),
        var=pd.DataFrame(index=list(GENES)),
    )


def prepare(folder: Path, *, num_cells: int = 50) -> Prepared:
    h5ad = folder / "cells.h5ad"
    make_adata(num_cells).write_h5ad(h5ad)
    config = ConvertConfig(path=str(h5ad), obs=("cell_type", "donor"))
    convert.run(config, folder / "cells")
    return Prepared(write_policy(folder / "policy"), h5ad, folder / "cells")
