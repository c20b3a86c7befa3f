"""Metrics of whole populations: distances, program activity, changed genes, discrimination.

Per condition; averages, intervals and the rows of the table are in `population_summary.py`. Which
cells are compared is in `population_cells.py`, the distances are in `distribution.py`, drawing
cells again in `population_draws.py`. A metric is named by its key: '<distance>/<embedding>', for
example 'scfid/all genes', or one of `PopulationMetric`.

Shape suffixes: C cells, D embedding, S draws, V vocabulary, P conditions.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from c2s_rl.cells.sentence import sentence_to_expression, stable_hash
from c2s_rl.evaluation.cell_metrics import Yardstick
from c2s_rl.evaluation.distribution import (
    DISTRIBUTION_METRICS,
    DistributionMetric,
    distribution_metrics,
)
from c2s_rl.evaluation.expression_change import ChangedGenes, changed_genes, top_overlap
from c2s_rl.evaluation.matching import MATCHING_METRICS, MatchingMetric, discrimination_score
from c2s_rl.evaluation.metric_info import DistributionInfo
from c2s_rl.evaluation.metrics import Better, MetricInfo
from c2s_rl.evaluation.population_cells import CellSample, ConditionCells, Populations
from c2s_rl.evaluation.population_draws import draw_rows, fewer_dimensions, resampled_distances
from c2s_rl.evaluation.program import ssgsea
from c2s_rl.evaluation.rank import DoubleArray, IndexArray
from c2s_rl.models.cell_embedder import CellEmbedder
from c2s_rl.types import FloatArray, IntArray

NUM_CHANGED = 50  # genes up and genes down whose overlap counts, as in the reward of that name
ACTIVITY = "program_activity"
ACTIVITY_ERROR = "program_activity_error"
CHANGED_GENES = "changed_genes"
DISCRIMINATION = MatchingMetric.DISCRIMINATION.value

_HALVES = "real cell: one half of the real cells against the other half"
_SSGSEA = "Barbie et al. 2009, doi:10.1038/nature08460; C2S-Scale 4.8"
POPULATION_METRICS: Mapping[str, MetricInfo] = {
    ACTIVITY: MetricInfo(
        "program activity",
        "Mean ssGSEA enrichment of the program over the cells: 1 = its genes are the highest, 0 = "
        "anywhere. Right is what real cells have.",
        Better.NEITHER,
        unit="ssGSEA score, -1 to 1",
        source=_SSGSEA,
        baseline="copy control",
        ceiling="real cell: what the other half of the real cells has",
    ),
    ACTIVITY_ERROR: MetricInfo(
        "program activity, error",
        "How far the mean activity of the answers is from that of the condition's real cells.",
        Better.LOWER,
        best=0.0,
        unit="ssGSEA score",
        source=_SSGSEA,
        baseline="copy control",
        ceiling=_HALVES,
    ),
    CHANGED_GENES: MetricInfo(
        "changed genes found",
        f"Share of the {NUM_CHANGED} genes that rise most and the {NUM_CHANGED} that fall most in "
        "the real cells against controls that also do so in the answers.",
        Better.HIGHER,
        decimals=1,
        is_share=True,
        best=1.0,
        unit="share",
        source="overlap at k of cell-eval, by direction",
        baseline="copy control",
        ceiling=_HALVES,
    ),
}


@dataclass(frozen=True, eq=False)
class Estimate:
    """A metric of one method in one condition."""

    value: float
    """Of the cells as they are; may be nan."""
    draws_S: DoubleArray
    """[S] of cells drawn again; empty without draws."""


Estimates = dict[str, dict[str, dict[str, Estimate]]]
"""Method, then key of the metric, then condition."""


@dataclass(frozen=True, eq=False)
class Measuring:
    """What populations are measured with."""

    embedders: Mapping[str, CellEmbedder]
    """Label to embedding."""
    yardstick: Yardstick
    """Program, rank model and vocabulary."""
    draws: int
    """S."""
    seed: int
    """Seeds draws."""
    is_by_donor: bool
    """Draw donors, the same ones on both sides and in every condition."""


def metric_rows(embeddings: Sequence[str]) -> dict[str, MetricInfo]:
    """Every metric of populations that an evaluation can hold, in table order."""
    rows = {
        _key(metric, label): _as_info(DISTRIBUTION_METRICS[metric], f", {label}")
        for label in embeddings
        for metric in DistributionMetric
    }
    rows |= POPULATION_METRICS
    rows[DISCRIMINATION] = _as_info(MATCHING_METRICS[MatchingMetric.DISCRIMINATION], "")
    return rows


def measure_populations(populations: Populations, measuring: Measuring) -> Estimates:
    """Measure every method in every condition."""
    estimates: Estimates = defaultdict(lambda: defaultdict(dict))
    profiles: dict[str, _Profiles] = {}
    everyone = sorted(
        {unit for cells in populations.by_condition.values() for unit in _all_units(cells)}
    )
    for condition, cells in populations.by_condition.items():
        rows = _drawn(cells, measuring, everyone if measuring.is_by_donor else None)
        _measure_distances(estimates, condition, cells, measuring, rows)
        profiles[condition] = _measure_expression(estimates, condition, cells, measuring, rows)
    for method, scores in _discrimination(profiles).items():
        estimates[method][DISCRIMINATION] = scores
    return {method: dict(by_key) for method, by_key in estimates.items()}


def _key(metric: DistributionMetric, embedding: str) -> str:
    return f"{metric.value}/{embedding}"


def _as_info(info: DistributionInfo, suffix: str) -> MetricInfo:
    return MetricInfo(
        info.label + suffix,
        info.meaning,
        info.better,
        decimals=info.decimals,
        best=info.best,
        unit=info.unit,
        source=info.source,
        baseline=info.baseline,
        ceiling=info.ceiling,
    )


REFERENCE = ""  # among the samples of a condition; no method is called that


def _samples(cells: ConditionCells) -> dict[str, CellSample]:
    return {REFERENCE: cells.reference, **cells.by_method, **cells.single}


def _all_units(cells: ConditionCells) -> set[str]:
    return {unit for sample in _samples(cells).values() for unit in sample.units}


def _drawn(
    cells: ConditionCells, measuring: Measuring, donors: Sequence[str] | None
) -> dict[str, list[IndexArray]]:
    """Rows of every sample in every draw; policies of the same prompts get the same prompts."""
    return {
        name: draw_rows(
            sample.units,
            sorted(set(sample.units)) if donors is None else donors,
            num_draws=measuring.draws,
            seed=measuring.seed,
        )
        for name, sample in _samples(cells).items()
    }


def _measure_distances(
    estimates: Estimates,
    condition: str,
    cells: ConditionCells,
    measuring: Measuring,
    rows: Mapping[str, list[IndexArray]],
) -> None:
    names = [REFERENCE, *cells.by_method]
    samples = [_samples(cells)[name] for name in names]
    bounds = np.cumsum([len(sample.cells) for sample in samples])[:-1]
    seed = stable_hash(f"distances|{condition}", measuring.seed) % 2**32
    for label, embedder in measuring.embedders.items():
        embedded_C_D = embedder.embed([genes for sample in samples for genes in sample.cells])
        real_C_D, *others = np.split(fewer_dimensions(embedded_C_D), bounds)
        for name, generated_C_D in zip(names[1:], others, strict=True):
            values = distribution_metrics(real_C_D, generated_C_D, seed)
            draws = resampled_distances(real_C_D, generated_C_D, rows[REFERENCE], rows[name])
            for metric, value in values.items():
                estimates[name][_key(metric, label)][condition] = Estimate(value, draws[metric])


@dataclass(frozen=True, eq=False)
class _Profiles:
    """Mean expression of a condition's populations, minus that of its controls if there are any."""

    real_V: DoubleArray
    by_method: Mapping[str, DoubleArray]
    has_controls: bool


