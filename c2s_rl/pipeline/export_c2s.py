"""Cell shards as a data set of the cell2sentence package, for its loaders, prompts and trainers.

    c2s-rl export-c2s --cells FOLDER --output FOLDER

    folder/                  what `datasets.load_from_disk` and the package's CSData read: columns
                             cell_name, cell_sentence, the labels, organism (its prompts ask for it)
    folder/vocabulary.json   {symbol: cells that express it}, the package's vocabulary, in order

Sentences are written as they are in the shards: convert with `gene_case: upper` and `tie_break:
c2s` for the package's own, word for word. Left out: values, which the package does not keep, and
a split, which it makes itself.
"""

import json
import logging
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.progress import track

from c2s_rl.cells.rank import IndexArray
from c2s_rl.cells.spelling import SentenceWriter
from c2s_rl.checkpoint import MANIFEST, atomic_folder, require_replaceable
from c2s_rl.data.shard_stream import ShardBatch, iter_cells
from c2s_rl.data.shards import CellManifest, read_manifest
from c2s_rl.errors import DataError, StageError

CELL_NAME, CELL_SENTENCE, ORGANISM = "cell_name", "cell_sentence", "organism"
VOCABULARY = "vocabulary.json"
CELLS_AT_ONCE = 2_048

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Exported:
    """What a folder holds."""

    num_cells: int
    columns: tuple[str, ...]
    """Columns of the data set, in order."""


def run(cells: Path, output: Path) -> Exported:
    """Write the data set; the folder appears whole or not at all.

    Twice its size is used on disk while it is written.

    Args:
        cells: A folder of cell shards.
        output: New, empty, or an earlier output, which is replaced.

    Raises:
        MissingFileError: If the shards are not there.
        DataError: If they are damaged, or a label has a name that the package reserves.
        StageError: If `output` holds something else, or the shards themselves.
    """
    import datasets
    from datasets.arrow_writer import ArrowWriter

    manifest = read_manifest(cells)
    _check(manifest, cells)
    require_replaceable(output)
    if cells.resolve().is_relative_to(output.resolve()):
        raise StageError(
            "the output must be another folder than the cells, which it would replace, got "
            f"{output} for the cells {cells}"
        )
    num_cells_N = np.zeros(len(manifest.symbols), dtype=np.int64)
    columns = (CELL_NAME, CELL_SENTENCE, *manifest.obs_columns)
    columns += () if ORGANISM in columns else (ORGANISM,)
    with atomic_folder(output) as partial:
        whole = partial / "whole" / "cells.arrow"  # a data set may not be saved where it lies
        whole.parent.mkdir()
        with ArrowWriter(path=str(whole)) as writer:
            for table in _with_progress(_tables(cells, manifest, num_cells_N), manifest.num_cells):
                writer.write_table(table.select(list(columns)))
            writer.finalize()
        with _quiet_datasets():
            datasets.Dataset.from_file(str(whole)).save_to_disk(str(partial))
        shutil.rmtree(whole.parent)
        _write_json(
            partial / VOCABULARY, dict(zip(manifest.symbols, num_cells_N.tolist(), strict=True))
        )
        about = {"cells": str(cells), "num_cells": manifest.num_cells, "columns": columns}
        _write_json(partial / MANIFEST, about)
    return Exported(manifest.num_cells, columns)


def _check(manifest: CellManifest, cells: Path) -> None:
    reserved = [name for name in (CELL_NAME, CELL_SENTENCE) if name in manifest.obs_columns]
    if reserved:
        raise DataError(
            f"labels must not be called {CELL_NAME} or {CELL_SENTENCE}, which cell2sentence "
            f"reserves, got {reserved[0]} in {cells}"
        )
    num_other = sum(symbol != symbol.upper() for symbol in manifest.symbols)
    if num_other:
        log.warning(
            "export-c2s: %d of %d symbols of %s are not in upper case, as cell2sentence writes "
            "them; convert with gene_case: upper for models that it trained",
            num_other,
            len(manifest.symbols),
            cells,
        )


def _tables(cells: Path, manifest: CellManifest, num_cells_N: IndexArray) -> Iterator[pa.Table]:
    """Spell the cells, a few at a time, and count in how many of them each gene is."""
    writer = SentenceWriter(manifest.vocabulary)
    batches = iter_cells(
        cells,
        manifest,
        columns=manifest.obs_columns,
        with_values=False,
        num_cells=CELLS_AT_ONCE,
    )
    for batch in batches:
        num_cells_N += np.bincount(batch.genes, minlength=len(num_cells_N))
        yield _table(batch, writer, manifest.organism)


def _table(batch: ShardBatch, writer: SentenceWriter, organism: str) -> pa.Table:
    sentences = writer.write(batch.indptr, batch.genes)
    return pa.table(
        {
            ORGANISM: pa.array([organism] * len(sentences), pa.string()),
            CELL_NAME: pa.array(batch.cell_ids, pa.string()),
            CELL_SENTENCE: pa.array(sentences, pa.string()),
            # A column of the cells that is called organism takes the place of the manifest's.
            **{
                name: pa.array(labels, pa.string(), mask=labels == "")
                for name, labels in batch.obs.items()
            },
        }
    )


@contextmanager
def _quiet_datasets() -> Iterator[None]:
    """Keep the library's own bar away, which it shows in log files too."""
    import datasets

    if datasets.are_progress_bars_disabled():
        yield
        return
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()


def _with_progress(tables: Iterable[pa.Table], num_cells: int) -> Iterable[pa.Table]:
    """Show a bar where somebody watches."""
    if not sys.stderr.isatty():
        return tables
    total = -(-num_cells // CELLS_AT_ONCE)
    return track(tables, description="export-c2s", total=total, console=Console(stderr=True))


def _write_json(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
