"""What the metrics of single answers are called, how they are read, and where they come from.

How they are computed is in `cell_metrics.py`; distances between populations have their own record
in `metric_info.py` and join this one's tables through `population.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Metric(StrEnum):
    """Names of the metrics, in the order of the tables."""

    PROGRAM_TAU = "program_tau"
    PROGRAM_TAU_DELTA = "program_tau_delta"
    PROGRAM_PEARSON = "program_pearson"
    ALL_TAU = "all_tau"
    ALL_PEARSON = "all_pearson"
    GENE_OVERLAP = "gene_overlap"
    VALIDITY = "validity"
    DUPLICATE_RATE = "duplicate_rate"
    UNKNOWN_RATE = "unknown_rate"
    TRUNCATED_RATE = "truncated_rate"
    NUM_WORDS = "num_words"


class Better(StrEnum):
    """Which way a metric improves."""

    HIGHER = "higher"
    LOWER = "lower"
    NEITHER = "neither"


@dataclass(frozen=True)
class MetricInfo:
    """How a metric is called, read and bounded."""

    label: str
    """Short name for table rows and axes."""
    meaning: str
    """One line for a biologist."""
    better: Better
    """Which way it improves."""
    decimals: int = 3
    """Digits after the point that are worth printing."""
    is_share: bool = False
    """Printed in percent."""
    best: float | None = None
    """Value of a perfect answer; None where there is none."""
    unit: str = ""
    """Unit of the value; '' where the label says it."""
    source: str = ""
    """Paper and equation, or where this project defines it."""
    baseline: str = ""
    """The null answer that it must be read against."""
    ceiling: str = ""
    """What limits it for real cells."""


_KENDALL = "Kendall 1945, doi:10.1093/biomet/33.3.239; C2S-Scale 4.5.2"
_PEARSON = "Pearson's product-moment correlation; C2S-Scale 4.6.9"
_OWN = "defined by this project"
_CLEAN = "0, real cells written as sentences"
_TYPICAL = "real mean: the mean of other real cells of the condition"


def _correlation(label: str, meaning: str, source: str, baseline: str) -> MetricInfo:
    return MetricInfo(
        label,
        meaning,
        Better.HIGHER,
        best=1.0,
        unit="correlation, -1 to 1",
        source=source,
        baseline=baseline,
        ceiling=_TYPICAL,
    )


def _rate(label: str, meaning: str) -> MetricInfo:
    """Of words or answers that should not be there."""
    return MetricInfo(
        label,
        meaning,
        Better.LOWER,
        decimals=1,
        is_share=True,
        best=0.0,
        unit="share",
        source=_OWN,
        baseline=_CLEAN,
        ceiling=_CLEAN,
    )


METRICS: Mapping[Metric, MetricInfo] = {
    Metric.PROGRAM_TAU: _correlation(
        "program tau",
        "Kendall's tau between the order of the program's genes in the answer and in the target: "
        "1 = same order, 0 = unrelated, -1 = reversed.",
        _KENDALL,
        "copy control, or mean cell where there is no control",
    ),
    Metric.PROGRAM_TAU_DELTA: _correlation(
        "program tau, change",
        "The same on changes of rank against the control cell: are the right genes moved up and "
        "down? Copying the control scores 0.",
        _KENDALL,
        "0, copy control",
    ),
    Metric.PROGRAM_PEARSON: _correlation(
        "program r",
        "Pearson correlation of the program genes' expression, answer against target, both read "
        "from their sentences.",
        _PEARSON,
        "copy control, or mean cell where there is no control",
    ),
    Metric.ALL_TAU: _correlation(
        "all-gene tau",
        "Kendall's tau over every gene of the data set; genes that an answer does not name are "
        "tied, so even a perfect answer stays far below 1.",
        _KENDALL,
        "mean cell",
    ),
    Metric.ALL_PEARSON: _correlation(
        "all-gene r",
        "Pearson correlation over every gene of the data set.",
        _PEARSON,
        "mean cell",
    ),
    Metric.GENE_OVERLAP: MetricInfo(
        "gene overlap",
        "Share of the target's top genes that the answer names, in any order.",
        Better.HIGHER,
        decimals=1,
        is_share=True,
        best=1.0,
        unit="share",
        source="C2S-Scale 4.2, overlap %",
        baseline="mean cell",
        ceiling=_TYPICAL,
    ),
    Metric.VALIDITY: MetricInfo(
        "valid words",
        "Share of words that are a known gene symbol, named for the first time.",
        Better.HIGHER,
        decimals=1,
        is_share=True,
        best=1.0,
        unit="share",
        source=_OWN,
        baseline="1, real cells written as sentences",
        ceiling="1, real cells written as sentences",
    ),
    Metric.DUPLICATE_RATE: _rate(
        "repeated genes", "Share of words that repeat a gene already named."
    ),
    Metric.UNKNOWN_RATE: _rate(
        "unknown words", "Share of words that are no gene symbol of the data set."
    ),
    Metric.TRUNCATED_RATE: _rate(
        "cut off", "Share of answers that hit the length limit before they ended."
    ),
    Metric.NUM_WORDS: MetricInfo(
        "length",
        "Words in an answer.",
        Better.NEITHER,
        decimals=1,
        unit="words",
        source="counted",
        baseline="the number of genes asked for",
        ceiling="the number of genes asked for",
    ),
}
