"""What a table says about a metric of populations beside its value.

Metrics of single answers have their own, smaller record (`cell_metrics.MetricInfo`): they are read
against methods in the same table. A distance between populations means nothing without what an
uninformed and a perfect answer would get, so these say it.
"""

from dataclasses import dataclass

from c2s_rl.evaluation.cell_metrics import Better


@dataclass(frozen=True)
class DistributionInfo:
    """How a metric is called, read and bounded."""

    label: str
    """Short name for table rows and axes."""
    meaning: str
    """One line for a biologist."""
    better: Better
    """Which way it improves."""
    best: float
    """Value of a perfect answer when there are cells without end."""
    unit: str
    """Unit; 'embedding' is the unit of the vectors, so values of two embedders do not compare."""
    baseline: str
    """The null answer that it must be read against."""
    ceiling: str
    """What limits it for real cells."""
    source: str
    """Paper and equation."""
    decimals: int = 3
    """Digits after the point that are worth printing."""
