"""The end of `convert`: what the parts left is added up, checked as a whole and described.

Only the whole can show that cell ids repeat and that logarithms are none. Records are read one at a
time, so nothing here grows with the number of cells.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from c2s_rl.cells.rank import UIntArray, stable_hashes
from c2s_rl.cells.rank_model import RankForm, RankSums, fit_rank_sums
from c2s_rl.cells.vocabulary import shown
from c2s_rl.checkpoint import FileHash, sha256_of
from c2s_rl.config import expand_variables
from c2s_rl.data.id_hashes import repeated_hashes, repeated_ids
from c2s_rl.data.shards import CellManifest, SourceRecord
from c2s_rl.data.text_column import HeldNames
from c2s_rl.data.values import ValueChecker, ValueFlags
from c2s_rl.errors import DataError
from c2s_rl.pipeline.convert_config import RankFormChoice
from c2s_rl.pipeline.convert_inputs import program_paths, source_name
from c2s_rl.pipeline.convert_part import EMPTY_SUMS, PartRecord
from c2s_rl.pipeline.convert_plan import PlannedWork
from c2s_rl.pipeline.convert_rank import FLOOR_UNIT, Dropped
from c2s_rl.pipeline.convert_source import SourceReader
from c2s_rl.pipeline.convert_work import PartTask, WorkFolder


@dataclass(frozen=True)
class GenesLeftOut:
    """Genes of the files that were not ranked."""

    qc: int = 0
    """In too few cells."""
    variable_genes: int = 0
    """Not variable enough."""


@dataclass
class Totals:
    """Sums over all parts."""

    num_rows: int = 0
    cells_of_source: list[int] = field(default_factory=list)
    """Cells kept, by file."""
    flags_of_source: list[ValueFlags] = field(default_factory=list)
    """What was met among the values, by file."""
    dropped: Dropped = field(default_factory=Dropped)
    num_missing: dict[str, int] = field(default_factory=dict)
    """Cells without a label, by obs column."""
    sums: RankSums = EMPTY_SUMS
    files: dict[str, FileHash] = field(default_factory=dict)
    """Parquet files, in order."""

    def add(self, record: PartRecord, task: PartTask, path: Path) -> None:
        """Add a part that is done."""
        self.num_rows += record.num_rows
        self.cells_of_source[task.source] += record.num_cells
        self.flags_of_source[task.source] |= record.flags
        self.dropped += record.dropped
        for name, num in record.num_missing.items():
            self.num_missing[name] += num
        self.sums += record.sums
        if record.file is not None:
            self.files[path.name] = record.file


def add_up(work: WorkFolder, tasks: Sequence[PartTask], planned: PlannedWork) -> Totals:
    """Read the record of every part.

    Raises:
        DataError: If a cell id repeats, no cell was kept, or values are not what they are said to
            be.
    """
    plan = planned.plan
    totals = Totals(
        cells_of_source=[0] * len(plan.sources),
        flags_of_source=[ValueFlags()] * len(plan.sources),
        num_missing=dict.fromkeys(plan.obs_columns, 0),
    )
    for task in tasks:
        record = PartRecord.load(work.record_path(task.index))
        totals.add(record, task, work.part_path(task.index))
    _require_unique_ids(work, tasks, planned, totals.num_rows)
    for source, fact, flags in zip(
        plan.sources, planned.facts, totals.flags_of_source, strict=True
    ):
        ValueChecker(
            source.config.values,
            place=fact.place,
            alternatives=fact.alternatives,
            cell_ids=HeldNames(()),
            var_names=(),
        ).finish(flags)
    if not totals.files:
        see = "min_genes" if plan.config.qc is None else "min_genes and qc"
        raise DataError(
            f"a data set must keep at least one cell, got none from {planned.place}; see {see}"
        )
    return totals


def make_manifest(
    planned: PlannedWork, totals: Totals, source_hashes: Sequence[str], left_out: GenesLeftOut
) -> CellManifest:
    """Describe a conversion.

    Raises:
        DataError: If no cell has an expressed gene.
    """
    plan, config, dropped = planned.plan, planned.plan.config, totals.dropped
    models = {form: fit_rank_sums(totals.sums, form=form) for form in RankForm}
    if config.rank_form is RankFormChoice.AUTO:
        model = max(models.values(), key=lambda model: model.r2)
    else:
        model = models[RankForm(config.rank_form.value)]
    return CellManifest(
        symbols=plan.symbols,
        original=plan.original,
        organism=config.organism,
        normalisation=config.scale.unit(plan.sources[0].config.values),
        rank_model=model,
        rank_form_r2={form: fitted.r2 for form, fitted in models.items()},
        mean_floor=dropped.floor_units * FLOOR_UNIT / max(totals.num_rows, 1),
        num_cells=sum(totals.cells_of_source),
        num_dropped_empty=dropped.empty,
        num_dropped_qc=dropped.failed_qc,
        num_dropped_min_genes=dropped.min_genes,
        num_dropped_genes=dropped.genes,
        num_explicit_zeros=dropped.explicit_zeros,
        num_dropped_qc_genes=left_out.qc,
        num_dropped_variable_genes=left_out.variable_genes,
        genes=config.genes,
        gene_files_sha256=_hashes_of_files(program_paths(config)),
        obs_columns=plan.obs_columns,
        num_missing_obs=totals.num_missing,
        sources=tuple(
            _source_record(planned, number, num_cells, source_hashes[number])
            for number, num_cells in enumerate(totals.cells_of_source)
        ),
        join=config.join,
        scale=config.scale,
        qc=config.qc,
        variable_genes=config.variable_genes,
        has_values=config.write_values,
        gene_case=config.gene_case,
        duplicates=config.duplicates,
        min_genes=config.min_genes,
        max_genes=config.max_genes,
        tie_break=config.tie_break,
        seed=config.seed,
        parts=tuple(totals.files),
    )


def _source_record(planned: PlannedWork, number: int, num_cells: int, sha256: str) -> SourceRecord:
    source, fact = planned.plan.sources[number], planned.facts[number]
    config = planned.plan.config.sources[number]  # with paths as the user wrote them
    report = fact.symbols
    return SourceRecord(
        dataset=source.dataset,
        path=source_name(config),
        sha256=sha256,
        tables_sha256=_hashes_of_files(config.table_paths),
        matrix=config.matrix,
        values=config.values,
        num_rows=source.num_rows,
        num_cells=num_cells,
        num_unnamed_genes=fact.num_unnamed_genes,
        num_duplicate_columns=fact.num_duplicate_columns,
        num_left_out=fact.num_left_out,
        symbols={} if report is None else {how.value: num for how, num in report.counts.items()},
    )


def _hashes_of_files(paths: Sequence[str]) -> dict[str, str]:
    """Hash small files beside the cells; by their names, with variables."""
    return {path: sha256_of(Path(expand_variables(path))) for path in paths}


def _require_unique_ids(
    work: WorkFolder, tasks: Sequence[PartTask], planned: PlannedWork, num_ids: int
) -> None:
    read = partial(_hashes_of, work, tasks)
    suspected = repeated_hashes(len(tasks), num_ids, read)
    if not len(suspected):
        return
    hit = [task for i, task in enumerate(tasks) if np.isin(read(i), suspected).any()]
    repeated = repeated_ids(suspected, _ids_of(work, hit, planned))
    if repeated:
        raise DataError(
            f"cell ids must be unique, got {shown(repeated)} more than once in {planned.place}"
        )


def _hashes_of(work: WorkFolder, tasks: Sequence[PartTask], number: int) -> UIntArray:
    with np.load(work.record_path(tasks[number].index)) as arrays:
        id_hashes: UIntArray = arrays["id_hashes"]
    return id_hashes


def _ids_of(
    work: WorkFolder, tasks: Sequence[PartTask], planned: PlannedWork
) -> Iterator[tuple[Sequence[str], UIntArray]]:
    """Read the ids of some parts again."""
    reader = SourceReader(planned.plan, work.scratch)
    try:
        for task in tasks:
            ids = reader.source(task.source).cell_ids(task.start, task.stop)
            yield ids, stable_hashes(ids, planned.plan.config.seed)
    finally:
        reader.close()
