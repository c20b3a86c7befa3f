"""Metrics of whole populations: distances, program activity, discrimination, with intervals.

Per condition, then averaged over conditions, as in C2S-Scale 4.6.9. Which cells are compared is in
`population_cells.py`, the distances are in `distribution.py`, drawing again in
`population_draws.py`. A metric is named '<distance>/<embedding>', for example 'scfid/all genes'.

Intervals are value +- 1.96 bootstrap standard errors: drawn are the prompts of a policy with all
their answers, the real cells, or donors with both. The discrimination score draws conditions.

Shape suffixes: C cells, D embedding, S draws, V vocabulary.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from c2s_rl.cells.sentence import stable_hash
from c2s_rl.evaluation.bootstrap import Interval, standard_error_ends, stratified_interval
from c2s_rl.evaluation.cell_metrics import Yardstick
from c2s_rl.evaluation.distribution import (
    DISTRIBUTION_METRICS,
    DistributionMetric,
    distribution_metrics,
)
from c2s_rl.evaluation.matching import (
    MATCHING_METRICS,
    MatchingMetric,
    discrimination_score,
)
from c2s_rl.evaluation.metric_info import DistributionInfo
from c2s_rl.evaluation.metrics import Better, MetricInfo
from c2s_rl.evaluation.population_cells import CellSample, ConditionCells, Populations
from c2s_rl.evaluation.population_draws import fewer_dimensions, resampled_distances
from c2s_rl.evaluation.program import ssgsea
from c2s_rl.evaluation.rank import DoubleArray, IndexArray
from c2s_rl.models.cell_embedder import CellEmbedder
from c2s_rl.models.rank_expression import expression_rows
