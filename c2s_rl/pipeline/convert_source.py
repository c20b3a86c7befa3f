"""An open file of a plan, in the eyes of a worker: its chunks, checked, with ids and labels.

Ids get the name of their data set, columns that the file lacks are missing labels, and the columns
of the matrix are named by the genes of the plan.

Shapes: C cells.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from c2s_rl.cells.vocabulary import GeneColumns
from c2s_rl.data.cell_file import CellFile
from c2s_rl.data.h5ad_matrix import CsrChunk
from c2s_rl.data.source import open_source
from c2s_rl.data.text_column import TextArray
from c2s_rl.data.values import ValueChecker
from c2s_rl.pipeline.convert_config import DATASET_COLUMN
from c2s_rl.pipeline.convert_work import Plan, PlannedSource

# 256 cells x 3,000 genes: about 15 MB with all intermediates. More is slower, because fresh pages
# of memory cost about as much as the ranking that fills them.
READ_ROWS = 256


@dataclass(frozen=True, eq=False)
class OpenSource:
    """One file, open."""

    planned: PlannedSource
    cells: CellFile
    genes: GeneColumns
    """Gene of the plan of each column."""
    obs_columns: tuple[str, ...]

    def checker(self) -> ValueChecker:
        """Make a checker of the file's values."""
        return ValueChecker(
            self.planned.config.values,
            place=self.cells.place,
            alternatives=self.cells.alternatives,
            cell_ids=self.cells.cell_ids,
            var_names=self.cells.var_names,
        )

    def chunks(self, start: int, stop: int, num_rows: int) -> Iterator[CsrChunk]:
        """Read rows start..stop-1, `num_rows` at a time or fewer."""
        return self.cells.chunks(num_rows, start, stop)

    def cell_ids(self, start: int, stop: int) -> list[str]:
        """Return the ids of rows start..stop-1, as in the shards."""
        return [
            self.planned.cell_id(name) for name in self.cells.cell_ids.read(start, stop).tolist()
        ]

    def labels(self, name: str, start: int, stop: int) -> TextArray:
        """Return [C] labels of rows start..stop-1 of an obs column of the shards; '' if missing."""
        if name == DATASET_COLUMN and self.planned.dataset:
            return np.full(stop - start, self.planned.dataset)
        column = self.cells.obs.get(name)
        return np.full(stop - start, "") if column is None else column.read(start, stop)


class SourceReader:
    """Keeps the file open that a worker reads last; the next one takes its place."""

    def __init__(self, plan: Plan, scratch: Path) -> None:
        self._plan = plan
        self._scratch = scratch
        self._number: int | None = None
        self._source: OpenSource | None = None
        self._stack = ExitStack()

    def source(self, number: int) -> OpenSource:
        """Open a file of the plan, unless it is open.

        Raises:
            DataError: If it is damaged.
        """
        if self._source is None or number != self._number:
            self.close()
            planned = self._plan.sources[number]
            cells = self._stack.enter_context(open_source(planned.config, self._scratch))
            config = self._plan.config
            columns = cells.gene_columns(gene_case=config.gene_case, duplicates=config.duplicates)
            genes = columns.of(self._plan.vocabulary)
            self._source = OpenSource(planned, cells, genes, self._plan.obs_columns)
            self._number = number
        return self._source

    def close(self) -> None:
        """Close what is open."""
        self._stack.close()
        self._source = None
