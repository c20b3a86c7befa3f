"""Rules of the sections for tissue, interactions and texts that need no cells."""

import re

import pytest

from c2s_rl.config import validate
from c2s_rl.data.corpus_config import CorpusConfig
from c2s_rl.errors import ConfigError

BLOCKS = {"num": [2, 2], "buffer": 0.1}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"tasks": ["same_niche"], "spatial": {}}, "same_niche needs spatial.niche_column, got"),
        ({"tasks": ["same_niche"]}, "spatial must be given for task same_niche, got None"),
        ({"spatial": {}}, "spatial must be given for task niche_annotation or"),
        (
            {"tasks": ["neighbour_generation"], "spatial": {"radius": 0}},
            "greater than 0, got 0 at 'spatial.radius'",
        ),
        (
            {"tasks": ["neighbour_generation"], "spatial": {"raduis": 1}},
            "got 'spatial.raduis' in c.yaml; did you mean 'radius'",
        ),
        (
            {"tasks": ["same_neighbourhood"], "spatial": {"cells_per_question": 1}},
            "greater than or equal to 2, got 1",
        ),
        (
            {
                "tasks": ["neighbour_generation"],
                "spatial": {"radius": 0.5},
                "split": {"spatial_blocks": BLOCKS},
            },
            "buffer must be at least spatial.radius, or neighbourhoods cross the line, got 0.1 < 0",
        ),
        (
            {
                "tasks": ["neighbour_generation"],
                "spatial": {"x": "x_um"},
                "split": {"spatial_blocks": BLOCKS},
            },
            "spatial and split.spatial_blocks must have the same x, got 'x_um' and 'x'",
        ),
        (
            {"tasks": ["gene_partners"]},
            "gene_interactions must be given for task gene_partners, got None",
        ),
        (
            {"tasks": ["cluster_captioning"], "captions": {"path": "a.tsv"}},
            "a required config key must be given, got no 'captions.cluster_column'",
        ),
        (
            {"tasks": ["dataset_interpretation"], "interpretations": {"path": "a.tsv"}},
            "multi_cell must be given for task dataset_interpretation",
        ),
    ],
)
def test_rules_are_checked_before_any_cell_is_read(data: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        validate(CorpusConfig, data, "c.yaml")


def test_columns_of_the_sections_are_read() -> None:
    config = CorpusConfig.model_validate(
        {
            "tasks": ["same_niche", "cluster_captioning"],
            "spatial": {"x": "x_um", "y": "y_um", "niche_column": "niche"},
            "captions": {"path": "a.tsv", "cluster_column": "leiden"},
            "split": {"spatial_blocks": {"x": "x_um", "y": "y_um", "size": 1.0}},
        }
    )
    assert config.obs_columns == ("cell_type", "x_um", "y_um", "niche", "leiden")
