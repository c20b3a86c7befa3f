"""Sizes of a GPT-NeoX that no engine takes."""

import pytest

from c2s_rl.config import validate
from c2s_rl.errors import ConfigError
from c2s_rl.models.shape import GptNeoxShape


@pytest.mark.parametrize(
    ("hidden_size", "num_heads", "message"),
    [
        (96, 5, "hidden_size must be a multiple of num_heads, got 96 and 5"),
        (96, 2, r"hidden_size / num_heads must be one of \(32, .*\), got 96 / 2"),
    ],
)
def test_heads_that_no_engine_takes_are_refused(
    hidden_size: int, num_heads: int, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(GptNeoxShape, {"hidden_size": hidden_size, "num_heads": num_heads}, "a.yaml")
