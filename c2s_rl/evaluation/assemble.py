"""From scored answers to the report: draws the pictures and picks the samples.

Scores are not computed here (`summary.py`), nor is HTML written (`report.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest

from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.evaluation.cell_map import REAL, LabelledCells, map_cells
from c2s_rl.evaluation.cell_metrics import Yardstick
from c2s_rl.evaluation.cell_plots import rank_fit, rank_profile, umap_picture
from c2s_rl.evaluation.correlation_plot import correlation_picture
from c2s_rl.evaluation.forest_plot import forest
from c2s_rl.evaluation.learning_curve import Best, CurvePoint
from c2s_rl.evaluation.plots import Picture
from c2s_rl.evaluation.population_plot import population_panels
from c2s_rl.evaluation.probes import probe_ruler
from c2s_rl.evaluation.real_cells import RealCells
from c2s_rl.evaluation.report import Pictures, RunInfo, render_report
from c2s_rl.evaluation.result import Evaluation
from c2s_rl.evaluation.reward_correlation import RewardCorrelation
from c2s_rl.evaluation.samples import make_samples
from c2s_rl.evaluation.training_plot import training_curves
from c2s_rl.evaluation.watch_section import WatchSection, policy_probes, watch_section
from c2s_rl.prompts.tasks import TASK_RULES
from c2s_rl.types import Group, Split


@dataclass(frozen=True, eq=False)
class ReportMaterial:
    """What pictures and samples are made from."""

    evaluation: Evaluation
    """All numbers."""
    groups: Mapping[str, Sequence[Group]]
    """Policy to its answers, one group a prompt, all in one order."""
    real: RealCells
    """Measured cells."""
    yardstick: Yardstick
    """Program, rank model and cut."""
    vocabulary: Vocabulary
    """Gene symbols."""
    curve: Sequence[CurvePoint] = ()
    """Evaluations during training, by step."""
    best: Best | None = None
    """The best of them."""
    num_shared: int = 0
    """Evaluated prompts of the part of the held-out ones that such evaluations choose by."""


def assemble_report(
    material: ReportMaterial,
    run: RunInfo,
    *,
    metrics: Sequence[Mapping[str, float]],
    max_map_cells: int,
    num_samples: int,
    correlation: RewardCorrelation | None = None,
) -> str:
    """Make the report's HTML.

    Args:
        material: Numbers, answers and cells.
        run: What the report says about the run.
        metrics: Steps of the alignment; empty draws no curves.
        max_map_cells: Most cells of one origin on the map; 0 draws none.
        num_samples: Conditions to show sentences of.
        correlation: Of the rewards of the alignment; None draws none.
    """
    yardstick, evaluation = material.yardstick, material.evaluation
    profile = rank_profile(material.real.cells)
    pictures = Pictures(
        training=training_curves(metrics),
        forest=forest(evaluation),
        cell_map=_map_picture(material, max_map_cells) if max_map_cells else None,
        rank_fit=rank_fit(profile, yardstick.rank_model, yardstick.num_genes),
        population=population_panels(evaluation),
        rewards=correlation_picture(correlation) if correlation else None,
    )
    samples = make_samples(
        material.groups,
        material.vocabulary,
        frozenset(yardstick.program_N.tolist()),
        num_genes=yardstick.num_genes,
        num_samples=num_samples,
    )
    return render_report(evaluation, run, pictures, samples, _watch(material), correlation)


def _watch(material: ReportMaterial) -> WatchSection:
    first = next(iter(material.groups.values()))[0]
    ruler = probe_ruler(
        material.vocabulary,
        material.yardstick.num_genes,
        has_cells=TASK_RULES[first.record.task].is_cell_sentence,
    )
    probes = policy_probes(material.groups, material.real, ruler, seed=material.evaluation.seed)
    return watch_section(material.curve, material.best, probes, num_shared=material.num_shared)


def _map_picture(material: ReportMaterial, max_cells: int) -> Picture | None:
    """Draw held-out real cells of the evaluated conditions and the policies' answers to them."""
    cells = {REAL: _real_cells(material)}
    cells |= {name: _answers(groups) for name, groups in material.groups.items()}
    cell_map = map_cells(
        cells, material.yardstick, max_cells=max_cells, seed=material.evaluation.seed
    )
    return None if cell_map is None else umap_picture(cell_map)


def _real_cells(material: ReportMaterial) -> LabelledCells:
    """One cell of each condition in turn, so that a cut keeps all conditions."""
    real = material.real
    pools = [
        [(row, condition) for row in rows]
        for condition, rows in real.target_rows[Split.TEST].items()
        if condition in material.evaluation.conditions
    ]
    in_turn = [pair for pair in chain.from_iterable(zip_longest(*pools)) if pair is not None]
    return LabelledCells(
        [real.cells.genes_of(row) for row, _ in in_turn], [condition for _, condition in in_turn]
    )


def _answers(groups: Sequence[Group]) -> LabelledCells:
    """First answers to all prompts, then second ones, and so on; empty answers are no cells."""
    pairs = [
        (cell.genes_K, group.record.condition)
        for cells in zip(*(group.cells_G for group in groups), strict=True)
        for cell, group in zip(cells, groups, strict=True)
        if len(cell.genes_K)
    ]
    return LabelledCells([genes for genes, _ in pairs], [condition for _, condition in pairs])
