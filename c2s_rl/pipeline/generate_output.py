"""Generated cells as AnnData, and what they are like by condition.

X is what the data set's rank model says of each gene's place in the sentence, a part at a time;
names and counts of all cells (about 200 bytes a cell) are held, prompts are not.

Shape suffixes: C cells of a part, N genes of the vocabulary.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from c2s_rl.cells.inverse import RepeatRule, sentences_to_expression
from c2s_rl.checkpoint import replace_text
from c2s_rl.data.parquet_parts import read_parts
from c2s_rl.data.shards import CellManifest

if TYPE_CHECKING:
    import h5py
    import pandas as pd
    from scipy import sparse

GENERATED, COUNTS = "generated.h5ad", "counts.json"
LABELS = ("condition", "cell_type", "perturbation", "control_id")
NUMBERS = ("num_words", "num_genes", "num_duplicates", "num_unknown", "num_below_zero")
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
        facts: What made the cells; goes to uns['c2s_rl'] as JSON.
        rows_per_part: Cells of a part.
        num_cells: Of all parts.

    Returns:
        Counts by condition.
    """
    import h5py
    from anndata.io import sparse_dataset, write_elem

    partial = path.with_name(f".{path.name}.partial")
    tables = [_as_obs(part, manifest) for part in read_parts(parts, rows_per_part, num_cells)]
    obs = _joined(tables)
    _write_frame(partial, obs, manifest, facts)
    with h5py.File(partial, "r+") as file:
        prompts = _add_text_column(file, "prompt", num_cells)
        start = 0
        for part in read_parts(parts, rows_per_part, num_cells):
            rows = _expression(part, manifest)
            if start == 0:
                write_elem(file, "X", rows)
            else:
                sparse_dataset(file["X"]).append(rows)
            prompts[start : start + len(part)] = part["prompt"].to_pylist()
            start += len(part)
    partial.replace(path)
    return _counts(obs)


def _expression(part: pa.Table, manifest: CellManifest) -> "sparse.csr_matrix":
    """[C, N] expression by rank, float32, columns in order."""
    from scipy import sparse

    genes = part["genes"].combine_chunks()
    rows = sentences_to_expression(
        genes.offsets.to_numpy().astype(np.int64),
        genes.flatten().to_numpy(),
        manifest.rank_model,
        num_genes=len(manifest.symbols),
        repeats=RepeatRule.FIRST,
    )
    shape = (len(part), len(manifest.symbols))
    matrix = sparse.csr_matrix((rows.values, rows.genes, rows.indptr), shape=shape)
    matrix.sort_indices()
    return matrix


def _as_obs(part: pa.Table, manifest: CellManifest) -> "pd.DataFrame":
    """Labels and counts of one part, without texts."""
    import pandas as pd

    num_genes = pc.list_value_length(part["genes"]).to_numpy()
    columns: dict[str, object] = {name: part[name].to_pylist() for name in LABELS}
    columns |= {
        name: part[name].to_numpy() for name in ("num_words", "num_duplicates", "num_unknown")
    }
    columns |= {"num_genes": num_genes, "is_truncated": part["is_truncated"].to_numpy()}
    columns["num_below_zero"] = num_genes - np.diff(_expression(part, manifest).indptr)
    # Only whether two sentences are the same is asked, which a hash of the genes tells.
    columns["sentence_hash"] = [hash(tuple(genes)) for genes in part["genes"].to_pylist()]
    return pd.DataFrame(columns, index=pd.Index(part["cell_id"].to_pylist(), dtype=object))


def _joined(tables: list["pd.DataFrame"]) -> "pd.DataFrame":
    import pandas as pd

    obs = pd.concat(tables)
    for name in LABELS:
        obs[name] = pd.Categorical(obs[name])
    return obs


def _write_frame(
    path: Path, obs: "pd.DataFrame", manifest: CellManifest, facts: dict[str, JsonValue]
) -> None:
    """Write everything but X and the prompts."""
    import anndata
    import pandas as pd

    model = manifest.rank_model
    said = facts | {
        "X": f"{manifest.normalisation} by rank",
        "rank_model": {
            "form": model.form.value,
            "slope": model.slope,
            "intercept": model.intercept,
            "r2": model.r2,
        },
        "organism": manifest.organism,
    }
    var = pd.DataFrame(
        {"symbol_in_sentences": list(manifest.symbols)},
        index=pd.Index(manifest.original, dtype=object),
    )
    anndata.AnnData(
        obs=obs[[*LABELS, *NUMBERS, "is_truncated"]], var=var, uns={"c2s_rl": json.dumps(said)}
    ).write_h5ad(path)


def _add_text_column(file: "h5py.File", name: str, num_rows: int) -> "h5py.Dataset":
    """Add an obs column of texts that is filled later."""
    import h5py

    column = file["obs"].create_dataset(name, (num_rows,), dtype=h5py.string_dtype())
    column.attrs.update(TEXT_ATTRIBUTES)
    order = np.array([*file["obs"].attrs["column-order"], name], dtype=object)
    file["obs"].attrs.create("column-order", order, dtype=h5py.string_dtype())
    return column


def _counts(obs: "pd.DataFrame") -> GenerateCounts:
    counts: dict[str, ConditionCounts] = {}
    for condition in dict.fromkeys(obs["condition"]):
        cells = obs[obs["condition"] == condition]
        num_words = max(1, int(cells["num_words"].sum()))
        counts[str(condition)] = ConditionCounts(
            num_cells=len(cells),
            num_distinct=int(cells["sentence_hash"].nunique()),
            num_empty=int((cells["num_genes"] == 0).sum()),
            num_truncated=int(cells["is_truncated"].sum()),
            genes_mean=float(cells["num_genes"].mean()),
            duplicate_rate=float(cells["num_duplicates"].sum() / num_words),
            unknown_rate=float(cells["num_unknown"].sum() / num_words),
        )
    return GenerateCounts(conditions=counts)
