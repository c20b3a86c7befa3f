"""Stage annotate: cells in, cell types as a policy names them out.

    c2s-rl annotate --config FILE        (section `annotate`)

    annotate/part-*.parquet    every answer, word for word
    annotate/annotations.h5ad  obs: predicted_cell_type, vote_share, answers, the cells' own labels
    annotate/<file>.h5ad       a copy of the user's file with those columns in obs (option `into`)
    annotate/scores.json       accuracy, F1 by label and confusion, where the labels are known

Every cell is asked `num_samples` times with the prompt of the task cell_type_annotation; the answer
of the majority is its type. Left out: sampling itself, which is the engines' (`actors/`).
"""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import pyarrow as pa
from pydantic import Field, JsonValue, model_validator

from c2s_rl.cells.rank import IndexArray, stable_hash
from c2s_rl.cells.sentence import write_sentence
from c2s_rl.checkpoint import MANIFEST, replace_text, sha256_of
from c2s_rl.config import FrozenConfig
from c2s_rl.data.cell_groups import matching_rows
from c2s_rl.data.cell_reader import CellReader
from c2s_rl.data.cell_table import CellTable
from c2s_rl.data.h5ad_copy import copy_with_obs
from c2s_rl.data.parquet_parts import missing_parts, part_path, read_parts, write_part
from c2s_rl.errors import ConfigError, DataError
from c2s_rl.evaluation.votes import AnnotationScore, label_index, score_annotation, vote
from c2s_rl.grpo.roles import RolloutRequest
from c2s_rl.grpo.sampling import SamplingConfig
from c2s_rl.pipeline import resumable
from c2s_rl.pipeline.ask import CHUNK_PROMPTS, OnProgress, StartEngines, ask
from c2s_rl.pipeline.policy_files import policy_sha256
from c2s_rl.prompts.render import TemplateSet, load_templates
from c2s_rl.prompts.tasks import PromptFacts
from c2s_rl.types import Group, IntArray, PromptRecord, Split, Task

if TYPE_CHECKING:
    import pandas as pd

ANNOTATIONS, SCORES = "annotations.h5ad", "scores.json"
TASK = Task.CELL_TYPE_ANNOTATION
NO_GENES: IntArray = np.zeros(0, dtype=np.int32)
# Columns of the results; labels of the cells may not have these names.
PREDICTED, SHARE, NUM_UNKNOWN, ANSWERS = (
    "predicted_cell_type",
    "vote_share",
    "num_unknown",
    "answers",
)

log = logging.getLogger(__name__)


class AnnotateConfig(FrozenConfig):
    """Settings of the stage `annotate`."""

    policy: str | None = Field(
        None,
        description="sft, pretrain, base, align or best (the run's own) or a folder; default: what "
        "alignment starts from",
    )
    cells: Path | None = Field(None, description="Cells folder; default: the run's own")
    where: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="Only cells with one of these labels, by obs column"
    )
    num_genes: int | None = Field(
        None, ge=1, description="Genes of a cell sentence; default: the corpus'"
    )
    templates: Path | None = Field(
        None, description="Phrasings of cell_type_annotation; default: the corpus' or shipped ones"
    )
    num_samples: int = Field(1, ge=1, description="Answers a cell, which vote")
    temperature: float = Field(0.0, ge=0, description="0 takes the likeliest token (greedy)")
    max_tokens: int = Field(24, ge=1, description="Longest answer, in tokens")
    classes: tuple[str, ...] = Field(
        (), description="Closed set of labels: any other answer is 'unknown'; empty: open"
    )
    classes_column: str | None = Field(
        None, description="obs column whose labels are the closed set"
    )
    known_column: str | None = Field(
        None, description="obs column with known cell types, for scores; default: the corpus'"
    )
    into: Path | None = Field(
        None, description=".h5ad of the same cells: a copy of it gets the results in obs"
    )
    seed: int = Field(0, ge=0, lt=2**32, description="Seeds phrasing and answers of every cell")

    @model_validator(mode="after")
    def _greedy_answers_once(self) -> Self:
        if self.temperature == 0 and self.num_samples > 1:
            raise ValueError(
                "num_samples must be 1 with temperature 0, which gives the same answer every time, "
                f"got {self.num_samples}"
            )
        if self.classes and self.classes_column is not None:
            raise ValueError(
                f"classes must be given without classes_column, got {self.classes_column!r} too"
            )
        return self


@dataclass(frozen=True)
class AskFolders:
    """Where a stage reads and writes."""

    policy: Path
    """Hugging Face folder."""
    cells: Path
    """Cells folder."""
    output: Path
    """Folder of the results."""


def run(
    config: AnnotateConfig,
    folders: AskFolders,
    start_engines: StartEngines,
    *,
    prompt_seed: int,
    on_progress: OnProgress = lambda _done, _total: None,
    chunk_prompts: int = CHUNK_PROMPTS,
) -> AnnotationScore | None:
    """Annotate cells; answers that are there already are kept.

    Args:
        config: With `num_genes` decided.
        folders: Inputs and output.
        start_engines: Called only if there is something left to ask.
        prompt_seed: Seed of the corpus, so that a cell's phrasing is the one it has there.
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
    asked = _Asked(config, folders.cells, prompt_seed)
    plan: dict[str, JsonValue] = {
        "config": config.model_dump(mode="json"),
        "policy_sha256": policy_sha256(folders.policy),
        "cells_sha256": sha256_of(folders.cells / MANIFEST),
        "phrasings": list(asked.templates.prompts),
        "prompt_seed": prompt_seed,
    }
    output, num_cells = folders.output, len(asked.rows)
    if not resumable.begin(output, plan):
        return _finished(output)
    missing = missing_parts(output, chunk_prompts, num_cells)
    done = num_cells - sum(
        min(chunk_prompts, num_cells - part * chunk_prompts) for part in missing
    )
    on_progress(done, num_cells)
    if missing:
        # What greedy sampling needs is not allowed in training, where nothing could be learned.
        sampling = SamplingConfig(max_tokens=config.max_tokens).for_task(TASK)
        sampling = sampling.model_copy(
            update={"temperature": config.temperature, "group_size": config.num_samples}
        )
        with start_engines(asked.cells.manifest.vocabulary, sampling) as engines:
            for part, groups in ask(
                engines,
                asked.requests,
                missing,
                num_prompts=num_cells,
                chunk_prompts=chunk_prompts,
            ):
                asked.write(part_path(output, part), groups)
                done += len(groups)
                on_progress(done, num_cells)
    results = _results(asked, output, chunk_prompts)
    _write_results(output, results, plan)
    if config.into is not None:
        columns = results[[PREDICTED, SHARE, NUM_UNKNOWN, ANSWERS]]
        copy_with_obs(config.into, output / config.into.name, columns)
    score = _score(results, asked.known_column)
    if score is not None:
        replace_text(output / SCORES, score.model_dump_json(indent=1) + "\n")
    resumable.finish(output, plan | {"num_cells": num_cells})
    return score
