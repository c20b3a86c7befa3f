"""Cell shards: ranked cells in Parquet with a manifest that says how they were made.

    folder/manifest.json         what every cell shares: vocabulary, normalisation, rank model
    folder/part-00000.parquet    one row a cell, zstd: cell_id, genes (list<int32>), values
                                 (list<float32>, optional), obs columns, source_file, source_row

A part holds what was kept of a fixed number of rows of one file, a row group of a fixed number of
them, so the bytes do not depend on who wrote what when (`part_file.py`). The sentences themselves
are not stored: they are the genes, spelled (`write_sentence`).

Shapes: C cells, Z ranked genes of all cells, N genes of the vocabulary.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, ValidationError

from c2s_rl.cells.rank_model import RankForm, RankModel
from c2s_rl.cells.vocabulary import Duplicates, GeneCase, Vocabulary, unknown_name
from c2s_rl.checkpoint import MANIFEST
from c2s_rl.config import FrozenConfig
from c2s_rl.data.cell_table import CellTable, TextArray, concatenated
from c2s_rl.data.gene_stats import QcConfig, VariableGenesConfig
from c2s_rl.data.values import Scale, Values
from c2s_rl.errors import DataError, MissingFileError

SCHEMA_VERSION = 2
RESERVED_COLUMNS = ("cell_id", "genes", "values", "source_file", "source_row")


class SourceRecord(FrozenConfig):
    """One file that cells came from."""

    dataset: str = Field("", description="Its name among several files; '' where it is the only.")
    path: str = Field(description="The file, as the config names it.")
    sha256: str = Field(description="Its SHA-256; of a folder, that of its files.")
    tables_sha256: dict[str, str] = Field({}, description="Tables beside it to their SHA-256.")
    matrix: str = Field("X", description="X, raw or layer:<name>.")
    values: Values = Field(description="What the matrix holds.")
    num_rows: int = Field(description="Cells of the file.")
    num_cells: int = Field(description="Cells of it in the shards.")
    num_unnamed_genes: int = Field(0, description="Genes left out: no symbol in the gene table.")
    num_duplicate_columns: int = Field(0, description="Columns of a symbol met before.")
    num_left_out: dict[str, int] = Field({}, description="What opening left out, by its kind.")
    symbols: dict[str, int] = Field({}, description="Genes by how they came by their symbol.")


class CellManifest(FrozenConfig):
    """How a folder of cell shards was made; everything its cells share."""

    schema_version: int = Field(SCHEMA_VERSION, description="Layout of the folder.")
    symbols: tuple[str, ...] = Field(description="[N] symbols as written in sentences.")
    original: tuple[str, ...] = Field(description="[N] the same symbols as spelled in the file.")
    organism: str = Field(description="Species, for prompts.")
    normalisation: str = Field(description="Unit of the values.")
    rank_model: RankModel = Field(description="Line from rank to expression, with its R^2.")
    rank_form_r2: dict[RankForm, float] = Field({}, description="R^2 of each form that was tried.")
    mean_floor: float = Field(0.0, description="log2 only: the mean intensity that 0 stands for.")
    num_cells: int = Field(description="Cells in the shards.")
    num_dropped_empty: int = Field(description="Cells left out: no expressed gene.")
    num_dropped_qc: int = Field(0, description="Other cells left out: by quality control.")
    num_dropped_min_genes: int = Field(description="Cells left out: fewer genes than min_genes.")
    num_dropped_genes: int = Field(description="Genes left out of cells: beyond max_genes.")
    num_explicit_zeros: int = Field(description="Stored entries that were 0: not expressed.")
    num_dropped_qc_genes: int = Field(0, description="Genes of the files left out by qc.")
    num_dropped_variable_genes: int = Field(0, description="Other genes: not variable enough.")
    genes: tuple[str, ...] = Field((), description="Programs kept; empty: every gene of the file.")
    gene_files_sha256: dict[str, str] = Field({}, description="Files of them to their SHA-256.")
    obs_columns: tuple[str, ...] = Field(description="Obs columns of the shards.")
    num_missing_obs: dict[str, int] = Field(description="Cells without a label, by obs column.")
    sources: tuple[SourceRecord, ...] = Field(description="The files that were converted.")
    join: str = Field("union", description="Genes of several files: union or intersection.")
    scale: Scale = Field(default_factory=Scale, description="Library size and logarithm.")
    qc: QcConfig | None = Field(None, description="Rules of quality control; null: none.")
    variable_genes: VariableGenesConfig | None = Field(
        None, description="Which variable genes were kept; null: all."
    )
    has_values: bool = Field(default=True, description="Whether the parts hold values.")
    gene_case: GeneCase = Field(description="How symbols are written.")
    duplicates: Duplicates = Field(description="What was done with repeated symbols.")
    min_genes: int = Field(description="Expressed genes that a cell needs.")
    max_genes: int | None = Field(description="Genes kept a cell; null: all.")
    tie_break: str = Field(description="Order of equally expressed genes: hash or c2s.")
    seed: int = Field(description="Seed of the tie-break.")
    parts: tuple[str, ...] = Field((), description="Parquet files, in order.")

    @property
    def vocabulary(self) -> Vocabulary:
        """The symbols, ready for look-ups."""
        return Vocabulary(symbols=self.symbols, original=self.original)


def write_manifest(folder: Path, manifest: CellManifest) -> None:
    """Write the manifest beside its parts."""
    items = manifest.model_dump(mode="json").items()
    # A line a key: indenting forty thousand symbols takes longer than a thousand cells.
    lines = ",\n ".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in items)
    (folder / MANIFEST).write_text(f"{{\n {lines}\n}}\n", encoding="utf-8")


def read_manifest(folder: Path) -> CellManifest:
    """Read the manifest of a folder of cell shards.

    Raises:
        MissingFileError: If there is none.
        DataError: If it is not a manifest of this version.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise MissingFileError(f"a cells folder must hold {MANIFEST}, got none in {folder}")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["schema_version"] != SCHEMA_VERSION:
            raise DataError(
                f"a manifest must have schema_version {SCHEMA_VERSION}, "
                f"got {data['schema_version']!r} in {path}; convert the cells again"
            )
        return CellManifest.model_validate(data)
    except (json.JSONDecodeError, UnicodeDecodeError, TypeError, KeyError) as error:
        raise DataError(f"a manifest must be JSON of cell shards, got {error} in {path}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise DataError(
            f"a manifest must be of cell shards, got {first['msg']} at {place!r} in {path}"
        ) from error


