"""Small folders of cell shards, made by the real conversion, and the way back."""

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from c2s_rl.config import validate
from c2s_rl.pipeline import to_anndata
from c2s_rl.pipeline.convert import ConvertConfig, run


def make_cells(folder: Path, counts=None, names=None, **options) -> Path:
    """Convert counts; returns the folder of the shards."""
    counts = toy_counts() if counts is None else np.asarray(counts, dtype=np.float32)
    names = names or [f"G{i}" for i in range(counts.shape[1])]
    obs = pd.DataFrame(
        {"kind": ["T cell", "B cell"] * (len(counts) // 2) + ["T cell"] * (len(counts) % 2)},
        index=[f"c{i}" for i in range(len(counts))],
    )
    obs.loc["c0", "kind"] = None  # a missing label
    path = folder / "input.h5ad"
    anndata.AnnData(sparse.csr_matrix(counts), obs=obs, var=pd.DataFrame(index=names)).write_h5ad(
        path
    )
    run(ConvertConfig(path=str(path), obs=("kind",), **options), folder / "cells")
    return folder / "cells"


def toy_counts(num_cells=50, num_genes=20):
    counts = np.random.default_rng(0).poisson(1.5, size=(num_cells, num_genes))
    counts[:, 0] += 1  # no cell is empty
    return counts.astype(np.float32)


def read(folder: Path, cells: Path, **options) -> tuple[anndata.AnnData, to_anndata.Written]:
    config = validate(to_anndata.ToAnnDataConfig, {"cells": str(cells), **options}, "test")
    written = to_anndata.run(config, folder / "out.h5ad", overwrite=True)
    return anndata.read_h5ad(folder / "out.h5ad"), written


def lines(tmp_path, *texts):
    path = tmp_path / "sentences.txt"
    path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return str(path)
