"""Every metric says how it is to be read."""

import pytest

from c2s_rl.evaluation.metrics import METRICS, Better, Metric
from c2s_rl.evaluation.population_metrics import metric_rows

ROWS = dict(METRICS) | metric_rows(["all genes", "program genes"])


@pytest.mark.parametrize("key", list(ROWS))
def test_a_metric_names_unit_source_baseline_and_ceiling(key):
    info = ROWS[key]
    assert all((info.label, info.meaning, info.unit, info.source, info.baseline, info.ceiling))
    assert (info.best is None) is (info.better is Better.NEITHER)


def test_labels_tell_all_rows_apart():
    assert set(METRICS) == set(Metric)
    assert len({info.label for info in ROWS.values()}) == len(ROWS)
