"""The same cells written in every format that `convert` reads."""

import gzip
import shutil
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import scipy.io
from scipy import sparse

LABELS = ("cell_type", "batch")


def make_adata(counts: np.ndarray | None = None, names: list[str] | None = None) -> anndata.AnnData:
    """40 cells of 12 genes with labels; counts are whole numbers, most of them 0."""
    if counts is None:
        counts = np.random.default_rng(0).poisson(0.7, size=(40, 12))
    counts = np.asarray(counts, dtype=np.float32)
    num_cells, num_genes = counts.shape
    obs = pd.DataFrame(
        {
            "cell_type": [("T cell", "B cell", "NK")[i % 3] for i in range(num_cells)],
            "batch": [f"b{i % 2}" for i in range(num_cells)],
        },
        index=[f"cell-{i}" for i in range(num_cells)],
    )
    var = pd.DataFrame(
        {"gene_ids": [f"ENSG{i:011d}" for i in range(num_genes)]},
        index=names or [f"GENE{i}" for i in range(num_genes)],
    )
    return anndata.AnnData(sparse.csr_matrix(counts), obs=obs, var=var)


def write_h5ad(adata: anndata.AnnData, folder: Path) -> Path:
    adata.write_h5ad(folder / "cells.h5ad")
    return folder / "cells.h5ad"


def write_zarr(adata: anndata.AnnData, folder: Path, version: int = 3) -> Path:
    before = anndata.settings.zarr_write_format
    anndata.settings.zarr_write_format = version
    try:
        adata.write_zarr(folder / "cells.zarr")
    finally:
        anndata.settings.zarr_write_format = before
    return folder / "cells.zarr"


def write_obs(adata: anndata.AnnData, folder: Path) -> Path:
    """The labels as a table beside the file."""
    adata.obs.to_csv(folder / "obs.tsv", sep="\t", index_label="cell")
    return folder / "obs.tsv"


def write_tenx_h5(adata: anndata.AnnData, folder: Path, *, others: int = 0) -> Path:
    """As Cell Ranger 3 writes it; `others` antibodies stand before the genes."""
    counts = adata.X.toarray().astype(np.int32)
    antibodies = np.full((len(counts), others), 7, dtype=np.int32)
    matrix = sparse.csr_matrix(np.hstack([antibodies, counts]))
    texts = {
        "id": [*(f"AB{i}" for i in range(others)), *adata.var["gene_ids"]],
        "name": [*(f"CD{i}_TotalA" for i in range(others)), *adata.var_names],
        "feature_type": ["Antibody Capture"] * others + ["Gene Expression"] * adata.n_vars,
        "genome": [""] * others + ["GRCh38"] * adata.n_vars,
    }
    path = folder / "cells.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        group["shape"] = np.array(matrix.shape[::-1], dtype=np.int32)
        group["data"], group["indices"] = matrix.data, matrix.indices.astype(np.int64)
        group["indptr"] = matrix.indptr.astype(np.int64)
        group["barcodes"] = np.array(list(adata.obs_names), dtype=np.bytes_)
        for name, values in texts.items():
            group[f"features/{name}"] = np.array(values, dtype=np.bytes_)
        group["features/_all_tag_keys"] = np.array([b"genome"])
    return path


def write_old_tenx_h5(
    adata: anndata.AnnData, folder: Path, genomes: tuple[str, ...] = ("hg19",)
) -> Path:
    """As Cell Ranger 2 writes it: a group a genome."""
    matrix = sparse.csr_matrix(adata.X).astype(np.int32)
    path = folder / "cells.h5"
    with h5py.File(path, "w") as file:
        for genome in genomes:
            group = file.create_group(genome)
            group["shape"] = np.array(matrix.shape[::-1], dtype=np.int32)
            group["data"], group["indices"] = matrix.data, matrix.indices
            group["indptr"] = matrix.indptr
            group["barcodes"] = np.array(list(adata.obs_names), dtype=np.bytes_)
            group["genes"] = np.array(list(adata.var["gene_ids"]), dtype=np.bytes_)
            group["gene_names"] = np.array(list(adata.var_names), dtype=np.bytes_)
    return path


def write_mtx(
    adata: anndata.AnnData, folder: Path, *, is_old: bool = False, is_gzip: bool = True
) -> Path:
    """As Cell Ranger writes it: three files, of version 3 compressed."""
    path = folder / "mtx"
    path.mkdir()
    matrix = sparse.coo_matrix(sparse.csr_matrix(adata.X).T.astype(np.int64))
    scipy.io.mmwrite(path / "matrix.mtx", matrix, field="integer")
    (path / "barcodes.tsv").write_text("".join(f"{name}\n" for name in adata.obs_names))
    pairs = zip(adata.var["gene_ids"], adata.var_names, strict=True)
    end = "\n" if is_old else "\tGene Expression\n"
    features = "".join(f"{gene}\t{symbol}{end}" for gene, symbol in pairs)
    (path / ("genes.tsv" if is_old else "features.tsv")).write_text(features)
    if is_gzip:
        for file in list(path.iterdir()):
            (path / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
            file.unlink()
    return path


def write_table(
    adata: anndata.AnnData,
    folder: Path,
    suffix: str,
    *,
    has_labels: bool = True,
    turned: bool = False,
) -> Path:
    """A .csv, .tsv or .parquet table, plain or .gz, of cells by genes or turned."""
    table = adata.to_df()
    if turned:
        table = table.T
    elif has_labels:
        table = pd.concat([adata.obs, table], axis=1)
    path = folder / f"cells{suffix}"
    if suffix == ".parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, sep="," if ".csv" in suffix else "\t", index_label="id")
    return path


def write_sentences(sentences: dict[str, str], folder: Path, **labels: list[str]) -> Path:
    """A data set as cell2sentence's CSData saves it."""
    import datasets

    columns = {"cell_name": list(sentences), "cell_sentence": list(sentences.values()), **labels}
    datasets.Dataset.from_dict(columns).save_to_disk(folder / "sentences")
    return folder / "sentences"


def copy_real(path: Path, folder: Path) -> Path:
    """A real file where a test may change it."""
    return Path(shutil.copy(path, folder / path.name))
