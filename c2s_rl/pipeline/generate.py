"""Stage generate: conditions in, cells that a policy writes out.

    c2s-rl generate --config FILE        (section `generate`)

    generate/part-*.parquet    prompt, text and genes of every cell
    generate/generated.h5ad    X by the data set's rank model; obs: condition, prompt, word counts

A cell is one answer to a prompt of its own: the phrasing, the control cell that is shown and the
sampled genes are all drawn by its id, so that neither the order of conditions nor the batches
change it. Left out: sampling itself (`actors/`), and judging the cells (`evaluate`).
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from pydantic import JsonValue

from c2s_rl.cells.rank import IndexArray, stable_hash
from c2s_rl.cells.sentence import write_sentence
from c2s_rl.cells.vocabulary import shown
from c2s_rl.checkpoint import MANIFEST, sha256_of
from c2s_rl.data.cell_groups import matching_rows
from c2s_rl.data.cell_reader import CellReader
from c2s_rl.data.parquet_parts import write_part
from c2s_rl.decoding.constraint import GeneMode
from c2s_rl.errors import ConfigError
from c2s_rl.grpo.roles import RolloutRequest
from c2s_rl.grpo.sampling import SamplingConfig
from c2s_rl.pipeline import resumable
from c2s_rl.pipeline.ask import CHUNK_PROMPTS, AskFolders, OnProgress, StartEngines, answer_all
from c2s_rl.pipeline.generate_config import ConditionConfig, ControlConfig, GenerateConfig
from c2s_rl.pipeline.generate_output import GENERATED, GenerateCounts, write_generated
from c2s_rl.pipeline.policy_files import policy_sha256
from c2s_rl.prompts.render import TemplateSet, load_all_templates
from c2s_rl.prompts.tasks import PromptFacts
from c2s_rl.types import Group, IntArray, PromptRecord, Split, Task

__all__ = ["ConditionConfig", "ControlConfig", "GenerateConfig", "run"]

NO_GENES: IntArray = np.zeros(0, dtype=np.int32)

log = logging.getLogger(__name__)


def run(
    config: GenerateConfig,
    folders: AskFolders,
    start_engines: StartEngines,
    *,
    on_progress: OnProgress = lambda _done, _total: None,
    chunk_prompts: int = CHUNK_PROMPTS,
) -> GenerateCounts:
    """Generate cells; parts that are there already are kept.

    Args:
        config: With `num_genes`, `max_tokens` and, for perturbations, `controls` decided.
        folders: Inputs and output.
        start_engines: Called only if there is something left to ask.
        on_progress: For progress bars.
        chunk_prompts: Cells of a part.

    Returns:
        What the cells are like, by condition.

    Raises:
        ConfigError: If one of those is not known, or the constraint does not fit.
        MissingFileError: If policy, cells or templates are not there.
        DataError: If there is no control cell, or a prompt does not fit the model's context.
        StageError: If the output was begun from something else.
    """
    wanted = _Wanted(config, folders.cells)
    sampling = _sampling(config)
    plan: dict[str, JsonValue] = {
        "config": config.model_dump(mode="json"),
        "policy_sha256": policy_sha256(folders.policy),
        "cells_sha256": sha256_of(folders.cells / MANIFEST),
        "phrasings": {task: list(t.prompts) for task, t in wanted.templates.items()},
    }
    output, num_cells = folders.output, wanted.num_cells
    if not resumable.begin(output, plan):
        return GenerateCounts.read(output)
    _warn_of_unknown(config, wanted.cells)
    answer_all(
        wanted,
        output,
        lambda: start_engines(wanted.cells.manifest.vocabulary, sampling),
        num_prompts=num_cells,
        chunk_prompts=chunk_prompts,
        on_progress=on_progress,
    )
    counts = write_generated(
        output / GENERATED,
        output,
        wanted.cells.manifest,
        plan,
        rows_per_part=chunk_prompts,
        num_cells=num_cells,
    )
    counts.write(output)
    resumable.finish(output, plan | {"num_cells": num_cells})
    return counts


def _warn_of_unknown(config: GenerateConfig, cells: CellReader) -> None:
    """Say which types and perturbations no cell has: new ones may be meant, or mistyped."""
    if config.controls is None:
        return
    columns = (config.controls.cell_type_column, config.controls.condition_column)
    types, perturbations = (cells.labels(column).categories for column in columns)
    for condition in config.conditions:
        for name, known in ((condition.cell_type, types), (condition.perturbation, perturbations)):
            # Perturbations stand there with their exposure: 'IFN-beta, acute'.
            if name and not any(name == label or name.startswith(f"{label}, ") for label in known):
                log.warning(
                    "no cell of %s is labelled %r, which is asked for all the same; labels: %s",
                    cells.folder,
                    name,
                    shown(known),
                )


def _sampling(config: GenerateConfig) -> SamplingConfig:
    if config.max_tokens is None:
        raise ConfigError(
            "generate.max_tokens must be given where the run has no section align, got None"
        )
    constraint = config.genes
    if constraint.mode is not GeneMode.OFF and constraint.max_genes is None:
        constraint = constraint.model_copy(update={"max_genes": config.num_genes})
    sampling = SamplingConfig(max_tokens=config.max_tokens, genes=constraint)
    # Answers of all tasks that are asked here are cell sentences, so one stands for all.
    sampling = sampling.for_task(Task.CELL_GENERATION)
    # Greedy sampling is not allowed in training, where nothing could be learned from it.
    return sampling.model_copy(update={"temperature": config.temperature, "group_size": 1})


@dataclass(frozen=True)
class _Cell:
    """One cell to be written."""

    condition: ConditionConfig
    cell_id: str
    control_row: int | None


class _Wanted:
    """All cells to be written, by number, and what their prompts are made of."""

    def __init__(self, config: GenerateConfig, folder: Path) -> None:
        if config.num_genes is None:
            raise ConfigError(
                "generate.num_genes must be given where the run has no corpus, got None"
            )
        self._config = config
        self._num_genes = config.num_genes
        self.cells = CellReader(folder)
        tasks = tuple(dict.fromkeys(condition.task for condition in config.conditions))
        self.templates: Mapping[Task, TemplateSet] = load_all_templates(tasks, config.templates)
        self._bounds = np.cumsum([0, *(c.num_cells for c in config.conditions)])
        self._controls = {
            condition.name: self._draw_controls(condition)
            for condition in config.conditions
            if condition.perturbation is not None
        }

    @property
    def num_cells(self) -> int:
        """Cells of all conditions."""
        return int(self._bounds[-1])

    def requests(self, start: int, stop: int) -> list[RolloutRequest]:
        """Ask for cells start..stop-1."""
        wanted = [self._cell(number) for number in range(start, stop)]
        rows = sorted({c.control_row for c in wanted if c.control_row is not None})
        table = self.cells.read(np.array(rows, dtype=np.int64))
        place = {row: i for i, row in enumerate(rows)}
        vocabulary = self.cells.manifest.vocabulary
        requests: list[RolloutRequest] = []
        for cell in wanted:
            control_id, genes = "", NO_GENES
            if cell.control_row is not None:
                control_id = table.cell_ids[place[cell.control_row]]
                genes = table.genes_of(place[cell.control_row])
            shown = (write_sentence(genes, vocabulary, self._num_genes),) if control_id else ()
            requests.append(self._request(cell, control_id, genes, shown))
        return requests

    def write(self, path: Path, groups: list[Group]) -> None:
        """Write the cells of one part."""
        table = pa.table(
            {
                "cell_id": pa.array([g.record.prompt_id for g in groups]),
                "condition": pa.array([g.record.condition for g in groups]),
                "cell_type": pa.array([self._of(g).cell_type for g in groups], pa.string()),
                "perturbation": pa.array([self._of(g).perturbation for g in groups], pa.string()),
                "control_id": pa.array([g.record.context_id or None for g in groups], pa.string()),
                "prompt": pa.array([g.record.prompt for g in groups]),
                "text": pa.array([g.completions_G[0].text for g in groups]),
                "genes": pa.array([g.cells_G[0].genes_K for g in groups], pa.list_(pa.int32())),
                "num_words": pa.array([g.cells_G[0].num_words for g in groups]),
                "num_duplicates": pa.array([g.cells_G[0].num_duplicates for g in groups]),
                "num_unknown": pa.array([len(g.cells_G[0].unknown) for g in groups]),
                "is_truncated": pa.array([g.cells_G[0].is_truncated for g in groups]),
            }
        )
        write_part(path, table, dictionary=["condition", "cell_type", "perturbation"])

    def _of(self, group: Group) -> ConditionConfig:
        return next(c for c in self._config.conditions if c.name == group.record.condition)

    def _cell(self, number: int) -> _Cell:
        place = int(np.searchsorted(self._bounds, number, side="right")) - 1
        condition = self._config.conditions[place]
        within = number - int(self._bounds[place])
        controls = self._controls.get(condition.name)
        row = None if controls is None else int(controls[within % len(controls)])
        return _Cell(condition, f"{condition.name} | {within}", row)

    def _request(
        self, cell: _Cell, control_id: str, genes: IntArray, shown: tuple[str, ...]
    ) -> RolloutRequest:
        condition = cell.condition
        named = {"cell_type": condition.cell_type, "perturbation": condition.perturbation}
        facts = PromptFacts(
            num_genes=self._num_genes,
            organism=self.cells.manifest.organism,
            sentences=shown,
            num_cells=1,
            words={name: text for name, text in named.items() if text is not None},
        )
        prompt = self.templates[condition.task].render(
            facts, prompt_id=cell.cell_id, seed=self._config.seed
        )
        record = PromptRecord(
            prompt_id=cell.cell_id,
            prompt=prompt,
            target="",
            task=condition.task,
            condition=condition.name,
            context_id=control_id,
            target_id="",
            split=Split.TEST,
            target_genes_K=NO_GENES,
            context_genes_K=genes,
            context_ids=(control_id,) if control_id else (),
        )
        seed = stable_hash(f"generate/{cell.cell_id}", self._config.seed) >> 2
        return RolloutRequest(record, seed, num_samples=1)

    def _draw_controls(self, condition: ConditionConfig) -> IndexArray:
        """Rows of control cells in a drawn order; taken from the front again when they run out."""
        controls = self._config.controls
        if controls is None:
            raise ConfigError(
                "generate.controls must be given for perturbations where the corpus names no "
                f"control cells, got None for {condition.name!r}"
            )
        rows = matching_rows(
            self.cells,
            {
                **controls.where,
                controls.cell_type_column: (str(condition.cell_type),),
                controls.condition_column: (controls.control,),
            },
        )
        generator = np.random.default_rng(
            stable_hash(f"controls|{condition.name}", self._config.seed)
        )
        return generator.permutation(rows)
