"""A comparison of runs as one HTML page that opens anywhere, without network."""

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from c2s_rl.evaluation.compare import Comparison
from c2s_rl.evaluation.compare_plot import gain_picture
from c2s_rl.evaluation.compare_table import compare_blocks, policy_names
from c2s_rl.evaluation.plots import Picture


def render_comparison(comparison: Comparison) -> str:
    """Lay out the page; everything that comes from data is escaped."""
    environment = Environment(
        loader=PackageLoader("c2s_rl.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["svg"] = _trusted
    return environment.get_template("compare.html").render(
        comparison=comparison,
        names=policy_names(comparison),
        picture=gain_picture(comparison),
        blocks=compare_blocks(comparison),
        runs=[run for group in comparison.groups for run in group.runs],
    )


def _trusted(picture: Picture) -> Markup:
    return Markup(picture.svg)