def read_cells(folder: Path, columns: Sequence[str] = ()) -> CellTable:
    """Read all cells of a folder, with the obs columns that are named.

    Where values were not written, those of the rank model stand for them: cells keep their order.

    Raises:
        MissingFileError: If the manifest or a part is not there.
        DataError: If an obs column is unknown (the nearest is named) or the parts do not hold what
            the manifest says.
    """
    manifest = read_manifest(folder)
    for column in columns:
        if column not in manifest.obs_columns:
            known = manifest.obs_columns
            raise DataError(unknown_name("the obs column", column, known, str(folder)))
    values = ["values"] if manifest.has_values else []
    wanted = ["cell_id", "genes", *values, "source_row", *columns]
    tables = [_read_part(folder / part, wanted) for part in manifest.parts]
    cells = concatenated([_from_arrow(table, columns, manifest.rank_model) for table in tables])
    if len(cells) != manifest.num_cells:
        raise DataError(
            f"the parts must hold the {manifest.num_cells} cells of the manifest, "
            f"got {len(cells)} in {folder}"
        )
    num_genes = len(manifest.symbols)
    if len(cells.genes) and not 0 <= cells.genes.min() <= cells.genes.max() < num_genes:
        raise DataError(f"genes must be in 0..{num_genes - 1}, got others in {folder}")
    return cells


def _read_part(path: Path, wanted: Sequence[str]) -> pa.Table:
    if not path.is_file():
        raise MissingFileError(f"every part of the manifest must be there, got no {path}")
    try:
        return pq.read_table(path, columns=list(wanted))
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"a cell shard must be whole Parquet, got {reason} in {path}") from error


def _from_arrow(table: pa.Table, columns: Sequence[str], rank_model: RankModel) -> CellTable:
    genes = table["genes"].combine_chunks()
    indptr = genes.offsets.to_numpy().astype(np.int64)
    if "values" in table.column_names:
        values = table["values"].combine_chunks().values.to_numpy()
    else:
        lengths = np.diff(indptr)
        by_rank = rank_model.expression(int(lengths.max(initial=0)))
        values = by_rank[np.arange(len(genes.values)) - np.repeat(indptr[:-1], lengths)]
    return CellTable(
        cell_ids=tuple(table["cell_id"].to_pylist()),
        indptr=indptr,
        genes=genes.values.to_numpy(),
        values=values,
        obs={name: _labels(table[name]) for name in columns},
        source_rows=table["source_row"].to_numpy(),
    )


def _labels(column: pa.ChunkedArray) -> TextArray:
    return np.array(column.cast(pa.string()).fill_null("").to_pylist(), dtype=np.str_)
