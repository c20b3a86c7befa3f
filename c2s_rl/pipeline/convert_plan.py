"""Planning a conversion: what the files hold, which genes they have together, which parts.

Every file is opened once, which finds most of what can be wrong with it before a cell is read. What
a conversion depends on is told here too, so that one that was killed can go on (`work_key`).
"""

import hashlib
import json
import logging
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from c2s_rl.cells.programs import load_program, program_indices
from c2s_rl.cells.vocabulary import GeneColumns, Vocabulary
from c2s_rl.config import expand_variables
from c2s_rl.data.cell_file import CellFile
from c2s_rl.data.shards import SCHEMA_VERSION
from c2s_rl.data.source import open_source, source_path
from c2s_rl.data.source_config import SourceConfig
from c2s_rl.data.symbols import SymbolReport
from c2s_rl.errors import DataError, UnknownColumnError
from c2s_rl.pipeline.convert_config import DATASET_COLUMN, ConvertConfig, FileConfig, Join
from c2s_rl.pipeline.convert_inputs import versions
from c2s_rl.pipeline.convert_work import PART_ROWS, Plan, PlannedSource
from c2s_rl.types import IntArray

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class SourceFacts:
    """What opening a file told, for the manifest."""

    path: Path
    """The file."""
    place: str
    """Matrix and file, for messages."""
    alternatives: tuple[str, ...]
    """The other matrices of the file."""
    num_unnamed_genes: int
    num_duplicate_columns: int
    num_left_out: dict[str, int]
    symbols: SymbolReport | None


@dataclass(frozen=True, eq=False)
class PlannedWork:
    """A plan and what else the driver knows."""

    plan: Plan
    facts: tuple[SourceFacts, ...]
    """One a file."""

    @property
    def place(self) -> str:
        """The files, for messages."""
        return " and ".join(fact.place for fact in self.facts)


def work_key(config: ConvertConfig) -> str:
    """Return everything that the output depends on, as text; contents of files by size and time."""
    options = config.model_dump(mode="json", exclude={"workers"})
    content = [SCHEMA_VERSION, PART_ROWS, options, versions(config)]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def make_plan(config: ConvertConfig, scratch: Path) -> PlannedWork:
    """Open every file and make the plan, with all the genes that may be ranked.

    Args:
        config: What to convert.
        scratch: Where files are turned or spooled.

    Raises:
        ConfigError: If a path names an environment variable that is not set.
        MissingFileError: If a file is not there.
        DataError: If a file is damaged, lacks what is asked for, or the files have no gene or no
            obs column in common that is asked for.
    """
    planned: list[PlannedSource] = []
    facts: list[SourceFacts] = []
    columns: list[GeneColumns] = []
    for source in _with_columns_they_have(config, scratch):
        with open_source(source, scratch) as cells:
            columns.append(_gene_columns(config, cells))
            facts.append(_facts(cells, columns[-1]))
            former = planned[-1] if planned else None
            planned.append(
                PlannedSource(
                    config=_placed(source),
                    dataset=source.dataset if isinstance(source, FileConfig) else "",
                    num_rows=len(cells.cell_ids),
                    first_part=0 if former is None else former.first_part + num_parts(former),
                )
            )
    vocabulary = join_vocabularies([c.vocabulary for c in columns], config.join)
    plan = Plan(
        config=config,
        sources=tuple(planned),
        symbols=vocabulary.symbols,
        original=vocabulary.original,
        obs_columns=_obs_columns(config),
    )
    return PlannedWork(plan, tuple(facts))


def _placed(source: SourceConfig) -> SourceConfig:
    """Name files by whole paths: workers may run in another folder, without our variables."""
    options = {name: vars(source)[name] for name in SourceConfig.model_fields}
    if source.path is not None:
        options["path"] = str(source_path(source).absolute())
    paths = {
        name: _whole(value)
        for name in ("obs", "profiles", "genes")
        if (value := vars(source.tables)[name]) is not None
    }
    options["tables"] = source.tables.model_copy(update=paths)
    if source.symbols is not None:
        table = {"table": _whole(source.symbols.table)}
        options["symbols"] = source.symbols.model_copy(update=table)
    return SourceConfig.model_validate(options)


def _whole(path: str) -> str:
    return str(Path(expand_variables(path)).absolute())


