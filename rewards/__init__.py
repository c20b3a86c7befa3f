"""Reward plug-ins. To add one: a file with a class, and its line in `REWARDS`.

A YAML file names a reward by its key here, or by `package.module:Class`.
"""

import difflib
import importlib
from collections.abc import Mapping

from pydantic import JsonValue

from c2s_rl.config import validate
from c2s_rl.errors import ConfigError
from rewards.base import Reward, RewardPlugin

REWARDS: dict[str, str] = {
    "kendall": "rewards.kendall:KendallReward",
    "scgpt": "rewards.scgpt:ScGPTReward",
    "validity": "rewards.validity:ValidityReward",
}


def reward_class(name: str) -> type[RewardPlugin]:
    """Find a plug-in's class by registry name or `package.module:Class`.

    Raises:
        ConfigError: If the name is unknown, cannot be imported, or is no reward class.
    """
    target = REWARDS.get(name, name)
    module_name, colon, class_name = target.partition(":")
    if not colon:
        near = difflib.get_close_matches(name, REWARDS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(REWARDS)}"
        raise ConfigError(f"a reward must be known or package.module:Class, got {name!r}; {hint}")
    try:
        found = vars(importlib.import_module(module_name)).get(class_name)
    except ImportError as error:
        raise ConfigError(f"a reward must be importable, got {target!r}: {error}") from error
    missing = [part for part in ("scope", "Options", "score") if part not in dir(found)]
    if not isinstance(found, type) or missing:
        raise ConfigError(
            f"a reward must be a class with scope, Options and score, got {target!r} "
            f"without {', '.join(missing) or 'being a class'}"
        )
    return found


def load_reward(name: str, options: Mapping[str, JsonValue]) -> Reward:
    """Build a reward from its name and its YAML options.

    Raises:
        ConfigError: If the name or an option is wrong; names the nearest right one.
    """
    plugin = reward_class(name)
    return plugin(validate(plugin.Options, dict(options), f"options of reward {name!r}"))
