"""Which cells stand for a method in a condition, so that distances between populations compare.

- The real held-out cells of a condition are divided in two halves by a seeded hash. One half is the
  reference of every method, the other half is the ceiling: real cells against real cells, as many
  as anyone has.
- Every method gives the same number of cells: distances of fewer cells are larger by chance alone.
  Answers are taken in rounds, the first of every prompt before the second of any.
- Copy control is the condition's held-out control cells, each once.
- Mean cell and real mean are one cell, repeated: no population, so they have no distances.

Conditions in which a policy or a half has too few cells are left out and counted.

Shape suffixes: P prompts, K genes of one cell.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
from pydantic import Field, model_validator

from c2s_rl.cells.sentence import stable_hash
from c2s_rl.config import FrozenConfig
from c2s_rl.evaluation.donors import Units
from c2s_rl.evaluation.methods import COPY_CONTROL, MEAN_CELL, REAL_CELL, REAL_MEAN, Method
from c2s_rl.evaluation.real_cells import RealCells
from c2s_rl.evaluation.result import MethodKind
from c2s_rl.models.cell_embedder import CellEmbedderConfig, EmbedderKind
from c2s_rl.types import IntArray, PromptRecord, Split

NO_POPULATION: Mapping[str, str] = {
    MEAN_CELL: "one cell, repeated, is no population",
    REAL_MEAN: "one cell, repeated, is no population",
}


class PopulationConfig(FrozenConfig):
    """Distances between the cells of a method and the real ones of the same condition."""

    embeddings: tuple[CellEmbedderConfig, ...] = Field(
        (), description="How cells become vectors; empty: all genes, and those of the program."
    )
    min_cells: int = Field(10, ge=2, description="Cells of each method that a condition needs.")
    max_cells: int = Field(100, ge=2, description="Most cells of a method in a condition.")
    draws: int = Field(100, ge=0, description="Bootstrap draws behind each interval; 0: none.")

    @model_validator(mode="after")
    def _check(self) -> "PopulationConfig":
        if self.max_cells < self.min_cells:
            raise ValueError(
                f"max_cells must be at least min_cells, got {self.max_cells} and {self.min_cells}"
            )
        labels = [embedding_label(config) for config in self.embeddings]
        twice = [label for label in labels if labels.count(label) > 1]
        if twice:
            raise ValueError(f"embeddings must differ, got {twice[0]!r} twice")
        return self


def embedding_label(config: CellEmbedderConfig) -> str:
    """How tables call an embedding: 'all genes', or 'scgpt, HALLMARK_APOPTOSIS'."""
    genes = ", ".join(name.rpartition(":")[2].upper() for name in config.programs) or "all genes"
    if config.kind is EmbedderKind.EXPRESSION:
        return genes
    kind = f"{config.kind.value} {config.folder.name}" if config.folder else config.kind.value
    return f"{kind}, {genes}"


@dataclass(frozen=True, eq=False)
class CellSample:
    """Some cells of one origin."""

    cells: Sequence[IntArray]
    """Rankings, [K] each, cut to the length of a sentence."""
    units: tuple[str, ...]
    """What each cell is drawn together with: its prompt, itself, or its donor."""

    def first(self, number: int) -> "CellSample":
        """Return its first cells."""
        return CellSample(self.cells[:number], self.units[:number])


@dataclass(frozen=True, eq=False)
class ConditionCells:
    """The populations of one condition."""

    reference: CellSample
    """One half of the real held-out cells."""
    by_method: Mapping[str, CellSample]
    """Method to its cells, the same number each."""
    single: Mapping[str, CellSample]
    """Method to its one cell, where that is all it has."""
    controls: CellSample
    """Held-out control cells; none where the prompts have none."""


@dataclass(frozen=True, eq=False)
class Populations:
    """The populations of an evaluation."""

    by_condition: Mapping[str, ConditionCells]
    """Sorted by condition."""
    skipped: Mapping[str, int]
    """Condition to the number of cells that all methods could have given, too few."""


@dataclass(frozen=True, eq=False)
class PopulationSource:
    """Where the cells come from."""

    methods: Sequence[Method]
    """All columns of the table."""
    records_P: Sequence[PromptRecord]
    """[P] held-out prompts."""
    real: RealCells
    """Measured cells."""
    units: Units
    """What is drawn again."""
    num_genes: int
    """Length of a sentence in genes."""
    seed: int
    """Seeds the halves."""


def gather_populations(source: PopulationSource, config: PopulationConfig) -> Populations:
    """Collect the cells of every condition and method."""
    by_condition: dict[str, ConditionCells] = {}
    skipped: dict[str, int] = {}
    for condition in sorted({record.condition for record in source.records_P}):
        found = _of_condition(source, condition)
        needed = [
            len(found.by_method[m.name].cells)
            for m in source.methods
            if m.kind is not MethodKind.NULL and m.name in found.by_method
        ]
        num = min([*needed, len(found.reference.cells)])
        if num < config.min_cells:
            skipped[condition] = num
            continue
        # A baseline that cannot fill a population is left out, it does not shrink the others.
        usable = {
            name: sample
            for name, sample in found.by_method.items()
            if len(sample.cells) >= config.min_cells
        }
        num = min(config.max_cells, *(len(sample.cells) for sample in usable.values()))
        by_condition[condition] = ConditionCells(
            reference=found.reference.first(config.max_cells),
            by_method={name: sample.first(num) for name, sample in usable.items()},
            single=found.single,
            controls=found.controls,
        )
    return Populations(by_condition, skipped)


def _of_condition(source: PopulationSource, condition: str) -> ConditionCells:
    """All cells that there are, in the order in which they will be taken."""
    rows = source.real.target_rows[Split.TEST].get(condition, ())
    controls = source.real.control_rows[Split.TEST].get(condition, ())
    rng = np.random.default_rng(stable_hash(f"half|{condition}", source.seed))
    shuffled = [rows[pick] for pick in rng.permutation(len(rows)).tolist()]
    half = (len(shuffled) + 1) // 2
    by_method: dict[str, CellSample] = {}
    single: dict[str, CellSample] = {}
    for method in source.methods:
        if method.name == REAL_CELL:
            by_method[method.name] = _real_sample(source, shuffled[half:])
        elif method.name == COPY_CONTROL:
            by_method[method.name] = _real_sample(source, controls)
        elif method.name == MEAN_CELL:
            single[method.name] = _written(source, method, condition).first(1)
        elif method.name not in NO_POPULATION:
            by_method[method.name] = _written(source, method, condition)
    return ConditionCells(
        reference=_real_sample(source, shuffled[:half]),
        by_method=by_method,
        single={name: sample for name, sample in single.items() if sample.cells},
        controls=_real_sample(source, controls),
    )


def _real_sample(source: PopulationSource, rows: Sequence[int]) -> CellSample:
    cells = source.real.cells
    return CellSample(
        [cells.genes_of(row)[: source.num_genes] for row in rows],
        tuple(source.units.of_cell(row) for row in rows),
    )


def _written(source: PopulationSource, method: Method, condition: str) -> CellSample:
    """Answers to the condition's prompts in rounds; an empty answer is a cell without genes."""
    answers = [
        [(answer.genes_K[: source.num_genes], unit) for answer in answers_B]
        for answers_B, record, unit in zip(
            method.answers_P, source.records_P, source.units.units_P, strict=True
        )
        if record.condition == condition
    ]
    in_turn = [pair for group in zip_longest(*answers) for pair in group if pair is not None]
    return CellSample([genes for genes, _ in in_turn], tuple(unit for _, unit in in_turn))
