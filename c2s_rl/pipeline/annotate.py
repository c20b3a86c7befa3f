"""Stage annotate: cells in, cell types as a policy names them out.

    c2s-rl annotate --config FILE        (section `annotate`)

    annotate/part-*.parquet    every answer, word for word
    annotate/annotations.h5ad  obs: predicted_cell_type, vote_share, answers, the cells' own labels
    annotate/<file>.h5ad       a copy of the user's file with those columns in obs (option `into`);
                               missing for cells that were not asked about (where, side, QC)
    annotate/scores.json       accuracy, F1 by label and confusion, where the labels are known

Every cell is asked `num_samples` times with the prompt of the task cell_type_annotation; the answer
of the majority is its type. Left out: sampling itself, which is the engines' (`actors/`).
"""

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pydantic import JsonValue

from c2s_rl.cells.rank import IndexArray, stable_hash
from c2s_rl.cells.sentence import write_sentence
from c2s_rl.checkpoint import MANIFEST, replace_text, sha256_of
from c2s_rl.data.cell_groups import matching_rows
from c2s_rl.data.cell_reader import CellReader
from c2s_rl.data.cell_table import CellTable
from c2s_rl.data.h5ad_copy import copy_with_obs, require_free_obs, require_other_name
from c2s_rl.data.parquet_parts import read_parts, write_part
from c2s_rl.data.prompt_cells import cells_shown
from c2s_rl.errors import ConfigError, DataError
from c2s_rl.evaluation.votes import UNKNOWN, AnnotationScore, label_index, score_annotation, vote
from c2s_rl.grpo.roles import RolloutRequest
from c2s_rl.grpo.sampling import SamplingConfig
from c2s_rl.pipeline import convert, resumable
from c2s_rl.pipeline.annotate_config import AnnotateConfig
from c2s_rl.pipeline.ask import CHUNK_PROMPTS, AskFolders, OnProgress, StartEngines, answer_all
from c2s_rl.pipeline.convert import ConvertConfig
from c2s_rl.pipeline.policy_files import policy_sha256
from c2s_rl.prompts.render import TemplateSet, load_templates
from c2s_rl.prompts.tasks import PromptFacts
from c2s_rl.types import Group, IntArray, PromptRecord, Split, Task

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["AnnotateConfig", "run"]

ANNOTATIONS, SCORES, CELLS = "annotations.h5ad", "scores.json", "cells"
TASK = Task.CELL_TYPE_ANNOTATION
NO_GENES: IntArray = np.zeros(0, dtype=np.int32)
# Columns of the results; labels of the cells may not have these names.
PREDICTED, SHARE, NUM_UNKNOWN, ANSWERS = (
    "predicted_cell_type",
    "vote_share",
    "num_unknown",
    "answers",
)
OURS = (PREDICTED, SHARE, NUM_UNKNOWN, ANSWERS)

log = logging.getLogger(__name__)


def run(
    config: AnnotateConfig,
    folders: AskFolders,
    start_engines: StartEngines,
    *,
    prompt_seed: int,
    corpus: Path | None = None,
    on_progress: OnProgress = lambda _done, _total: None,
    chunk_prompts: int = CHUNK_PROMPTS,
) -> AnnotationScore | None:
    """Annotate cells; answers that are there already are kept.

    Args:
        config: With `num_genes` decided.
        folders: Inputs and output.
        start_engines: Called only if there is something left to ask.
        prompt_seed: Seed of the corpus, so that a cell's phrasing is the one it has there.
        corpus: The run's corpus, which `side` is looked up in.
        on_progress: For progress bars.
        chunk_prompts: Cells of a part.

    Returns:
        Predictions against known labels, where there are any.

    Raises:
        ConfigError: If `num_genes` is not known, or classes cannot be told apart.
        MissingFileError: If policy, cells, templates or the file of `into` are not there.
        DataError: If a column or label is unknown, or a prompt does not fit the model's context.
        StageError: If the output was begun from something else.
    """
    if config.into is not None:
        require_other_name(config.into, ANNOTATIONS)
    cells = folders.cells if config.source is None else _converted(config.source, folders.output)
    asked = _Asked(config, cells, prompt_seed, corpus)
    plan: dict[str, JsonValue] = {
        "config": config.model_dump(mode="json"),
        "policy_sha256": policy_sha256(folders.policy),
        "cells_sha256": sha256_of(cells / MANIFEST),
        "phrasings": list(asked.templates.prompts),
        "prompt_seed": prompt_seed,
    }
    output, num_cells = folders.output, len(asked.rows)
    if config.into is not None and not resumable.is_finished(output):
        _require_into(config.into, asked)
    if not resumable.begin(output, plan, beside=[CELLS]):
        return _finished(output)
    answer_all(
        asked,
        output,
        lambda: start_engines(asked.cells.manifest.vocabulary, _sampling(config)),
        num_prompts=num_cells,
        chunk_prompts=chunk_prompts,
        on_progress=on_progress,
    )
    return _finish(asked, output, plan, chunk_prompts)


