import pytest

from c2s_rl.config import validate
from c2s_rl.errors import ConfigError
from c2s_rl.pipeline.pretrain import PretrainConfig
from c2s_rl.pipeline.sft import SftConfig


def test_defaults_are_those_of_the_methods() -> None:
    config = PretrainConfig()
    # methods.md section 2: next-token objective, lr 1e-5, linear decay, weight decay 0.01.
    assert (config.lr, config.weight_decay) == (1e-5, 0.01)
    assert (config.data.learn, config.data.packing, config.data.tasks) == ("all", True, None)
    assert (config.stage, SftConfig().stage) == ("pretrain", "sft")


def test_other_keys_of_the_data_leave_the_defaults_of_pretraining() -> None:
    config = validate(PretrainConfig, {"data": {"max_length": 4096}}, "a file")
    assert (config.data.learn, config.data.packing) == ("all", True)
    sft = validate(SftConfig, {"data": {"max_length": 4096}}, "a file")
    assert (sft.data.learn, sft.data.packing) == ("completion", False)


def test_unknown_key_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'evaluation'"):
        validate(PretrainConfig, {"evaluations": {}}, "a file")
