"""Real and predicted cells as AnnData files that cell-eval reads as they are.

    real.h5ad             held-out cells of the evaluated conditions, and their controls
    pred_<policy>.h5ad    the policy's answers, and the same controls

Both sides are read from sentences of one length: X is log1p(CP10k) by rank, so that a policy is not
charged for what a sentence cannot say. obs `target_gene` is the perturbation (with its exposure),
`non-targeting` for controls; `celltype` the cell type. cell-eval compares within a file, whatever
the cell type: give it `--celltype-col celltype` where there are several.

Left out: cells of training, and prompts without a control cell, which cell-eval cannot compare.

Shape suffixes: C cells, V vocabulary, P prompts, K genes of one cell.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from c2s_rl.cells.sentence import sentence_to_expression
from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.errors import StageError
from c2s_rl.evaluation.cell_metrics import Yardstick
from c2s_rl.evaluation.real_cells import RealCells
from c2s_rl.types import Group, IntArray, PromptRecord, Split

CONTROL_LABEL = "non-targeting"  # cell-eval's default for `control_pert`
REAL_FILE = "real.h5ad"


@dataclass(frozen=True)
class ExportColumns:
    """obs columns of the cell shards that make a condition."""

    cell_type: str | None
    perturbation: str | None
    exposure: str | None

    @property
    def names(self) -> tuple[str, ...]:
        """Those that there are."""
        named = (self.cell_type, self.perturbation, self.exposure)
        return tuple(column for column in named if column is not None)


@dataclass(frozen=True)
class _ExportedCell:
    """One row of a file."""

    name: str
    genes_K: IntArray
    target_gene: str
    cell_type: str
    condition: str
    tier: str


def export_cells(
    folder: Path,
    groups_by_policy: Mapping[str, Sequence[Group]],
    real: RealCells,
    yardstick: Yardstick,
    columns: ExportColumns,
    vocabulary: Vocabulary,
) -> list[Path]:
    """Write real.h5ad and one file a policy.

    Args:
        folder: Created; files of the same names are replaced.
        groups_by_policy: Policy to its answers to the held-out prompts.
        real: Measured cells; its obs holds `columns`.
        yardstick: Cut and rank model.
        columns: What makes a condition.
        vocabulary: Gene symbols, the var names.

    Returns:
        The files, real.h5ad first.

    Raises:
        StageError: If the prompts have no control cells, or two policies would share a file.
    """
    records = [group.record for group in next(iter(groups_by_policy.values()))]
    tier_of = {record.condition: record.tier for record in records}
    controls = _rows_of(real.control_rows[Split.TEST], tier_of)
    if columns.perturbation is None or not controls:
        raise StageError(
            "an export for cell-eval needs held-out prompts with control cells, got none; "
            "set evaluate.export to false"
        )
    files = {name: _file_of(name) for name in groups_by_policy}
    if len(set(files.values())) < len(files):
        raise StageError(f"policies must have file names of their own, got {sorted(files)}")
    labeller = _Labeller(real, columns, tier_of)
    shared = [labeller.real(row, condition, CONTROL_LABEL) for row, condition in controls.items()]
    targets = _rows_of(real.target_rows[Split.TEST], tier_of)
    content = {REAL_FILE: [labeller.real(row, condition) for row, condition in targets.items()]}
    content |= {files[name]: labeller.answers(groups) for name, groups in groups_by_policy.items()}
    folder.mkdir(parents=True, exist_ok=True)
    for file, cells in content.items():
        _write(folder / file, [*cells, *shared], yardstick, vocabulary)
    return [folder / file for file in content]


def _file_of(policy: str) -> str:
    """File name of a policy's cells; whatever a file system may not like becomes '_'."""
    safe = re.sub(r"[^\w.-]+", "_", policy)
    return f"pred_{safe}.h5ad"


def _rows_of(
    rows_by_condition: Mapping[str, Sequence[int]], wanted: Mapping[str, str]
) -> dict[int, str]:
    """Row to its condition; a control that several conditions share is listed once."""
    return {
        row: condition
        for condition, rows in rows_by_condition.items()
        if condition in wanted
        for row in rows
    }


class _Labeller:
    """Turns real cells and answers into labelled rows."""

    def __init__(self, real: RealCells, columns: ExportColumns, tier_of: Mapping[str, str]) -> None:
        self._real = real
        self._columns = columns
        self._tier_of = tier_of

    def real(self, row: int, condition: str, target_gene: str | None = None) -> _ExportedCell:
        """Label a measured cell; its perturbation is its own unless one is given."""
        return _ExportedCell(
            name=self._real.cells.cell_ids[row],
            genes_K=self._real.cells.genes_of(row),
            target_gene=target_gene or self._treatment(row),
            cell_type=self._label(row, self._columns.cell_type),
            condition=condition,
            tier=self._tier_of[condition],
        )

    def answers(self, groups: Sequence[Group]) -> list[_ExportedCell]:
        """Label a policy's answers by the cell that each prompt is paired with."""
        return [
            self._answer(group.record, number, cell.genes_K)
            for group in groups
            for number, cell in enumerate(group.cells_G)
        ]

    def _answer(self, record: PromptRecord, number: int, genes_K: IntArray) -> _ExportedCell:
        row = self._real.row_of[record.target_id]
        return _ExportedCell(
            name=f"{record.prompt_id}#{number}",
            genes_K=genes_K,
            target_gene=self._treatment(row),
            cell_type=self._label(row, self._columns.cell_type),
            condition=record.condition,
            tier=record.tier,
        )

    def _treatment(self, row: int) -> str:
        parts = (self._columns.perturbation, self._columns.exposure)
        return ", ".join(label for part in parts if (label := self._label(row, part)))

    def _label(self, row: int, column: str | None) -> str:
        return "" if column is None else str(self._real.cells.obs[column][row])


def _write(
    path: Path, cells: Sequence[_ExportedCell], yardstick: Yardstick, vocabulary: Vocabulary
) -> None:
    """Write aside and rename, so that a kill leaves the old file or the new one."""
    import anndata
    import pandas as pd
    from scipy import sparse

    expression_C_V = np.stack(
        [
            sentence_to_expression(
                cell.genes_K[: yardstick.num_genes], yardstick.rank_model, len(vocabulary)
            )
            for cell in cells
        ]
    )
    obs = pd.DataFrame(
        {
            "target_gene": pd.Categorical([cell.target_gene for cell in cells]),
            "celltype": pd.Categorical([cell.cell_type for cell in cells]),
            "condition": pd.Categorical([cell.condition for cell in cells]),
            "tier": pd.Categorical([cell.tier for cell in cells]),
        },
        index=pd.Index([cell.name for cell in cells], name="cell"),
    )
    adata = anndata.AnnData(
        # cell-eval looks for csr_matrix by type: the newer csr_array is taken for a dense one.
        sparse.csr_matrix(expression_C_V),
        obs=obs,
        var=pd.DataFrame(index=pd.Index(vocabulary.symbols, name="symbol")),
        uns={"expression": f"log1p(CP10k) by rank, {yardstick.num_genes} genes a cell"},
    )
    partial = path.with_name(f".{path.name}.partial")
    adata.write_h5ad(partial, compression="gzip")
    partial.replace(path)
