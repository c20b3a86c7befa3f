"""Expression matrices to cell shards: normalise, rank and write every cell of one or more files.

    c2s-rl convert --config FILE        (section `convert`)

Files of any known format are cut into parts of a fixed number of cells, which workers convert one
by one, so memory does not grow with the number of cells, and neither the number of workers nor the
rows they read at a time changes a byte. A conversion that was killed goes on where it was. With
quality control or variable genes a first pass counts the genes. What is left out: batch correction
and other changes of the values; a cell sentence is of the cell as measured.
"""

import logging
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress

from c2s_rl.checkpoint import clean_leftovers, place_folder, require_replaceable
from c2s_rl.data.gene_stats import GeneSurvey, choose_genes
from c2s_rl.data.shards import CellManifest, write_manifest
from c2s_rl.errors import ConfigError, DataError, MissingFileError
from c2s_rl.pipeline.convert_config import ConvertConfig, TieBreak
from c2s_rl.pipeline.convert_manifest import GenesLeftOut, add_up, make_manifest
from c2s_rl.pipeline.convert_part import PartWorker, finished_part
from c2s_rl.pipeline.convert_plan import (
    PlannedWork,
    make_plan,
    program_genes,
    with_genes,
    work_key,
)
from c2s_rl.pipeline.convert_source import READ_ROWS
from c2s_rl.pipeline.convert_survey import SurveyWorker, load_survey
from c2s_rl.pipeline.convert_work import PartTask, WorkFolder, tasks_of
from c2s_rl.pipeline.convert_workers import Executor, InThreads, in_order
from c2s_rl.pipeline.source_hashes import SourceHashes

__all__ = ["ConvertConfig", "run"]

log = logging.getLogger(__name__)


def run(
    config: ConvertConfig,
    output: Path,
    *,
    executor: Executor | None = None,
    rows_at_once: int = READ_ROWS,
) -> CellManifest:
    """Convert files to a folder of cell shards.

    Args:
        config: What to read and how.
        output: Folder for the shards; an earlier output there is replaced as a whole.
        executor: Who does the work; None takes threads of this process.
        rows_at_once: Rows read at a time; changes memory, never the result.

    Raises:
        ConfigError: If a path names an environment variable that is not set.
        MissingFileError: If a file is not there.
        DataError: If a file is damaged or holds something other than expression, or a cell id
            repeats.
        StageError: If `output` holds files that are not an earlier output.
    """
    require_replaceable(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    clean_leftovers(output.parent, output.name)
    work = WorkFolder.beside(output)
    try:
        return _Conversion(config, work, executor, rows_at_once).run(output)
    except (ConfigError, DataError, MissingFileError):
        work.remove()  # nothing of it can be used again
        raise


class _Conversion:
    """The driver: plans, lets workers work, puts together what they leave."""

    def __init__(
        self, config: ConvertConfig, work: WorkFolder, executor: Executor | None, rows_at_once: int
    ) -> None:
        self._config = config
        self._work = work
        self._executor = executor or InThreads(config.workers.num_threads)
        if config.tie_break is TieBreak.C2S:
            # The package shuffles cell after cell with one generator.
            self._executor = in_order
        self._rows_at_once = rows_at_once

    def run(self, output: Path) -> CellManifest:
        work = self._work
        work.begin(work_key(self._config))
        planned = make_plan(self._config, work.scratch)
        tasks = tasks_of(planned.plan.sources)
        with SourceHashes(self._config) as hashes:
            planned, left_out = self._choose_genes(planned, tasks)
            work.write_plan(planned.plan)
            waiting = [task for task in tasks if finished_part(work, task.index) is None]
            self._do(PartWorker, waiting, tasks, "convert")
            totals = add_up(work, tasks, planned)
            manifest = make_manifest(planned, totals, hashes.result(), left_out)
        for number, fact in enumerate(planned.facts):
            if fact.symbols is not None:
                dataset = planned.plan.sources[number].dataset
                name = f"symbols-{dataset}.tsv" if dataset else "symbols.tsv"
                fact.symbols.write(work.parts / name)
        write_manifest(work.parts, manifest)
        place_folder(work.parts, output, totals.files)
        work.remove()
        return manifest

    def _choose_genes(
        self, planned: PlannedWork, tasks: Sequence[PartTask]
    ) -> tuple[PlannedWork, GenesLeftOut]:
        """Keep the genes of programs, and those that quality control and variability choose."""
        config, plan = self._config, planned.plan
        kept = program_genes(config, plan.vocabulary)
        if config.qc is None and config.variable_genes is None:
            return with_genes(planned, kept), GenesLeftOut()
        self._work.write_plan(plan)
        waiting = [t for t in tasks if not self._work.survey_path(t.index).is_file()]
        self._do(SurveyWorker, waiting, tasks, "count genes")
        survey = self._survey(tasks)
        choose = partial(choose_genes, survey, config.qc, symbols=plan.symbols, place=planned.place)
        after_qc, chosen = choose(variable_genes=None), choose(variable_genes=config.variable_genes)
        left_out = GenesLeftOut(len(plan.symbols) - len(after_qc), len(after_qc) - len(chosen))
        kept = np.intersect1d(kept, chosen)
        if not len(kept):
            raise DataError(
                f"qc and variable_genes must leave a gene of {list(config.genes)}, got none of "
                f"{len(chosen)} in {planned.place}"
            )
        return with_genes(planned, kept), left_out

    def _survey(self, tasks: Sequence[PartTask]) -> GeneSurvey:
        surveys = (load_survey(self._work.survey_path(task.index)) for task in tasks)
        total = next(surveys)
        for survey in surveys:
            total += survey
        return total

    def _do(
        self,
        worker: type[PartWorker] | type[SurveyWorker],
        waiting: Sequence[PartTask],
        tasks: Sequence[PartTask],
        what: str,
    ) -> None:
        """Let workers do what is not done, and show how far they are."""
        if len(waiting) < len(tasks):
            log.info("%s: %d of %d parts are there", what, len(tasks) - len(waiting), len(tasks))
        make_worker = partial(worker, self._work.path, rows_at_once=self._rows_at_once)
        done = self._executor(make_worker, waiting)
        num_rows = sum(task.stop - task.start for task in waiting)
        for _ in _with_progress(done, what, num_rows):
            pass


def _with_progress(done: Iterator[int], what: str, num_rows: int) -> Iterator[int]:
    """Show a bar where somebody watches."""
    if not sys.stderr.isatty():
        yield from done
        return
    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task(what, total=num_rows)
        for rows in done:
            progress.advance(bar, rows)
            yield rows
