"""Reward plug-ins. To add one: a file with a class, and its line in `REWARDS`.

A YAML file names a reward by its key here, by the name under which an installed package offers it
(entry-point group `c2s_rl.rewards`), or by `package.module:Class`.
"""

import difflib
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata

from pydantic import JsonValue

from c2s_rl.config import validate
from c2s_rl.errors import ConfigError
from rewards.base import Reward, RewardPlugin
from rewards.plugin_check import check_plugin

REWARDS: dict[str, str] = {
    "bertscore": "rewards.bertscore:BertScoreReward",
    "cell_type": "rewards.cell_type:CellTypeReward",
    "de_direction": "rewards.differential_expression:DeDirectionReward",
    "de_overlap": "rewards.differential_expression:DeOverlapReward",
    "de_spearman": "rewards.de_spearman:DeSpearmanReward",
    "energy": "rewards.population:EnergyReward",
    "exact_label": "rewards.exact_label:ExactLabelReward",
    "gene_overlap": "rewards.gene_overlap:GeneOverlapReward",
    "kendall": "rewards.kendall:KendallReward",
    "keyword_recall": "rewards.keyword_recall:KeywordRecallReward",
    "length": "rewards.length:LengthReward",
    "mmd": "rewards.population:MMDReward",
    "pearson": "rewards.expression:PearsonReward",
    "rmse": "rewards.expression:RmseReward",
    "scfid": "rewards.population:ScfidReward",
    "scgpt": "rewards.scgpt:ScGPTReward",
    "ssgsea": "rewards.ssgsea:SsgseaReward",
    "validity": "rewards.validity:ValidityReward",
    "wasserstein": "rewards.population:WassersteinReward",
}

ENTRY_POINTS = "c2s_rl.rewards"
BUILT_IN = "built in"


@dataclass(frozen=True)
class RewardEntry:
    """A name that YAML may use, and what stands behind it."""

    name: str
    """As YAML writes it."""
    target: str
    """package.module:Class."""
    origin: str
    """'built in', or the package that offers it."""


def known_rewards() -> list[RewardEntry]:
    """List what has a name: built-in rewards, then those of installed packages, by name.

    Names may repeat here; looking such a name up is an error.
    """
    found = metadata.entry_points(group=ENTRY_POINTS)
    installed = [
        RewardEntry(point.name, point.value, f"package {point.dist.name}" if point.dist else "?")
        for point in found
    ]
    built_in = [RewardEntry(name, target, BUILT_IN) for name, target in REWARDS.items()]
    return built_in + sorted(installed, key=lambda entry: (entry.name, entry.origin))


def find_reward(name: str) -> RewardEntry:
    """Find what a name of a YAML file stands for.

    Raises:
        ConfigError: If nothing has the name, or more than one thing; names the packages.
    """
    if ":" in name:
        return RewardEntry(name, name, name.partition(":")[0])
    entries = known_rewards()
    named = [entry for entry in entries if entry.name == name]
    if len(named) > 1:
        places = " and ".join(f"{entry.target} ({entry.origin})" for entry in named)
        raise ConfigError(
            f"a reward's name must be its own, got {name!r} for {places}; name the one that is "
            "meant as package.module:Class, or uninstall the other"
        )
    if not named:
        known = list(dict.fromkeys(entry.name for entry in entries))
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        raise ConfigError(f"a reward must be known or package.module:Class, got {name!r}; {hint}")
    return named[0]


def reward_class(name: str) -> type[RewardPlugin]:
    """Find a plug-in's class by registry name, entry point, or `package.module:Class`.

    Raises:
        ConfigError: If the name is unknown or not unique, cannot be imported, or is no reward.
    """
    target = find_reward(name).target
    module_name, _, class_name = target.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # importing a plug-in runs its code, which may raise anything
        raise ConfigError(
            f"a reward must be importable, got {target!r}: {type(error).__name__}: {error}"
        ) from error
    return check_plugin(vars(module).get(class_name), target)


def load_reward(name: str, options: Mapping[str, JsonValue]) -> Reward:
    """Build a reward from its name and its YAML options.

    Raises:
        ConfigError: If the name or an option is wrong; names the nearest right one.
    """
    plugin = reward_class(name)
    return plugin(validate(plugin.Options, dict(options), f"options of reward {name!r}"))
