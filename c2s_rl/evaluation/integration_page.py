"""A page for FOSCTTM: where both views of the samples lie, and how far each partner was found.

Left out: the numbers (`matching.py`). The plane is that of the two leading principal components of
both views together, for which distances mean what they mean in the full space as far as two axes
can show them; no UMAP.

Shape suffixes: S samples, D hidden size.
"""

import html
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from c2s_rl.evaluation.plots import POLICY_COLOURS, REAL_COLOUR, Picture, light_grid, style, to_svg
from c2s_rl.evaluation.rank import DoubleArray

MAX_COLOURS = len(POLICY_COLOURS)


def integration_page(
    title: str,
    facts: Mapping[str, str],
    pictures: Sequence[Picture],
) -> str:
    """Write a self-contained HTML page.

    Args:
        title: Heading.
        facts: Name to value, one line of the table each.
        pictures: Figures, in order.
    """
    rows = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>"
        for name, value in facts.items()
    )
    figures = "".join(
        f"<figure>{picture.svg}<figcaption>{html.escape(picture.caption)}</figcaption></figure>"
        for picture in pictures
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>{html.escape(title)}</title><style>"
        "body{font:15px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem}"
        "th{text-align:left;font-weight:normal;color:#555;padding-right:2rem}"
        "figure{margin:2rem 0}figcaption{color:#555;max-width:48rem}svg{width:100%}"
        f"</style></head><body><h1>{html.escape(title)}</h1><table>{rows}</table>{figures}"
        "</body></html>\n"
    )


def views_picture(
    first_S_D: DoubleArray,
    second_S_D: DoubleArray,
    closer_S: DoubleArray,
    groups_S: Sequence[str],
    names: tuple[str, str],
) -> Picture:
    """Draw both views on one plane with a line between partners, and the shares of closer samples.

    Args:
        first_S_D: [S, D] the first view.
        second_S_D: [S, D] the second, in the same order.
        closer_S: [S] share of other samples that are closer than the partner.
        groups_S: [S] label that colours a sample.
        names: What the two views are.
    """
    plane = _plane(np.concatenate([_unit(first_S_D), _unit(second_S_D)]))
    first_S_2, second_S_2 = plane[: len(first_S_D)], plane[len(first_S_D) :]
    with mpl.rc_context(style()):
        figure = Figure(figsize=(10.5, 4.6), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(3, 2))
        _draw_pairs(left, (first_S_2, second_S_2), groups_S, names)
        right.hist(closer_S, bins=np.linspace(0, 1, 21).tolist(), color=POLICY_COLOURS[1])
        right.axvline(0.5, color=REAL_COLOUR, linewidth=1, linestyle="--", label="random")
        right.set_xlabel("share of other samples closer than the partner")
        right.set_ylabel("samples")
        right.set_title("How far down the partner was found")
        right.legend()
        light_grid(right, "y")
        svg = to_svg(figure)
    caption = (
        f"Left: every sample twice, as {names[0]} (circle) and as {names[1]} (cross), joined by a "
        "line, on the two leading principal components of the unit vectors of both views. Short "
        "lines beside long ways to other samples are good. Right: 0 means that the partner is the "
        "nearest of all."
    )
    return Picture(svg, caption)


def _draw_pairs(
    axes: Axes,
    views: tuple[DoubleArray, DoubleArray],
    groups_S: Sequence[str],
    names: tuple[str, str],
) -> None:
    first_S_2, second_S_2 = views
    known = sorted(set(groups_S))
    group_S = np.array(groups_S)
    for one, other in zip(first_S_2, second_S_2, strict=True):
        axes.plot(*zip(one, other, strict=True), color="#BBBBBB", linewidth=0.6, zorder=1)
    # Colours are few: what has none of its own is grey.
    colours = dict(zip(known, POLICY_COLOURS, strict=False)) if len(known) <= MAX_COLOURS else {}
    for name in known if colours else ["all samples"]:
        is_here = group_S == name if colours else np.ones(len(group_S), dtype=np.bool_)
        colour = colours.get(name, REAL_COLOUR)
        x, y = first_S_2[is_here].T
        axes.scatter(x, y, s=22, marker="o", color=colour, label=name, zorder=2)
        x, y = second_S_2[is_here].T
        axes.scatter(x, y, s=26, marker="x", color=colour, zorder=2)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel("PC 1 (no unit)")
    axes.set_ylabel("PC 2 (no unit)")
    axes.set_title(f"{names[0]} and {names[1]}")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=3, fontsize=8)


def _unit(vectors_S_D: DoubleArray) -> DoubleArray:
    lengths = np.linalg.norm(vectors_S_D, axis=1, keepdims=True)
    unit: DoubleArray = vectors_S_D / np.where(lengths == 0, 1, lengths)
    return unit


def _plane(vectors: DoubleArray) -> DoubleArray:
    """[rows, 2] scores on two principal components; signs fixed, so that pictures do not flip."""
    centred = vectors - vectors.mean(axis=0)
    _, _, right = np.linalg.svd(centred, full_matrices=False)
    axes = np.zeros((2, vectors.shape[1]))
    axes[: min(2, len(right))] = right[:2]
    signs = np.sign(axes[np.arange(2), np.abs(axes).argmax(axis=1)])
    scores: DoubleArray = centred @ axes.T * np.where(signs == 0, 1, signs)
    return scores
