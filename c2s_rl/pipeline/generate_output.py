"""Generated cells as AnnData, and what they are like by condition.

X is what the data set's rank model says of each gene's place in the sentence. Written a part at a
time; what is kept in memory is a number for every distinct sentence.

Shape suffixes: C cells of a part, N genes of the vocabulary.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field, JsonValue
from scipy import sparse

from c2s_rl.cells.inverse import RepeatRule, sentences_to_expression
from c2s_rl.checkpoint import replace_text
from c2s_rl.data.h5ad_stream import Column, H5adStream, UnsValue, new_file
from c2s_rl.data.parquet_parts import read_parts
from c2s_rl.data.shards import CellManifest

GENERATED, COUNTS = "generated.h5ad", "counts.json"
LABELS = ("condition", "cell_type", "perturbation", "control_id")
NUMBERS = ("num_words", "num_duplicates", "num_unknown")
# A column of texts in the on-disk format of AnnData.
TEXT_ATTRIBUTES = {"encoding-type": "string-array", "encoding-version": "0.2.0"}


class ConditionCounts(BaseModel):
    """What the cells of one condition are like."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_cells: int = Field(description="Cells written.")
    num_distinct: int = Field(description="Different sentences among them.")
    num_empty: int = Field(description="Cells without a known gene.")
    num_truncated: int = Field(description="Cells that were cut at max_tokens.")
    genes_mean: float = Field(description="Known genes of a cell.")
    duplicate_rate: float = Field(description="Share of words that repeat a gene.")
    unknown_rate: float = Field(description="Share of words that are no gene.")


class GenerateCounts(BaseModel):
    """What generated cells are like; counts.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    conditions: dict[str, ConditionCounts] = Field(description="By name of the condition.")

    def write(self, folder: Path) -> None:
        """Write counts.json."""
        replace_text(folder / COUNTS, self.model_dump_json(indent=1) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read counts.json."""
        return cls.model_validate_json((folder / COUNTS).read_text(encoding="utf-8"))


def write_generated(
    path: Path,
    parts: Path,
    manifest: CellManifest,
    facts: dict[str, JsonValue],
    *,
    rows_per_part: int,
    num_cells: int,
) -> GenerateCounts:
    """Write the cells of all parts as AnnData.

    Args:
        path: The .h5ad; replaced as a whole.
        parts: Folder of the parts, which are all there.
        manifest: Of the cells whose vocabulary and rank model apply.
        facts: What made the cells; goes to uns as JSON.
        rows_per_part: Cells of a part.
        num_cells: Of all parts.

    Returns:
        Counts by condition.
    """
    import pandas as pd

    var = pd.DataFrame(
        {"sentence_symbol": list(manifest.symbols)}, index=pd.Index(list(manifest.original))
    )
    tallies: dict[str, _Tally] = {}
    with new_file(path, overwrite=True) as partial:
        stream = H5adStream(partial, var, compression="gzip")
        try:
            for part in read_parts(parts, rows_per_part, num_cells):
                rows = _expression(part, manifest)
                columns = _obs(part, rows)
                stream.append(part["cell_id"].to_pylist(), rows, columns)
                _count(tallies, part, columns)
            stream.finish(_uns(manifest, facts))
        finally:
            stream.close()
        with h5py.File(partial, "r+") as file:
            prompts = _add_text_column(file, "prompt", num_cells)
            start = 0
            for part in read_parts(parts, rows_per_part, num_cells):
                prompts[start : start + len(part)] = part["prompt"].to_pylist()
                start += len(part)
    return GenerateCounts(conditions={name: tally.counts() for name, tally in tallies.items()})


