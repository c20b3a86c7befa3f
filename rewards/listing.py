"""What `c2s-rl rewards list` and `rewards show` tell: rewards by name, options, an example.

Plain values; tables are made where they are printed.
"""

import inspect
import io
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import UnionType
from typing import Union, get_args, get_origin

from pydantic import JsonValue
from pydantic.fields import FieldInfo
from ruamel.yaml import YAML

from c2s_rl.errors import ConfigError
from rewards import RewardEntry, find_reward, known_rewards, reward_class
from rewards.base import RewardPlugin
from rewards.info import RewardInfo, info_of

REQUIRED = "required"


@dataclass(frozen=True)
class ListedReward:
    """One line of the list."""

    entry: RewardEntry
    """Name, target and where it comes from."""
    scope: str
    """'group' or 'condition'; '' where it cannot be loaded."""
    info: RewardInfo | None
    """Meaning and scale; None where it cannot be loaded."""
    problem: str = ""
    """Why it cannot be used; '' where it can."""


@dataclass(frozen=True)
class ShownOption:
    """One option of a reward."""

    name: str
    kind: str
    """Its type, or its choices."""
    default: str
    """'required' where there is none."""
    description: str


@dataclass(frozen=True)
class ShownReward:
    """All there is to say about one reward."""

    listed: ListedReward
    docstring: str
    options: tuple[ShownOption, ...]
    example: str
    """YAML of a run's `rewards` section; '<type>' stands for what only the user knows."""


def listed_rewards() -> list[ListedReward]:
    """List every reward that has a name; one that cannot be used says why."""
    return [_listed(entry) for entry in known_rewards()]


def shown_reward(name: str) -> ShownReward:
    """Describe one reward.

    Raises:
        ConfigError: If there is no such reward, or it cannot be loaded.
    """
    plugin = reward_class(name)
    fields = plugin.Options.model_fields
    return ShownReward(
        listed=ListedReward(find_reward(name), plugin.scope.value, info_of(plugin)),
        docstring=inspect.getdoc(plugin) or "",
        options=tuple(
            ShownOption(key, _kind(field.annotation), _default(field), field.description or "")
            for key, field in fields.items()
        ),
        example=example_yaml(name, plugin),
    )


def example_yaml(name: str, plugin: type[RewardPlugin]) -> str:
    """Write the `rewards` section of a run that uses a reward with its required options."""
    entry: dict[str, JsonValue] = {"name": name, "weight": 1.0}
    options = example_options(plugin)
    if options:
        entry["options"] = dict(options)
    stream = io.StringIO()
    YAML(typ="safe", pure=True).dump({"rewards": [entry]}, stream)
    return stream.getvalue()


def example_options(plugin: type[RewardPlugin]) -> Mapping[str, JsonValue]:
    """Give options with `examples` the first of them, other required ones their type."""
    return {
        key: field.examples[0] if field.examples else f"<{_kind(field.annotation)}>"
        for key, field in plugin.Options.model_fields.items()
        if field.is_required() or field.examples
    }


def _listed(entry: RewardEntry) -> ListedReward:
    try:
        plugin = reward_class(entry.name)
    except ConfigError as error:
        return ListedReward(entry, "", None, str(error))
    return ListedReward(entry, plugin.scope.value, info_of(plugin))


def _kind(annotation: object) -> str:
    """Write a type the way a user of YAML thinks of it."""
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return " | ".join(str(member.value) for member in annotation)
    if annotation is type(None):
        return "null"
    if get_origin(annotation) in (Union, UnionType):
        return " | ".join(_kind(part) for part in get_args(annotation))
    if get_origin(annotation) in (tuple, list):
        parts = [_kind(part) for part in get_args(annotation) if part is not Ellipsis]
        return f"list of {' and '.join(parts)}"
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return REQUIRED
    value: object = field.get_default(call_default_factory=True, validated_data={})
    if value is None:
        return "null"
    return str(value.value) if isinstance(value, Enum) else str(value)
