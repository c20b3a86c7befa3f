"""The work folder of a conversion: what is done already, and what workers must know.

    .cells.work/key              what the work depends on: config, files, version
    .cells.work/plan.json        sources, genes and columns, for workers
    .cells.work/scratch/         turned and spooled copies of sources
    .cells.work/surveys/         a file a part: counts for quality control and variable genes
    .cells.work/parts/           a Parquet file a part; becomes the output
    .cells.work/records/         a file a part: hash of its Parquet file, counts, sums

It lies beside the output, on storage that all workers see. A record appears whole, after its part:
a conversion that was killed goes on after the parts that have one. What the files hold is said in
`convert_part.py` and `convert_survey.py`.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import numpy as np
import numpy.typing as npt
from pydantic import Field

from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.checkpoint import replace_text
from c2s_rl.config import FrozenConfig
from c2s_rl.data.source_config import SourceConfig
from c2s_rl.pipeline.convert_config import ConvertConfig

Arrays = Mapping[str, npt.NDArray[np.generic]]

# Cells of a file that become one part: at 2,000 genes a cell 30 MB, a fifth of a second.
PART_ROWS = 8_192


class PlannedSource(FrozenConfig):
    """One file, as workers open it."""

    config: SourceConfig = Field(description="With the obs columns that this file has.")
    dataset: str = Field(description="Its name among several files; '' where it is the only.")
    num_rows: int = Field(description="Cells of the file.")
    first_part: int = Field(description="Index of its first part.")

    def cell_id(self, name: str) -> str:
        """Return the id that a cell of the file has in the shards."""
        return f"{self.dataset}/{name}" if self.dataset else name


class Plan(FrozenConfig):
    """What every worker must know; tasks are pieces of it."""

    config: ConvertConfig = Field(description="As the user gave it.")
    sources: tuple[PlannedSource, ...] = Field(description="The files, in order.")
    symbols: tuple[str, ...] = Field(description="[N] genes that are ranked, as written.")
    original: tuple[str, ...] = Field(description="[N] the same genes as the files spell them.")
    obs_columns: tuple[str, ...] = Field(description="Obs columns of the shards.")

    @property
    def vocabulary(self) -> Vocabulary:
        """Genes that are ranked."""
        return Vocabulary(self.symbols, self.original)


@dataclass(frozen=True)
class PartTask:
    """Some consecutive cells of one file, which become one part."""

    index: int
    """Of the part, over all files."""
    source: int
    """Which file of the plan."""
    start: int
    """First row."""
    stop: int
    """One past the last row."""


def tasks_of(sources: Sequence[PlannedSource]) -> list[PartTask]:
    """Cut files into parts of a fixed number of rows."""
    return [
        PartTask(source.first_part + i, number, start, min(start + PART_ROWS, source.num_rows))
        for number, source in enumerate(sources)
        for i, start in enumerate(range(0, source.num_rows, PART_ROWS))
    ]


class WorkFolder:
    """Paths and whole files of one conversion."""

    def __init__(self, path: Path) -> None:
        """Take the folder."""
        self.path = path
        self.scratch = path / "scratch"
        self.parts = path / "parts"

    @classmethod
    def beside(cls, output: Path) -> "WorkFolder":
        """Return the work folder of an output."""
        return cls(output.with_name(f".{output.name}.work"))

    def begin(self, key: str) -> None:
        """Go on with what the same work left, or start anew.

        Args:
            key: Everything that the output depends on; what another key left is removed.
        """
        key_file = self.path / "key"
        if not key_file.is_file() or key_file.read_text(encoding="utf-8") != key:
            self.remove()
        for name in ("scratch", "surveys", "parts", "records"):
            (self.path / name).mkdir(parents=True, exist_ok=True)
            for leftover in (self.path / name).glob(".*.partial-*"):
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        replace_text(key_file, key)

    def remove(self) -> None:
        """Delete everything."""
        shutil.rmtree(self.path, ignore_errors=True)

    def write_plan(self, plan: Plan) -> None:
        """Leave the plan for workers."""
        replace_text(self.path / "plan.json", plan.model_dump_json())

    def read_plan(self) -> Plan:
        """Read the plan."""
        return Plan.model_validate_json((self.path / "plan.json").read_bytes())

    def survey_path(self, index: int) -> Path:
        """Where the survey of a part is."""
        return self.path / "surveys" / f"part-{index:05d}.npz"

    def record_path(self, index: int) -> Path:
        """Where the record of a part is."""
        return self.path / "records" / f"part-{index:05d}.npz"

    def part_path(self, index: int) -> Path:
        """Where the cells of a part are; not there if none was kept."""
        return self.parts / f"part-{index:05d}.parquet"


def write_arrays(path: Path, arrays: Arrays) -> None:
    """Write named arrays to one file, which is whole or not there."""
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}-{uuid4().hex[:8]}")
    with partial.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    partial.replace(path)
