"""The first pass of `convert`, made for quality control and variable genes: what each part counts.

Which genes are kept depends on all cells, so they are counted before any cell is ranked. A part's
survey is a file of the work folder and whole numbers, like its record.
"""

import json
from pathlib import Path

import numpy as np

from c2s_rl.data.gene_stats import Flavor, GeneSurvey, SurveyRules, survey_chunk
from c2s_rl.data.h5ad_matrix import CsrChunk
from c2s_rl.data.text_column import TextArray
from c2s_rl.data.values import normalise
from c2s_rl.pipeline.convert_source import READ_ROWS, OpenSource, SourceReader
from c2s_rl.pipeline.convert_work import PartTask, Plan, WorkFolder, write_arrays


class SurveyWorker:
    """Counts the genes of parts; makes one of itself in every thread or process that takes part."""

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

    def __call__(self, task: PartTask) -> int:
        """Survey one part; returns the rows that are done.

        Raises:
            DataError: If the file is damaged or holds something other than expression.
        """
        source = self._reader.source(task.source)
        rules = survey_rules(self._plan, task.source)
        checker = source.checker()
        total: GeneSurvey | None = None
        for chunk in source.chunks(task.start, task.stop, self._rows_at_once):
            checker.check(chunk)
            expression = normalise(chunk, rules.values, source.genes, self._plan.config.scale)
            survey = survey_chunk(chunk, expression, rules, self._batches(source, chunk))
            total = survey if total is None else total + survey
        assert total is not None  # a task has rows
        _save(total, self._work.survey_path(task.index))
        return task.stop - task.start

    def close(self) -> None:
        """Close the file that is open."""
        self._reader.close()

    def _batches(self, source: OpenSource, chunk: CsrChunk) -> TextArray | None:
        config = self._plan.config.variable_genes
        if config is None or config.batch_column is None:
            return None
        stop = chunk.start + len(chunk.indptr) - 1
        return source.labels(config.batch_column, chunk.start, stop)


def survey_rules(plan: Plan, source: int) -> SurveyRules:
    """Return what is the same for all chunks of a file."""
    config = plan.config
    return SurveyRules(
        values=plan.sources[source].config.values,
        num_genes=len(plan.symbols),
        qc=config.qc,
        variable_genes=config.variable_genes,
        log_base=config.scale.log.base,
    )


def load_survey(path: Path) -> GeneSurvey:
    """Read the survey of a part."""
    with np.load(path) as arrays:
        facts = json.loads(arrays["facts"].tobytes())
        return GeneSurvey(
            flavor=None if facts["flavor"] is None else Flavor(facts["flavor"]),
            num_cells_B=facts["num_cells_B"],
            sums_B={
                batch: arrays[f"sums_{number}"] for number, batch in enumerate(facts["num_cells_B"])
            },
            num_failed_cells=facts["num_failed_cells"],
        )


def _save(survey: GeneSurvey, path: Path) -> None:
    facts = {
        "flavor": survey.flavor,
        "num_cells_B": dict(survey.num_cells_B),
        "num_failed_cells": survey.num_failed_cells,
    }
    sums = {
        f"sums_{number}": survey.sums_B[batch] for number, batch in enumerate(survey.num_cells_B)
    }
    write_arrays(path, sums | {"facts": np.frombuffer(json.dumps(facts).encode(), dtype=np.uint8)})