def _finish(
    asked: "_Asked", output: Path, plan: dict[str, JsonValue], chunk_prompts: int
) -> AnnotationScore | None:
    """Write what the answers say, with the manifest last."""
    results, counts = _results(asked, output, chunk_prompts)
    _write_results(output, results, plan)
    into = asked.config.into
    if into is not None:
        num_without = copy_with_obs(into, output / into.name, results[list(OURS)])
        counts |= {"num_without_result": num_without}
        if num_without:
            log.info("%d cells of %s were not asked about: no result", num_without, into)
    score = _score(results, asked.config.known_column)
    if score is not None:
        replace_text(output / SCORES, score.model_dump_json(indent=1) + "\n")
    resumable.finish(output, plan | counts)
    return score


def _require_into(into: Path, asked: "_Asked") -> None:
    """Check, before anything is asked, that the user's file can take the results."""
    names = require_free_obs(into, OURS)
    if not len(np.intersect1d(asked.cells.rows_with_ids(names), asked.rows)):
        raise DataError(
            f"into must hold cells that are asked about, got none of {len(asked.rows)} in {into}"
        )


def _sampling(config: AnnotateConfig) -> SamplingConfig:
    sampling = SamplingConfig(max_tokens=config.max_tokens).for_task(TASK)
    # Greedy sampling is not allowed in training, where nothing could be learned from it.
    return sampling.model_copy(
        update={"temperature": config.temperature, "group_size": config.num_samples}
    )


def _converted(source: ConvertConfig, output: Path) -> Path:
    """Convert the user's file into the output folder; what is there already is kept."""
    folder = output / CELLS
    if not (folder / MANIFEST).is_file():
        convert.run(source, folder)
    return folder


class _Asked:
    """The cells that are asked about, and how."""

    def __init__(
        self, config: AnnotateConfig, folder: Path, prompt_seed: int, corpus: Path | None
    ) -> None:
        if config.num_genes is None:
            raise ConfigError(
                "annotate.num_genes must be given where the run has no corpus, got None"
            )
        self.config = config
        self.cells = CellReader(folder)
        self.templates: TemplateSet = load_templates(TASK, config.templates)
        self.rows: IndexArray = matching_rows(self.cells, config.where)
        if config.side is not None:
            if corpus is None:
                raise ConfigError(f"annotate.side needs a run with a corpus, got {config.side}")
            on_side = self.cells.rows_with_ids(cells_shown(corpus, TASK, config.side))
            self.rows = np.intersect1d(self.rows, on_side)
            if not len(self.rows):
                raise DataError(f"at least one cell must match, got none on side {config.side}")
        self.label_names = self.cells.manifest.obs_columns
        if config.known_column is not None:
            self.cells.require_columns([config.known_column])
        taken = sorted(set(OURS).intersection(self.label_names))
        if taken:
            raise DataError(f"obs must have no column {taken[0]!r} yet, got one in {folder}")
        classes = config.classes
        if config.classes_column is not None:
            classes = self.cells.labels(config.classes_column).categories
        self.index = label_index(classes) if classes else None
        self._prompt_seed = prompt_seed
        self._num_genes = config.num_genes

    def table(self, start: int, stop: int) -> CellTable:
        """Read the cells of prompts start..stop-1."""
        return self.cells.read(self.rows[start:stop], self.label_names)

    def requests(self, start: int, stop: int) -> list[RolloutRequest]:
        """Ask about cells start..stop-1."""
        table = self.table(start, stop)
        vocabulary = self.cells.manifest.vocabulary
        requests: list[RolloutRequest] = []
        for i, cell_id in enumerate(table.cell_ids):
            prompt_id = f"{TASK}/{cell_id}/0"
            sentence = write_sentence(table.genes_of(i), vocabulary, self._num_genes)
            facts = PromptFacts(
                num_genes=self._num_genes,
                organism=self.cells.manifest.organism,
                sentences=(sentence,),
                num_cells=1,
            )
            prompt = self.templates.render(facts, prompt_id=prompt_id, seed=self._prompt_seed)
            record = PromptRecord(
                prompt_id=prompt_id,
                prompt=prompt,
                target="",
                task=TASK,
                condition="",
                context_id=cell_id,
                target_id="",
                split=Split.TEST,
                target_genes_K=NO_GENES,
                context_genes_K=NO_GENES,
            )
            seed = stable_hash(f"annotate/{cell_id}", self.config.seed) >> 2
            requests.append(RolloutRequest(record, seed, num_samples=self.config.num_samples))
        return requests

    def write(self, path: Path, groups: list[Group]) -> None:
        """Write the answers of one part."""
        table = pa.table(
            {
                "cell_id": pa.array([group.record.context_id for group in groups]),
                "answers": pa.array([[c.text for c in group.completions_G] for group in groups]),
                "is_truncated": pa.array(
                    [[c.is_truncated for c in group.completions_G] for group in groups]
                ),
            }
        )
        write_part(path, table)