def _measure_expression(
    estimates: Estimates,
    condition: str,
    cells: ConditionCells,
    measuring: Measuring,
    rows: Mapping[str, list[IndexArray]],
) -> _Profiles:
    """Program activity and changed genes; returns the effects for discrimination."""
    program_N = measuring.yardstick.program_N
    expression = {name: _expression(s, measuring) for name, s in _samples(cells).items()}
    has_controls = bool(cells.controls.cells)
    control_V = _expression(cells.controls, measuring).mean(axis=0) if has_controls else 0.0
    effects = {name: cells_C_V - control_V for name, cells_C_V in expression.items()}
    real_C_V = effects[REFERENCE]
    activity = _activity(expression, program_N)
    changed = changed_genes(real_C_V.mean(axis=0, dtype=np.float64), NUM_CHANGED)
    for name, generated_C_V in effects.items():
        if name == REFERENCE:
            continue
        found = estimates[name]
        if activity:
            own = _mean_activity(activity[name], rows[name])
            real = _mean_activity(activity[REFERENCE], rows[REFERENCE])
            error = Estimate(abs(own.value - real.value), np.abs(own.draws_S - real.draws_S))
            found[ACTIVITY][condition] = own
            found[ACTIVITY_ERROR][condition] = error
        if has_controls and len(changed.both_M):
            found[CHANGED_GENES][condition] = _changed(generated_C_V, changed, rows[name])
    return _Profiles(
        real_V=real_C_V.mean(axis=0, dtype=np.float64),
        by_method={
            name: cells_C_V.mean(axis=0, dtype=np.float64)
            for name, cells_C_V in effects.items()
            if name != REFERENCE
        },
        has_controls=has_controls,
    )


