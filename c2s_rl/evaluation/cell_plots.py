"""Pictures of cells: a UMAP of real and generated ones, and how expression falls with rank."""

from collections import Counter
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, StrMethodFormatter

from c2s_rl.cells.sentence import RankForm, RankModel
from c2s_rl.data.cell_table import CellTable
from c2s_rl.evaluation.cell_map import REAL, CellMap
from c2s_rl.evaluation.plots import (
    POLICY_COLOURS,
    REAL_COLOUR,
    Picture,
    colours_of,
    light_grid,
    marks_of,
    style,
    to_svg,
)
from c2s_rl.evaluation.rank import DoubleArray, IndexArray

# Six policy colours and two more of the same palette.
CONDITION_COLOURS = (*POLICY_COLOURS, "#F0E442", "#000000")
NUM_RANKS_DRAWN = 60


def umap_picture(cell_map: CellMap) -> Picture:
    """Draw the map twice: coloured by where a cell comes from, and by condition."""
    with mpl.rc_context(style()):
        figure = Figure(figsize=(10.5, 4.9), layout="constrained")
        left, right = figure.subplots(1, 2)
        _draw_sources(left, cell_map)
        _draw_conditions(right, cell_map)
        for axes in (left, right):
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_xlabel("UMAP 1 (no unit)")
            axes.set_ylabel("UMAP 2 (no unit)")
            axes.legend(
                loc="upper center",
                bbox_to_anchor=(0.5, -0.06),
                ncols=3,
                fontsize=8,
                markerscale=1.8,
                handletextpad=0.2,
            )
        return Picture(to_svg(figure), _map_caption(cell_map))


def _draw_sources(axes: Axes, cell_map: CellMap) -> None:
    policies = [name for name in cell_map.sources if name != REAL]
    colours = colours_of(policies) | {REAL: REAL_COLOUR}
    marks = marks_of(policies) | {REAL: "."}
    source_C = np.array(cell_map.source_C)
    for name in cell_map.sources:
        xy = cell_map.xy_C_2[source_C == name]
        axes.scatter(
            xy[:, 0],
            xy[:, 1],
            s=22 if name == REAL else 11,
            marker=marks[name],
            color=colours[name],
            alpha=0.55 if name == REAL else 0.7,
            linewidths=0,
            label=f"{name} ({len(xy)})",
        )
    axes.set_title("By origin")


def _draw_conditions(axes: Axes, cell_map: CellMap) -> None:
    condition_C = np.array(cell_map.condition_C)
    frequent = [name for name, _ in Counter(cell_map.condition_C).most_common()]
    named = sorted(frequent[: len(CONDITION_COLOURS)])
    is_other_C = ~np.isin(condition_C, named)
    if is_other_C.any():
        xy = cell_map.xy_C_2[is_other_C]
        label = f"{len(frequent) - len(named)} other conditions"
        axes.scatter(xy[:, 0], xy[:, 1], s=7, color="#D9D9D9", linewidths=0, label=label)
    for colour, name in zip(CONDITION_COLOURS, named, strict=False):
        xy = cell_map.xy_C_2[condition_C == name]
        axes.scatter(
            xy[:, 0], xy[:, 1], s=12, color=colour, alpha=0.75, linewidths=0, label=_short(name)
        )
    axes.set_title("The same cells by condition")


def _short(name: str) -> str:
    return name if len(name) <= 26 else f"{name[:25]}…"


def _map_caption(cell_map: CellMap) -> str:
    return (
        "Each point is a cell; cells with similar expression lie close together. All cells, real "
        f"ones too, are read from sentences of at most {cell_map.num_genes} genes, so none has an "
        "advantage. Generated cells that mix with real ones of their condition are realistic; "
        "points piled up in one spot mean little variety. Distances between far groups mean "
        "nothing."
    )


@dataclass(frozen=True, eq=False)
class RankProfile:
    """Expression by rank, over cells."""

    ranks_R: IndexArray
    """[R] ranks looked at, from 1."""
    mean_R: DoubleArray
    """[R] mean log1p(CP10k) of the cells that have a gene at this rank."""
    low_R: DoubleArray
    """[R] 10 % quantile."""
    high_R: DoubleArray
    """[R] 90 % quantile."""


def rank_profile(cells: CellTable) -> RankProfile:
    """Measure expression at ranks spread evenly on a log scale."""
    lengths = np.diff(cells.indptr)
    grid = np.geomspace(1, lengths.max(), NUM_RANKS_DRAWN)
    ranks_R = np.unique(np.round(grid).astype(np.int64))
    at_rank = [cells.values[cells.indptr[:-1][lengths >= r] + r - 1] for r in ranks_R.tolist()]
    return RankProfile(
        ranks_R=ranks_R,
        mean_R=np.array([values.mean() for values in at_rank], dtype=np.float64),
        low_R=np.array([np.quantile(values, 0.1) for values in at_rank]),
        high_R=np.array([np.quantile(values, 0.9) for values in at_rank]),
    )


def rank_fit(profile: RankProfile, model: RankModel, num_genes: int) -> Picture:
    """Draw expression by rank, the fitted line, and how far a sentence reaches."""
    with mpl.rc_context(style()):
        figure = Figure(figsize=(6.6, 3.6), layout="constrained")
        axes = figure.add_subplot()
        axes.fill_between(
            profile.ranks_R,
            profile.low_R,
            profile.high_R,
            color=REAL_COLOUR,
            alpha=0.18,
            linewidth=0,
            label="8 of 10 cells",
        )
        axes.plot(profile.ranks_R, profile.mean_R, ".", color=REAL_COLOUR, label="mean over cells")
        line = model.expression(int(profile.ranks_R[-1]))[profile.ranks_R - 1]
        axes.plot(
            profile.ranks_R,
            line,
            color=POLICY_COLOURS[1],
            linewidth=2,
            label=f"fitted line, R² = {model.r2:.2f}",
        )
        axes.axvline(num_genes, color=POLICY_COLOURS[5], linestyle="--", linewidth=1.2)
        axes.annotate(
            f"sentences end here\n({num_genes} genes)",
            (num_genes, 0.98),
            xycoords=("data", "axes fraction"),
            xytext=(5, 0),
            textcoords="offset points",
            verticalalignment="top",
            color=POLICY_COLOURS[5],
            fontsize=8,
        )
        if model.form is RankForm.LOG_RANK:
            axes.set_xscale("log")
            # Matplotlib writes powers of ten as formulas, which `STYLE` switches off.
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("rank of the gene in its cell (1 = highest)")
        axes.set_ylabel("expression (logarithm)")
        axes.legend(fontsize=8, loc="lower left")
        light_grid(axes)
        return Picture(to_svg(figure), _fit_caption(model))


def _fit_caption(model: RankModel) -> str:
    what = "the logarithm of the rank" if model.form is RankForm.LOG_RANK else "the rank"
    return (
        f"How a sentence is read back as expression: expression falls about linearly with {what}. "
        f"The line explains {100 * model.r2:.0f} % of the variance of single values (R²); what it "
        "leaves is lost when a cell is written as a sentence."
    )
