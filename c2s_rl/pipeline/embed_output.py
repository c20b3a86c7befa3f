"""Vectors into AnnData: a file of their own, or a copy of a file of the same cells.

Vectors go from shard to file one shard at a time; ids and labels (about 100 bytes a cell) are held.
For tens of millions of cells the Parquet shards themselves are the better form.

Shape suffixes: C cells, D hidden size.
"""

import json
import logging
import shutil
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import JsonValue

from c2s_rl.data.cell_reader import CellReader
from c2s_rl.data.h5ad_copy import obs_names, obsm_keys, rows_of
from c2s_rl.errors import DataError
from c2s_rl.pipeline.embed_shards import EmbedJob, read_shards

UNS_KEY = "c2s_rl"
# An array in the on-disk format of AnnData (anndata's documentation, "On-disk format").
ARRAY_ATTRIBUTES = {"encoding-type": "array", "encoding-version": "0.2.0"}

log = logging.getLogger(__name__)


def write_embeddings(path: Path, job: EmbedJob, *, key: str, facts: dict[str, JsonValue]) -> None:
    """Write all vectors of a job as an AnnData file without genes.

    Args:
        path: The .h5ad; replaced as a whole.
        job: Whose shards are all there.
        key: Name of the vectors in obsm.
        facts: What made the vectors; goes to uns['c2s_rl'] as JSON.
    """
    import anndata
    import pandas as pd

    ids: list[str] = []
    labels: dict[str, list[str | None]] = {name: [] for name in job.source.label_names}
    for shard in read_shards(job):
        ids += shard.context_ids
        for name in labels:
            labels[name] += shard.labels[name]
    obs = pd.DataFrame(
        {name: pd.Categorical(column) for name, column in labels.items()},
        index=pd.Index(ids, dtype=object),
    )
    adata = anndata.AnnData(obs=obs, uns={UNS_KEY: json.dumps(facts)})
    partial = path.with_name(f".{path.name}.partial")
    adata.write_h5ad(partial)
    order = np.arange(len(ids))
    _add_vectors(partial, job, key, order)
    partial.replace(path)


def require_into(source: Path, cells: CellReader, *, key: str) -> None:
    """Check, before anything is embedded, that a file can take the vectors of cells.

    Raises:
        MissingFileError: If there is no such file.
        DataError: If it is no .h5ad, has such vectors already, or holds a cell that will have none.
    """
    names = _free_names(source, key)
    rows_of(sorted(cells.known_ids(names)), names, source)


def write_into(source: Path, path: Path, job: EmbedJob, *, key: str) -> int:
    """Copy an .h5ad and add the vectors of its cells to obsm; everything else stays as it is.

    Args:
        source: The user's file.
        path: The copy; replaced as a whole.
        job: Whose shards are all there.
        key: Name of the vectors in obsm.

    Returns:
        Embedded cells that the file does not hold.

    Raises:
        MissingFileError: If there is no such file.
        DataError: If it is no .h5ad, has such vectors already, or holds a cell that has none.
    """
    names = _free_names(source, key)
    ids = [name for shard in read_shards(job) for name in shard.context_ids]
    order_C = rows_of(ids, names, source)
    partial = path.with_name(f".{path.name}.partial")
    shutil.copyfile(source, partial)
    _add_vectors(partial, job, key, order_C)
    partial.replace(path)
    num_others = int(np.count_nonzero(order_C < 0))
    if num_others:
        log.info("%d embedded cells are not in %s", num_others, source)
    return num_others


def _free_names(source: Path, key: str) -> list[str]:
    names = obs_names(source)
    if key in obsm_keys(source):
        raise DataError(
            f"obsm must have no {key!r} yet, got one in {source}; embed.key names another"
        )
    return names


def _add_vectors(path: Path, job: EmbedJob, key: str, order_C: npt.NDArray[np.int64]) -> None:
    """Write every vector to its row of the file; -1 leaves it out."""
    import h5py
    from anndata.io import write_elem

    num_rows = int(order_C.max(initial=-1)) + 1
    with h5py.File(path, "r+") as file, tempfile.TemporaryDirectory(dir=path.parent) as folder:
        if "obsm" not in file:
            write_elem(file, "obsm", {})
        # Rows come in any order, which HDF5 writes slowly; a mapped file takes them as they come.
        mapped: npt.NDArray[np.float32] | None = None
        start = 0
        for shard in read_shards(job):
            if mapped is None:
                shape = (num_rows, shard.vectors_B_D.shape[1])
                mapped = np.memmap(Path(folder) / "vectors", np.float32, "w+", shape=shape)
            rows = order_C[start : start + len(shard.vectors_B_D)]
            mapped[rows[rows >= 0]] = shard.vectors_B_D[rows >= 0]
            start += len(rows)
        assert mapped is not None, "a job has at least one context"
        dataset = file["obsm"].create_dataset(key, mapped.shape, np.float32)
        dataset.attrs.update(ARRAY_ATTRIBUTES)
        for first in range(0, num_rows, job.shard_contexts):
            dataset[first : first + job.shard_contexts] = mapped[first : first + job.shard_contexts]
