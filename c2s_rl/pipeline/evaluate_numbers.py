"""From answers and real cells to all numbers of an evaluation; part of the stage `evaluate`.

No file is read or written here, and nothing is drawn. Metrics of single answers come first, those
of populations join the same tables.

Shape suffix: P prompts.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from c2s_rl.cells.programs import load_program
from c2s_rl.data.prompt_set import PromptSet
from c2s_rl.evaluation.cell_metrics import Yardstick
from c2s_rl.evaluation.donors import Units
from c2s_rl.evaluation.methods import Drawing, Method, ceilings, null_baselines, policy_method
from c2s_rl.evaluation.metrics import METRICS, MetricInfo
from c2s_rl.evaluation.population_cells import (
    PopulationConfig,
    Populations,
    PopulationSource,
    embedding_label,
    gather_populations,
)
from c2s_rl.evaluation.population_metrics import Measuring, measure_populations, metric_rows
from c2s_rl.evaluation.population_summary import (
    PopulationTable,
    add_to_difference,
    add_to_method,
)
from c2s_rl.evaluation.real_cells import RealCells
from c2s_rl.evaluation.result import (
    Difference,
    Evaluation,
    MethodResult,
    PopulationSetting,
)
from c2s_rl.evaluation.summary import Resampling, compare, score_methods, summarise
from c2s_rl.evaluation.verdict import give_verdict
from c2s_rl.models.cell_embedder import CellEmbedder, CellEmbedderConfig, load_cell_embedder
from c2s_rl.types import Group, PromptRecord, Split

if TYPE_CHECKING:
    from c2s_rl.pipeline.evaluate import EvaluateConfig


@dataclass(frozen=True, eq=False)
class Answered:
    """What an evaluation is computed from."""

    records_P: Sequence[PromptRecord]
    """[P] held-out prompts."""
    skipped: Mapping[str, int]
    """Reason to the held-out prompts that are not among them."""
    groups: Mapping[str, Sequence[Group]]
    """Policy to its answers, in the order of the prompts."""
    real: RealCells
    """Measured cells."""
    units: Units
    """What bootstraps draw again."""
    yardstick: Yardstick
    """Program, rank model and cut."""
    prompt_set: PromptSet
    """The whole corpus."""
    own_embedder: Path | None = None
    """Folder of the scGPT that the run trained; None where it trained none."""


def find_numbers(config: "EvaluateConfig", answered: Answered) -> Evaluation:
    """Score all methods and put the numbers together."""
    records_P, units = answered.records_P, answered.units
    methods = _methods(config, answered)
    scored = score_methods(methods, records_P, answered.yardstick)
    by_donor = units.units_P if units.column is not None else None
    resampling = Resampling(config.bootstrap.draws, config.seed, by_donor)
    results = [summarise(one, records_P, resampling) for one in scored.values()]
    difference = None
    if len(answered.groups) > 1:
        candidate, baseline = scored[config.candidate], scored[config.baseline]
        difference = compare(candidate, baseline, records_P, resampling)
    info: dict[str, MetricInfo] = {metric.value: METRICS[metric] for metric in METRICS}
    setting = None
    if config.population is not None:
        table, setting = _measure(config, config.population, methods, answered)
        results = [add_to_method(result, table) for result in results]
        difference = None if difference is None else add_to_difference(difference, table)
        info |= table.info
    return _assemble(config, answered, _Numbers(results, difference, info, setting))


@dataclass(frozen=True, eq=False)
class _Numbers:
    """What was computed."""

    methods: Sequence[MethodResult]
    difference: Difference | None
    info: dict[str, MetricInfo]
    population: PopulationSetting | None


def _methods(config: "EvaluateConfig", answered: Answered) -> list[Method]:
    num_genes = answered.yardstick.num_genes
    drawing = Drawing(num_genes, config.samples_per_prompt, config.seed)
    return [
        *null_baselines(answered.records_P, answered.real, drawing),
        *(policy_method(name, answers) for name, answers in answered.groups.items()),
        *ceilings(answered.records_P, answered.real, drawing),
    ]


def _assemble(config: "EvaluateConfig", answered: Answered, numbers: _Numbers) -> Evaluation:
    """The numbers with everything that must be known to read them."""
    prompt_set, records_P = answered.prompt_set, answered.records_P
    program = load_program(config.program)
    program_N = answered.yardstick.program_N
    counts = Counter(record.condition for record in records_P)
    tiers = Counter(record.tier for record in records_P if record.tier)
    trained = {r.condition for r in prompt_set.records if r.split is Split.TRAIN}
    return Evaluation(
        program=program.name,
        program_source=program.source,
        program_genes=tuple(prompt_set.vocabulary.symbols[n] for n in program_N),
        num_program_genes_absent=len(program.symbols) - len(program_N),
        variant=config.variant,
        num_genes=prompt_set.num_genes,
        samples_per_prompt=config.samples_per_prompt,
        conditions=dict(sorted(counts.items())),
        unseen_conditions=tuple(sorted(counts.keys() - trained)),
        tiers=dict(sorted(tiers.items())),
        tier_of=dict(sorted((record.condition, record.tier) for record in records_P)),
        bootstrap_draws=config.bootstrap.draws,
        bootstrap_unit=answered.units.column or "prompt",
        bootstrap_note=answered.units.note,
        seed=config.seed,
        skipped=dict(answered.skipped),
        methods=tuple(numbers.methods),
        difference=numbers.difference,
        metric_info=numbers.info,
        population=numbers.population,
        verdict=give_verdict(numbers.methods, numbers.difference, numbers.info),
    )


def _measure(
    config: "EvaluateConfig",
    population: PopulationConfig,
    methods: Sequence[Method],
    answered: Answered,
) -> tuple[PopulationTable, PopulationSetting]:
    """Measure populations: the rows for the tables, and which cells they are of."""
    records_P, yardstick = answered.records_P, answered.yardstick
    source = PopulationSource(
        methods, records_P, answered.real, answered.units, yardstick.num_genes, config.seed
    )
    populations = gather_populations(source, population)
    embedders = _embedders(config.program, population, answered)
    measuring = Measuring(
        embedders,
        yardstick,
        draws=population.draws,
        seed=config.seed,
        is_by_donor=answered.units.column is not None,
    )
    table = PopulationTable(
        estimates=measure_populations(populations, measuring),
        info=metric_rows(list(embedders)),
        num_prompts=Counter(record.condition for record in records_P),
        tier_of={record.condition: record.tier for record in records_P},
        bootstrap_draws=config.bootstrap.draws,
        seed=config.seed,
    )
    return table, _setting(population, populations, embedders)


def _embedders(
    program: str, population: PopulationConfig, answered: Answered
) -> dict[str, CellEmbedder]:
    """Label to embedder; without any configured, all genes and those of the program."""
    own = CellEmbedderConfig(programs=(program,))
    vocabulary, rank_model = answered.prompt_set.vocabulary, answered.yardstick.rank_model
    return {
        "program genes" if config == own else embedding_label(config): load_cell_embedder(
            config, vocabulary, rank_model, own_folder=answered.own_embedder
        )
        for config in population.embeddings or (CellEmbedderConfig(), own)
    }


def _setting(
    population: PopulationConfig,
    populations: Populations,
    embedders: Mapping[str, CellEmbedder],
) -> PopulationSetting:
    return PopulationSetting(
        embeddings=tuple(f"{label}: {embedder.name}" for label, embedder in embedders.items()),
        num_cells={
            condition: min(len(sample.cells) for sample in cells.by_method.values())
            for condition, cells in populations.by_condition.items()
        },
        skipped=dict(populations.skipped),
        min_cells=population.min_cells,
        draws=population.draws,
    )
