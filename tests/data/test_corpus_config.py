"""The rules of CorpusConfig, each with its one-line error."""

import re

import pytest

from c2s_rl.config import FrozenConfig, validate
from c2s_rl.data.cell_columns import CellColumns
from c2s_rl.data.corpus_config import CorpusConfig
from c2s_rl.data.corpus_sections import TaskSections
from c2s_rl.errors import ConfigError

COLUMNS = {"condition_column": "condition", "control": "control"}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"tasks": ["perturbation_response"]}, "needs condition_column, got None"),
        ({"tasks": ["cell_generation", "cell_generation"]}, "tasks must differ, got"),
        ({"tasks": []}, "at least 1 item"),
        ({"tasks": ["cell_generaton"]}, "'cell_type_annotation', 'cell_generation'"),
        ({"condition_column": "condition"}, "must be given together, got 'condition' and None"),
        ({"control": "control"}, "must be given together, got None and 'control'"),
        (
            {**COLUMNS, "cell_type_column": "condition"},
            "condition_column and exposure_column must differ, got 'condition' twice",
        ),
        (
            {"templates": {"cell_type_annotation": "a.yaml"}},
            "templates must be for one of the tasks, got cell_type_annotation",
        ),
        (
            {**COLUMNS, "split": {"holdout": {"condition": ["IL6"]}}},
            "holding out values of condition needs test_fraction > 0",
        ),
        (
            {**COLUMNS, "split": {"holdout": {"condition": ["control"]}, "test_fraction": 0.1}},
            "held-out values of condition must be perturbations, got the control 'control'",
        ),
        (
            {**COLUMNS, "split": {"tiers": [{"where": {"condition": ["IL6"]}}]}},
            "holding out values of condition needs test_fraction > 0",
        ),
        (
            {"split": {"tiers": [{"where": {"donor": ["d1"]}}]}},
            "a tier must be made of cell_type, got 'donor'; use split.holdout for donors",
        ),
        ({"split": {"tiers": [{"where": {}}]}}, "at least 1 item"),
        (
            {"split": {"tiers": [{"where": {"cell_type": []}}]}},
            "a column of a tier must name values, got none for 'cell_type'",
        ),
        ({"exposure_column": "dose"}, "exposure_column needs condition_column, got 'dose' alone"),
        ({"num_genes": 0}, "greater than or equal to 1, got 0 at 'num_genes'"),
        ({"numgenes": 10}, "got 'numgenes' in c.yaml; did you mean 'num_genes'"),
        ({"split": {"test_fracton": 0.1}}, "did you mean 'test_fraction'"),
    ],
)
def test_rules_are_checked_before_any_cell_is_read(data: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        validate(CorpusConfig, data, "c.yaml")


def test_obs_columns_are_those_that_are_named_each_once() -> None:
    config = CorpusConfig.model_validate(
        {
            **COLUMNS,
            "donor_column": "donor",
            "split": {
                "holdout": {"cell_type": ["B"], "batch": ["1"]},
                "test_fraction": 0.1,
                "group_column": "donor",
            },
        }
    )
    assert config.obs_columns == ("cell_type", "condition", "donor", "batch")


@pytest.mark.parametrize("model", [CorpusConfig, CellColumns, TaskSections])
def test_no_part_of_the_config_has_more_than_fifteen_fields(model: type[FrozenConfig]) -> None:
    bases = [base for base in model.__bases__ if issubclass(base, FrozenConfig)]
    inherited = {name for base in bases for name in base.model_fields}
    assert len(set(model.model_fields) - inherited) <= 15
