"""A comparison of runs as one HTML page that opens anywhere, without network."""

from c2s_rl.evaluation.compare import Comparison
from c2s_rl.evaluation.compare_plot import gain_picture
from c2s_rl.evaluation.compare_table import compare_blocks, policy_names
from c2s_rl.evaluation.report import report_environment


def render_comparison(comparison: Comparison) -> str:
    """Lay out the page; everything that comes from data is escaped."""
    template = report_environment().get_template("compare.html")
    return template.render(
        comparison=comparison,
        names=policy_names(comparison),
        picture=gain_picture(comparison),
        blocks=compare_blocks(comparison),
        runs=[run for group in comparison.groups for run in group.runs],
    )
