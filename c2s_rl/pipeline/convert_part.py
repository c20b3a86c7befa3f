"""What a worker of `convert` does: the cells of one part, from their file to Parquet and a record.

The record is what the manifest needs to know of the part: hash and size of its file, what was
counted, the sums of the rank model, a hash of every cell id. All of it is whole numbers, so that
the sum over the parts does not depend on their order.

Shapes: C cells.
"""

import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from c2s_rl.cells.rank import UIntArray, stable_hashes
from c2s_rl.cells.rank_c2s import C2SRanker
from c2s_rl.cells.rank_counts import RankedInto
from c2s_rl.cells.rank_model import RankSums
from c2s_rl.checkpoint import FileHash, hash_file
from c2s_rl.data.cell_table import CellBuffer, CellTable
from c2s_rl.data.h5ad_matrix import CsrChunk
from c2s_rl.data.part_file import write_part
from c2s_rl.data.values import ValueFlags
from c2s_rl.pipeline.convert_config import TieBreak
from c2s_rl.pipeline.convert_rank import ChunkRanker, Dropped
from c2s_rl.pipeline.convert_source import READ_ROWS, OpenSource, SourceReader
from c2s_rl.pipeline.convert_work import Arrays, PartTask, WorkFolder, write_arrays

log = logging.getLogger(__name__)

# Rows of the file whose cells make a row group: about 16 MB of 1,000 genes a cell.
GROUP_ROWS = 2_048

EMPTY_SUMS = RankSums(*(np.zeros(0, dtype=np.int64) for _ in range(3)))


@dataclass(frozen=True, eq=False)
class PartRecord:
    """What is known of a part that is done."""

    num_rows: int
    """Rows of the file."""
    num_cells: int
    """Cells that were kept."""
    dropped: Dropped
    num_missing: dict[str, int]
    """Kept cells without a label, by obs column."""
    flags: ValueFlags
    file: FileHash | None
    """Of the Parquet file; None where no cell was kept."""
    sums: RankSums
    id_hashes: UIntArray
    """[rows] hash of each cell id, rising; kept cells or not."""
    c2s_state: npt.NDArray[np.uint32]
    """State of the package's shuffling after the part; empty where it does not matter."""

    def save(self, path: Path) -> None:
        """Write the record; it is whole or not there."""
        facts = {
            "num_rows": self.num_rows,
            "num_cells": self.num_cells,
            "dropped": asdict(self.dropped),
            "num_missing": self.num_missing,
            "flags": asdict(self.flags),
            "file": None if self.file is None else asdict(self.file),
        }
        arrays: Arrays = {
            "facts": np.frombuffer(json.dumps(facts).encode(), dtype=np.uint8),
            "id_hashes": self.id_hashes,
            "c2s_state": self.c2s_state,
            "counts_R": self.sums.counts_R,
            "values_R": self.sums.values_R,
            "squares_R": self.sums.squares_R,
        }
        write_arrays(path, arrays)

    @classmethod
    def load(cls, path: Path) -> "PartRecord":
        """Read a record."""
        with np.load(path) as arrays:
            facts = json.loads(arrays["facts"].tobytes())
            return cls(
                num_rows=facts["num_rows"],
                num_cells=facts["num_cells"],
                dropped=Dropped(**facts["dropped"]),
                num_missing=facts["num_missing"],
                flags=ValueFlags(**facts["flags"]),
                file=None if facts["file"] is None else FileHash(**facts["file"]),
                sums=RankSums(arrays["counts_R"], arrays["values_R"], arrays["squares_R"]),
                id_hashes=arrays["id_hashes"],
                c2s_state=arrays["c2s_state"],
            )


def finished_part(work: WorkFolder, index: int) -> PartRecord | None:
    """Return the record of a part if it is done and its file is what was written."""
    path = work.record_path(index)
    if not path.is_file():
        return None
    record, part = PartRecord.load(path), work.part_path(index)
    found = hash_file(part) if part.is_file() else None
    if found != record.file:
        log.warning("converting part %d again: its file is not what its record says", index)
        return None
    return record


@lru_cache(maxsize=1)  # for all the threads of a process
def gene_hashes(symbols: tuple[str, ...], seed: int) -> UIntArray:
    """Return [N] `stable_hash` of each symbol."""
    return stable_hashes(symbols, seed)