def _results(
    asked: _Asked, folder: Path, chunk_prompts: int
) -> tuple["pd.DataFrame", dict[str, JsonValue]]:
    """A row a cell: its own labels, then what the answers say; and what there was to count."""
    import pandas as pd

    columns: dict[str, list[object]] = {name: [] for name in (*asked.label_names, *OURS)}
    ids: list[str] = []
    num_truncated = 0
    for number, part in enumerate(read_parts(folder, chunk_prompts, len(asked.rows))):
        start = number * chunk_prompts
        cells = asked.table(start, start + len(part))
        ids += part["cell_id"].to_pylist()
        for name in asked.label_names:
            columns[name] += [label or None for label in cells.obs[name].tolist()]
        num_truncated += sum(map(sum, part["is_truncated"].to_pylist()))
        for answers in part["answers"].to_pylist():
            found = vote(answers, asked.index)
            columns[PREDICTED].append(found.label)
            columns[SHARE].append(found.share)
            columns[NUM_UNKNOWN].append(found.num_unknown)
            columns[ANSWERS].append(json.dumps(answers, ensure_ascii=False))
    frame = pd.DataFrame(columns, index=pd.Index(ids, dtype=object))
    for name in (*asked.label_names, PREDICTED):
        frame[name] = pd.Categorical(frame[name])
    num_unknown = int((frame[PREDICTED] == UNKNOWN).sum())
    log.info("%d of %d cells are %s", num_unknown, len(frame), UNKNOWN)
    return frame, {
        "num_cells": len(frame),
        "num_unknown_cells": num_unknown,
        "num_truncated_answers": num_truncated,
    }


def _write_results(folder: Path, results: "pd.DataFrame", plan: dict[str, JsonValue]) -> None:
    import anndata

    adata = anndata.AnnData(obs=results, uns={"c2s_rl": json.dumps(plan)})
    partial = folder / f".{ANNOTATIONS}.partial"
    adata.write_h5ad(partial)
    partial.replace(folder / ANNOTATIONS)


def _score(results: "pd.DataFrame", known_column: str | None) -> AnnotationScore | None:
    if known_column is None:
        return None
    labelled = results[results[known_column].notna()]
    if labelled.empty:
        log.warning("no scores: no cell has a label in %s", known_column)
        return None
    return score_annotation(
        labelled[known_column].astype(str).tolist(), labelled[PREDICTED].astype(str).tolist()
    )


def _finished(folder: Path) -> AnnotationScore | None:
    path = folder / SCORES
    if not path.is_file():
        return None
    return AnnotationScore.model_validate_json(path.read_text(encoding="utf-8"))
