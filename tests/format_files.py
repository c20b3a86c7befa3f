"""The same cells written in every format that `convert` reads."""

import gzip
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
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


def as_stored(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    """Whole numbers as Cell Ranger stores them; what a test breaks stays as it is."""
    is_whole = np.isfinite(matrix.data).all() and (matrix.data == np.rint(matrix.data)).all()
    return matrix.astype(np.int32) if is_whole else matrix


def write_tenx_h5(adata: anndata.AnnData, folder: Path, *, others: int = 0) -> Path:
    """As Cell Ranger 3 writes it; `others` antibodies stand before the genes."""
    antibodies = sparse.csr_matrix(np.full((adata.n_obs, others), 7.0))
    matrix = as_stored(sparse.csr_matrix(sparse.hstack([antibodies, adata.X])))
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
    matrix = as_stored(sparse.csr_matrix(adata.X))
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
    matrix = sparse.coo_matrix(as_stored(sparse.csr_matrix(adata.X)).T)
    kind = "integer" if matrix.dtype.kind == "i" else "real"
    lines = [f"%%MatrixMarket matrix coordinate {kind} general", '%metadata_json: {"a": 1}']
    lines += [" ".join(map(str, (*matrix.shape, matrix.nnz)))]
    entries = zip(matrix.row.tolist(), matrix.col.tolist(), matrix.data.tolist(), strict=True)
    lines += [f"{row + 1} {column + 1} {value}" for row, column, value in entries]
    (path / "matrix.mtx").write_text("\n".join(lines) + "\n")
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
        table.to_csv(path, sep="," if ".csv" in suffix else "\t", index_label="id", na_rep="nan")
    return path


def write_gct(adata: anndata.AnnData, folder: Path) -> Path:
    """A plate as text, with the labels of the cells."""
    values = np.asarray(adata.X.todense()).T.tolist()
    header = ["id", "pr_gene_symbol", *adata.obs_names]
    rows = [[name, "na", *adata.obs[name]] for name in LABELS]
    pairs = zip(adata.var_names, values, strict=True)
    rows += [[str(i), name, *map(str, row)] for i, (name, row) in enumerate(pairs)]
    sizes = [adata.n_vars, adata.n_obs, 1, len(LABELS)]
    lines = [["#1.3"], list(map(str, sizes)), header, *rows]
    (folder / "cells.gct").write_text("".join("\t".join(line) + "\n" for line in lines))
    return folder / "cells.gct"


def write_gctx(adata: anndata.AnnData, folder: Path) -> Path:
    """The same in HDF5."""
    with h5py.File(folder / "cells.gctx", "w") as file:
        file["0/DATA/0/matrix"] = np.asarray(adata.X.todense(), dtype=np.float32)
        file["0/META/COL/id"] = np.array(list(adata.obs_names), dtype=np.bytes_)
        for name in LABELS:
            file[f"0/META/COL/{name}"] = np.array(list(adata.obs[name]), dtype=np.bytes_)
        file["0/META/ROW/id"] = np.arange(adata.n_vars)
        file["0/META/ROW/pr_gene_symbol"] = np.array(list(adata.var_names), dtype=np.bytes_)
    return folder / "cells.gctx"


def write_sentences(sentences: dict[str, str], folder: Path, **labels: list[str]) -> Path:
    """A data set as cell2sentence's CSData saves it."""
    import datasets

    columns = {"cell_name": list(sentences), "cell_sentence": list(sentences.values()), **labels}
    datasets.Dataset.from_dict(columns).save_to_disk(folder / "sentences")
    return folder / "sentences"