class PartWorker:
    """Converts parts; makes one of itself in every thread or process that takes part."""

    def __init__(self, folder: Path, *, rows_at_once: int = READ_ROWS) -> None:
        """Read the plan.

        Args:
            folder: The work folder.
            rows_at_once: Rows read at a time; changes memory, never the result.
        """
        self._work = WorkFolder(folder)
        self._rows_at_once = rows_at_once
        self._plan = self._work.read_plan()
        self._reader = SourceReader(self._plan, self._work.scratch)
        self._gene_hashes = gene_hashes(self._plan.symbols, self._plan.config.seed)
        self._buffer = CellBuffer(has_values=self._plan.config.write_values)

    def __call__(self, task: PartTask) -> int:
        """Convert one part; returns the rows that are done.

        Raises:
            DataError: If the file is damaged or holds something other than expression.
        """
        source = self._reader.source(task.source)
        converter = _PartConverter(
            source, self._ranker(source, task), self._buffer, seed=self._plan.config.seed
        )
        path = self._work.part_path(task.index)
        partial = path.with_name(f".{path.name}.partial")
        num_cells = write_part(
            partial,
            converter.groups(task, self._rows_at_once),
            source_file=source.cells.path.name,
            has_values=self._plan.config.write_values,
        )
        if num_cells:
            partial.replace(path)
        converter.record(hash_file(path) if num_cells else None).save(
            self._work.record_path(task.index)
        )
        return task.stop - task.start

    def close(self) -> None:
        """Close the file that is open."""
        self._reader.close()

    def _ranker(self, source: OpenSource, task: PartTask) -> ChunkRanker:
        config, c2s = self._plan.config, None
        if config.tie_break is TieBreak.C2S:
            c2s = C2SRanker(config.seed)
            if task.start > 0:
                former = PartRecord.load(self._work.record_path(task.index - 1))
                c2s.set_state(former.c2s_state)
        values = source.planned.config.values
        return ChunkRanker(config, values, source.genes, gene_hashes=self._gene_hashes, c2s=c2s)


class _PartConverter:
    """Chunks of one part to tables of cells, counting on the way."""

    def __init__(
        self, source: OpenSource, ranker: ChunkRanker, buffer: CellBuffer, *, seed: int
    ) -> None:
        self._source = source
        self._ranker = ranker
        self._buffer = buffer
        self._seed = seed
        self._checker = source.checker()
        self._dropped = Dropped()
        self._num_missing = dict.fromkeys(source.obs_columns, 0)
        self._num_cells = 0
        self._hashes: list[UIntArray] = []

    def groups(self, task: PartTask, rows_at_once: int) -> Iterator[CellTable]:
        """Read the part; one table a row group, which holds until the next."""
        for start in range(task.start, task.stop, GROUP_ROWS):
            stop = min(start + GROUP_ROWS, task.stop)
            for chunk in self._source.chunks(start, stop, rows_at_once):
                self._add(chunk)
            group = self._buffer.taken()
            self._num_cells += len(group)
            yield group

    def record(self, file: FileHash | None) -> PartRecord:
        """Return what was counted."""
        id_hashes = np.sort(np.concatenate(self._hashes))
        return PartRecord(
            num_rows=len(id_hashes),
            num_cells=self._num_cells,
            dropped=self._dropped,
            num_missing=self._num_missing,
            flags=self._checker.flags,
            file=file,
            sums=self._ranker.sums,
            id_hashes=id_hashes,
            c2s_state=self._ranker.c2s_state,
        )

    def _add(self, chunk: CsrChunk) -> None:
        """Check and rank one chunk; cells with too little in them are left out."""
        self._checker.check(chunk)
        start, stop = chunk.start, chunk.start + len(chunk.indptr) - 1
        ids = self._source.cell_ids(start, stop)
        cell_hashes = stable_hashes(ids, self._seed)
        self._hashes.append(cell_hashes)
        into = RankedInto(*self._buffer.room(len(chunk.columns)))
        result = self._ranker.rank(chunk, cell_hashes, into)
        self._dropped += result.dropped
        rows = np.flatnonzero(result.is_kept)
        obs = {n: self._source.labels(n, start, stop)[rows] for n in self._source.obs_columns}
        for name, labels in obs.items():
            self._num_missing[name] += int(np.count_nonzero(labels == ""))
        self._buffer.add(
            tuple(ids) if len(rows) == len(ids) else tuple(ids[row] for row in rows),
            result.lengths,
            obs=obs,
            source_rows=start + rows,
        )
