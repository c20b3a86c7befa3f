import pytest

from c2s_rl.config import validate
from c2s_rl.data.token_config import SftDataConfig
from c2s_rl.errors import ConfigError

CELL, TYPE = "cell_generation", "cell_type_annotation"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"mixture": {CELL: 0}}, "a share of mixture must be a number above 0, got 0.0 for"),
        ({"mixture": {CELL: float("inf")}}, "a number above 0, got inf for 'cell_generation'"),
        ({"mixture": {"sing": 1}}, "data.mixture.sing|mixture.sing"),
        (
            {"tasks": [CELL], "mixture": {CELL: 1, TYPE: 1}},
            r"must name only tasks of tasks \(cell_generation\), got .*; see cell_type_annotation",
        ),
        (
            {"tasks": [CELL, TYPE], "mixture": {CELL: 1}},
            "mixture must name every task of tasks .*; see cell_type_annotation",
        ),
        ({"max_length": 2**31}, "max_length"),
        ({"too_long": "crop"}, "too_long"),
        ({"max_repeats": 0}, "max_repeats"),
    ],
)
def test_config_that_breaks_a_rule_is_refused(data: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(SftDataConfig, data, "a file")


def test_mixture_of_all_tasks_is_taken() -> None:
    config = validate(SftDataConfig, {"tasks": [CELL, TYPE], "mixture": {TYPE: 3, CELL: 1}}, "f")
    assert config.mixture == {TYPE: 3.0, CELL: 1.0}