def _expression(part: pa.Table, manifest: CellManifest) -> sparse.csr_matrix:
    """[C, N] expression by rank, float32, columns in order."""
    genes = part["genes"].combine_chunks()
    rows = sentences_to_expression(
        genes.offsets.to_numpy().astype(np.int64),
        genes.flatten().to_numpy(),
        manifest.rank_model,
        num_genes=len(manifest.symbols),
        repeats=RepeatRule.FIRST,
    )
    shape = (len(part), len(manifest.symbols))
    return sparse.csr_matrix((rows.values, rows.genes, rows.indptr), shape=shape).sorted_indices()


def _obs(part: pa.Table, rows: sparse.csr_matrix) -> dict[str, Column]:
    """Labels and counts of one part, without prompts."""
    num_genes = pc.list_value_length(part["genes"]).to_numpy()
    columns: dict[str, Column] = {
        name: np.array(part[name].fill_null("").to_pylist(), dtype=np.object_) for name in LABELS
    }
    columns |= {name: part[name].to_numpy() for name in NUMBERS}
    return columns | {
        "num_genes": num_genes,
        # Genes whose place is so far down that the line is not above 0: not in X.
        "num_below_zero": num_genes - np.diff(rows.indptr),
        "is_truncated": part["is_truncated"].to_numpy(),
    }


@dataclass
class _Tally:
    """Sums over the cells of one condition."""

    sums: dict[str, int] = field(default_factory=dict)
    num_cells: int = 0
    num_empty: int = 0
    sentences: set[int] = field(default_factory=set)

    def counts(self) -> ConditionCounts:
        """What the sums say."""
        num_words = max(1, self.sums["num_words"])
        return ConditionCounts(
            num_cells=self.num_cells,
            num_distinct=len(self.sentences),
            num_empty=self.num_empty,
            num_truncated=self.sums["is_truncated"],
            genes_mean=self.sums["num_genes"] / self.num_cells,
            duplicate_rate=self.sums["num_duplicates"] / num_words,
            unknown_rate=self.sums["num_unknown"] / num_words,
        )


def _count(tallies: dict[str, _Tally], part: pa.Table, columns: dict[str, Column]) -> None:
    genes = part["genes"].to_pylist()
    for name in dict.fromkeys(part["condition"].to_pylist()):
        tally = tallies.setdefault(name, _Tally())
        is_here = columns["condition"] == name
        for column in (*NUMBERS, "num_genes", "is_truncated"):
            tally.sums[column] = tally.sums.get(column, 0) + int(columns[column][is_here].sum())
        tally.num_cells += int(np.count_nonzero(is_here))
        tally.num_empty += int(np.count_nonzero(columns["num_genes"][is_here] == 0))
        # Only whether two sentences are the same is asked, which a hash of their genes tells.
        tally.sentences |= {hash(tuple(genes[row])) for row in np.flatnonzero(is_here).tolist()}


def _uns(manifest: CellManifest, facts: dict[str, JsonValue]) -> dict[str, UnsValue]:
    """Say where the numbers come from; scanpy reads `log1p`."""
    model = manifest.rank_model
    about: dict[str, UnsValue] = {
        "rank_model": {
            "form": model.form.value,
            "slope": model.slope,
            "intercept": model.intercept,
            "r2": model.r2,
        },
        "unit": manifest.normalisation,
        "organism": manifest.organism,
        "made_from": json.dumps(facts),
    }
    uns: dict[str, UnsValue] = {"c2s_rl": about}
    if manifest.normalisation.startswith(("log1p", "log10")):
        uns["log1p"] = {"base": 10.0} if manifest.normalisation.startswith("log10") else {}
    return uns


def _add_text_column(file: h5py.File, name: str, num_rows: int) -> h5py.Dataset:
    """Add an obs column of texts that is filled later."""
    column = file["obs"].create_dataset(name, (num_rows,), dtype=h5py.string_dtype())
    column.attrs.update(TEXT_ATTRIBUTES)
    order = np.array([*file["obs"].attrs["column-order"], name], dtype=object)
    file["obs"].attrs.create("column-order", order, dtype=h5py.string_dtype())
    return column
