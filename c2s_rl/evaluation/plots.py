"""How pictures look: colours, marks, and SVG text that can stand inside an HTML page.

The figures themselves are in `training_plot.py`, `forest_plot.py` and `cell_plots.py`. No pyplot:
figures are plain objects without global state, and nothing opens a window.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's palette, told apart with all common forms of colour blindness
# (https://jfly.uni-koeln.de/color/); the order keeps the first two far apart in grey print too.
POLICY_COLOURS = ("#E69F00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
POLICY_MARKS = ("o", "D", "s", "^", "v", "P")
REAL_COLOUR = "#6B6B6B"
GRID_COLOUR = "#E3E3E3"

STYLE: dict[str, object] = {
    "svg.fonttype": "none",  # letters stay letters: selectable, and a fifth of the size
    "svg.hashsalt": "c2s-rl",  # equal figures give equal bytes
    "text.parse_math": False,  # a '$' in a gene or condition name is a character
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "legend.frameon": False,
}


@dataclass(frozen=True)
class Picture:
    """A figure for the report."""

    svg: str
    """An <svg> element without prologue, metadata or outside addresses."""
    caption: str
    """What is seen, in words a biologist reads."""


def to_svg(figure: Figure) -> str:
    """Render a figure to an <svg> element that scales with the page.

    Call it inside `mpl.rc_context(STYLE)`, like the drawing itself.
    """
    buffer = io.StringIO()
    metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", metadata=metadata, bbox_inches="tight")
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]  # the prologue names a DTD on a server
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # In an HTML page the namespaces are implied, and fixed points would not scale.
    svg = re.sub(r'\s+xmlns(:xlink)?="[^"]*"', "", svg)
    svg = svg.replace("xlink:href", "href")
    # Group names repeat from figure to figure; only names with a hash are referred to.
    svg = re.sub(r'\s+id="(?!C\d)[\w.]+_\d+"', "", svg)
    width = re.search(r'<svg[^>]*? width="([\d.]+)pt"', svg)
    svg = re.sub(r'(<svg[^>]*?) height="[\d.]+pt"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) width="[\d.]+pt"', r'\1 role="img"', svg, count=1)
    if width:
        # CSS pixels: a point is 4/3 of one. Wider pages do not blow letters up.
        svg = svg.replace("<svg", f'<svg style="max-width:{float(width[1]) * 4 / 3:.0f}px"', 1)
    svg = svg.replace("'DejaVu Sans'", "system-ui, 'DejaVu Sans', Arial")
    return svg.strip()


def style() -> "mpl.RcParams":
    """Return the style's settings, for `mpl.rc_context`."""
    return mpl.RcParams(STYLE)


def colours_of(policies: Sequence[str]) -> dict[str, str]:
    """Give each policy its colour, by order."""
    return {name: POLICY_COLOURS[i % len(POLICY_COLOURS)] for i, name in enumerate(policies)}


def marks_of(policies: Sequence[str]) -> dict[str, str]:
    """Give each policy its mark, by order: colour is never the only difference."""
    return {name: POLICY_MARKS[i % len(POLICY_MARKS)] for i, name in enumerate(policies)}


def light_grid(axes: Axes, axis: str = "both") -> None:
    """Draw thin lines behind the data."""
    axes.set_axisbelow(True)
    if axis in {"both", "x"}:
        axes.xaxis.grid(visible=True, color=GRID_COLOUR, linewidth=0.8)
    if axis in {"both", "y"}:
        axes.yaxis.grid(visible=True, color=GRID_COLOUR, linewidth=0.8)
