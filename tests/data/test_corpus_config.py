"""The rules of CorpusConfig, each with its one-line error."""

import re

import pytest

from c2s_rl.config import FrozenConfig, validate
from c2s_rl.data.cell_columns import CellColumns
from c2s_rl.data.corpus_config import CorpusConfig
from c2s_rl.data.corpus_sections import TaskSections
from c2s_rl.errors import ConfigError
from c2s_rl.types import PRETRAINING_TASKS, Task

SAMPLES = {"tasks": ["multi_cell_language_modelling"]}
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
        (
            {"split": {"per_perturbation": {}}},
            "split.per_perturbation needs condition_column and control, got None",
        ),
        (
            {"split": {"control_fraction": 0.5}},
            "split.control_fraction needs condition_column and control, got None",
        ),
        (
            {**COLUMNS, "split": {"per_perturbation": {}}},
            "needs test_fraction > 0 or a control_fraction, so that the test side has control",
        ),
        (
            {**COLUMNS, "split": {"per_perturbation": {"column": "condition"}}},
            "per_perturbation must divide each perturbation by another column, got 'condition'",
        ),
        (
            {"split": {"tiers": [{"draw": {"kind": "combination"}}]}},
            "a drawn tier needs condition_column and control, got None",
        ),
        (
            {**COLUMNS, "split": {"tiers": [{"draw": {"kind": "exposure"}}], "test_fraction": 0.5}},
            "a tier drawn exposure needs exposure_column, got None",
        ),
        ({"split": {"tiers": [{"where": {}}]}}, "exactly one of where and draw, got neither"),
        (
            {"split": {"tiers": [{"where": {"cell_type": []}}]}},
            "a column of a tier must name values, got none for 'cell_type'",
        ),
        ({"tasks": ["tissue_annotation"]}, "multi_cell must be given for one of the tasks multi_"),
        ({"multi_cell": {}}, "multi_cell must be given for one of the tasks multi_cell_language"),
        (
            {"tasks": ["tissue_annotation"], "multi_cell": {}},
            "tissue_annotation needs multi_cell.tissue_column, got None",
        ),
        (
            {"tasks": ["abstract_sample_generation"], "multi_cell": {}},
            "abstract_sample_generation needs multi_cell.abstracts or abstract_column, got neither",
        ),
        (
            {**SAMPLES, "multi_cell": {"cells_per_sample": [5, 3]}},
            "cells_per_sample must be a number >= 2 or [least, most], got [5, 3]",
        ),
        (
            {**SAMPLES, "multi_cell": {"cells_per_sample": 1}},
            "cells_per_sample must be a number >= 2 or [least, most], got [1, 1]",
        ),
        (
            {**SAMPLES, "multi_cell": {"abstracts": "a.tsv", "abstract_column": "text"}},
            "abstracts must come from abstract_column or a file, not both, got 'text' and a.tsv",
        ),
        (
            {**SAMPLES, "multi_cell": {"tisue_column": "t"}},
            "got 'multi_cell.tisue_column' in c.yaml; did you mean 'tissue_column'",
        ),
        ({"tasks": ["gene_set_naming"]}, "gene_sets must be given for one of the tasks gene_set_"),
        (
            {"tasks": ["gene_set_naming"], "gene_sets": {"min_genes": 9, "max_genes": 4}},
            "max_genes must be at least min_genes, got 4 < 9",
        ),
        ({"tasks": ["perturbation_annotation"]}, "perturbation_annotation needs condition_column"),
        ({"control_match": ["plate"]}, "control_match needs condition_column, got ['plate'] alone"),
        (
            {**COLUMNS, "control_match": ["plate", "condition"]},
            "control_match must not name what makes the treatment, got 'condition'",
        ),
        (
            {"token_budget": {"max_tokens": 100}},
            "token_budget must have one of tokens_per_gene and tokenizer, got None and None",
        ),
        (
            {"token_budget": {"max_tokens": 100, "tokens_per_gene": 5, "tokenizer": "x"}},
            "token_budget must have one of tokens_per_gene and tokenizer, got 5.0 and x",
        ),
        (
            {"token_budget": {"max_tokens": 99, "tokens_per_gene": 5}},
            "max_tokens must hold a sentence of min_genes = 20 genes, about 100 tokens, got 99",
        ),
        ({"style": "c2s"}, "Input should be 'c2s_rl' or 'cell2sentence', got 'c2s'"),
        (
            {"style": "cell2sentence", "templates": {"cell_generation": "a.yaml"}},
            "templates of one's own need style c2s_rl, got cell2sentence with a file for cell_gen",
        ),
        ({"tasks": "pretraning"}, "got 'pretraning' at 'tasks.0'"),
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


def test_one_word_stands_for_the_twelve_pretraining_tasks() -> None:
    sections = {
        "multi_cell": {"cells_per_sample": 7, "tissue_column": "t", "abstract_column": "a"},
        "gene_sets": {},
    }
    config = CorpusConfig.model_validate({"tasks": "pretraining", **sections})
    assert config.tasks == PRETRAINING_TASKS
    assert len(set(PRETRAINING_TASKS)) == 12
    assert config.multi_cell is not None
    assert config.multi_cell.cells_per_sample == (7, 7)
    assert config.obs_columns == ("cell_type", "t", "a")
    more = {**COLUMNS, **sections, "tasks": ["perturbation_response", "pretraining"]}
    assert CorpusConfig.model_validate(more).tasks == (
        Task.PERTURBATION_RESPONSE,
        *PRETRAINING_TASKS,
    )
    # What a manifest keeps is read again as it was.
    assert CorpusConfig.model_validate(config.model_dump(mode="json")) == config


@pytest.mark.parametrize("model", [CorpusConfig, CellColumns, TaskSections])
def test_no_part_of_the_config_has_more_than_fifteen_fields(model: type[FrozenConfig]) -> None:
    bases = [base for base in model.__bases__ if issubclass(base, FrozenConfig)]
    inherited = {name for base in bases for name in base.model_fields}
    assert len(set(model.model_fields) - inherited) <= 15