def num_parts(source: PlannedSource) -> int:
    """Return how many parts a file is cut into."""
    return -(-source.num_rows // PART_ROWS)


def with_genes(work: PlannedWork, kept: IntArray) -> PlannedWork:
    """Keep some of the genes only; `kept` are rising indices."""
    plan, indices = work.plan, kept.tolist()
    if len(indices) == len(plan.symbols):
        return work
    genes = {
        "symbols": tuple(plan.symbols[i] for i in indices),
        "original": tuple(plan.original[i] for i in indices),
    }
    return replace(work, plan=plan.model_copy(update=genes))


def program_genes(config: ConvertConfig, vocabulary: Vocabulary) -> IntArray:
    """Return the genes of the programs that the config names, all where it names none; rising.

    Raises:
        DataError: If a program is not there or the vocabulary has none of its genes.
    """
    if not config.genes:
        return np.arange(len(vocabulary), dtype=np.int32)
    wanted = [program_indices(load_program(name), vocabulary) for name in config.genes]
    return np.unique(np.concatenate(wanted))


def join_vocabularies(vocabularies: Sequence[Vocabulary], join: Join) -> Vocabulary:
    """Make one vocabulary of several: genes in the order in which the files bring them.

    Raises:
        DataError: If the files have no gene in common and only such are wanted.
    """
    if len(vocabularies) == 1:
        return vocabularies[0]
    spelling: dict[str, str] = {}
    for vocabulary in vocabularies:
        for symbol, original in zip(vocabulary.symbols, vocabulary.original, strict=True):
            spelling.setdefault(symbol, original)
    if join is Join.INTERSECTION:
        shared = set.intersection(*(set(vocabulary.symbols) for vocabulary in vocabularies))
        spelling = {symbol: word for symbol, word in spelling.items() if symbol in shared}
        if not spelling:
            raise DataError(
                "files joined by intersection must share genes, got none that all "
                f"{len(vocabularies)} have; are they named alike? see symbols"
            )
    return Vocabulary(tuple(spelling), tuple(spelling.values()))


def _gene_columns(config: ConvertConfig, cells: CellFile) -> GeneColumns:
    if cells.symbol_report is not None:
        log.info("%s: %s", cells.place, cells.symbol_report.line)
    return cells.gene_columns(gene_case=config.gene_case, duplicates=config.duplicates)


def _facts(cells: CellFile, columns: GeneColumns) -> SourceFacts:
    return SourceFacts(
        path=cells.path,
        place=cells.place,
        alternatives=cells.alternatives,
        num_unnamed_genes=cells.num_unnamed_genes,
        num_duplicate_columns=columns.num_duplicate_columns,
        num_left_out=dict(cells.num_left_out),
        symbols=cells.symbol_report,
    )


def _obs_columns(config: ConvertConfig) -> tuple[str, ...]:
    columns = [name for source in config.sources for name in (*source.obs, *source.combine)]
    return tuple(dict.fromkeys([DATASET_COLUMN, *columns] if config.files else columns))


def _with_columns_they_have(config: ConvertConfig, scratch: Path) -> list[SourceConfig]:
    """Ask each of several files for those obs columns only that it has.

    Raises:
        UnknownColumnError: If no file has a column.
    """
    if not config.files:
        return [config]
    found: list[SourceConfig] = []
    lacking: dict[str, UnknownColumnError] = {}
    for file in config.files:
        errors = _lacks(file, scratch)
        lacking |= {name: error for name, error in errors.items() if name not in lacking}
        found.append(_without(file, errors))
    available = {name for file in found for name in file.columns}
    for name, error in lacking.items():
        if name not in available:
            raise error
    return found


def _lacks(file: FileConfig, scratch: Path) -> dict[str, UnknownColumnError]:
    """Return the columns asked for that a file does not have, with what opening said of them."""
    errors: dict[str, UnknownColumnError] = {}
    while True:
        try:
            with open_source(_without(file, errors), scratch):
                return errors
        except UnknownColumnError as error:
            errors[error.column] = error


def _without(file: FileConfig, names: Container[str]) -> FileConfig:
    """Ask a file for its other columns only."""
    combine = {
        new: tuple(part for part in parts if part not in names)
        for new, parts in file.combine.items()
    }
    present = {
        "obs": tuple(name for name in file.obs if name not in names),
        "combine": {new: parts for new, parts in combine.items() if parts},
    }
    return file.model_copy(update=present)