def _expression(sample: CellSample, measuring: Measuring) -> FloatArray:
    """[C, V] log1p(CP10k) by rank."""
    yardstick = measuring.yardstick
    return np.stack(
        [
            sentence_to_expression(genes_K, yardstick.rank_model, yardstick.num_vocabulary)
            for genes_K in sample.cells
        ]
    )


def _activity(expression: Mapping[str, FloatArray], program_N: IntArray) -> dict[str, DoubleArray]:
    """Score the program in the cells of every sample; nothing where it is all genes there are."""
    if len(program_N) == next(iter(expression.values())).shape[1]:
        return {}
    scores = ssgsea(np.concatenate(list(expression.values())), program_N)
    bounds = np.cumsum([len(cells) for cells in expression.values()])[:-1]
    return dict(zip(expression, np.split(scores, bounds), strict=True))


def _mean_activity(activity_C: DoubleArray, rows_S: Sequence[IndexArray]) -> Estimate:
    return Estimate(float(activity_C.mean()), _means(activity_C[:, None], rows_S)[:, 0])


def _changed(
    generated_C_V: FloatArray, changed: ChangedGenes, rows_S: Sequence[IndexArray]
) -> Estimate:
    """Overlap of the most changed genes; those of the real cells stay as they are in draws."""
    effect_V = generated_C_V.mean(axis=0, dtype=np.float64)
    is_drawn = np.array([len(rows) > 0 for rows in rows_S], dtype=bool)
    draws_S = np.full(len(rows_S), np.nan)
    if is_drawn.any():
        effects_S_V = _means(generated_C_V, rows_S)[is_drawn]
        draws_S[is_drawn] = top_overlap(effects_S_V, changed)
    return Estimate(float(top_overlap(effect_V[None, :], changed)[0]), draws_S)


def _means(values_C_V: DoubleArray | FloatArray, rows_S: Sequence[IndexArray]) -> DoubleArray:
    """[S, V] means over the rows of each draw; nan where it has none."""
    times_S_C = np.zeros((len(rows_S), len(values_C_V)))
    for s, rows in enumerate(rows_S):
        np.add.at(times_S_C[s], rows, 1.0)
    num_S = times_S_C.sum(axis=1, keepdims=True)
    shares_S_C = np.full(times_S_C.shape, np.nan)
    np.divide(times_S_C, num_S, out=shares_S_C, where=num_S > 0)
    means: DoubleArray = shares_S_C @ values_C_V
    return means


def _discrimination(profiles: Mapping[str, _Profiles]) -> dict[str, dict[str, Estimate]]:
    """Score of every method that answered in all conditions; none with fewer than two of them.

    Effects are changes against controls where every condition has some, else plain profiles.
    """
    if len(profiles) < 2 or len({p.has_controls for p in profiles.values()}) > 1:
        return {}
    real_P_V = np.stack([profile.real_V for profile in profiles.values()])
    shared = set.intersection(*(set(profile.by_method) for profile in profiles.values()))
    scores: dict[str, dict[str, Estimate]] = {}
    for method in sorted(shared):
        generated_P_V = np.stack([profile.by_method[method] for profile in profiles.values()])
        values_P = discrimination_score(real_P_V, generated_P_V).tolist()
        scores[method] = {
            condition: Estimate(value, np.empty(0))
            for condition, value in zip(profiles, values_P, strict=True)
        }
    return scores
