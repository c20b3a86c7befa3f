"""Reading configurations: YAML 1.2 in, frozen and validated pydantic models out.

Errors are one line: the rule, the value, the key and the file; an unknown key names the nearest
one. YAML 1.2 has no surprises for biology: `NO` and `SEPT1` stay strings and `1e-6` is a float.
"""

import difflib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar, get_args

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from c2s_rl.errors import ConfigError, MissingFileError

ModelT = TypeVar("ModelT", bound=BaseModel)


class FrozenConfig(BaseModel):
    """Base of every configuration section: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


def parse_yaml(text: str, source: str) -> JsonValue:
    """Parse YAML 1.2 text into plain Python values.

    Args:
        text: The document.
        source: Where it comes from, for the error message.

    Raises:
        ConfigError: If the text is not YAML or repeats a key.
    """
    try:
        # pure: the C parser follows YAML 1.1, where NO is false and 1e-6 is a string.
        value: JsonValue = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        place = " ".join(str(error).split())
        raise ConfigError(f"a config must be YAML 1.2, got {place} in {source}") from error
    return value


def load_yaml(path: Path) -> dict[str, JsonValue]:
    """Read a YAML mapping from a file.

    Raises:
        MissingFileError: If there is no such file.
        ConfigError: If it is not a YAML mapping.
    """
    if not path.is_file():
        raise MissingFileError(f"a config must be a file that exists, got {path}")
    value = parse_yaml(path.read_text(encoding="utf-8"), str(path))
    if not isinstance(value, dict):
        raise ConfigError(f"a config must be a mapping of keys, got {value!r} in {path}")
    return value


def apply_overrides(data: dict[str, JsonValue], overrides: Sequence[str]) -> dict[str, JsonValue]:
    """Return a copy of `data` with every 'a.b=value' of the command line set; values are YAML.

    Raises:
        ConfigError: If an override is not 'key=value' or goes through a key that is no section.
    """
    result: dict[str, JsonValue] = _copy_sections(data)
    for override in overrides:
        key, equals, raw = override.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set must be key=value, got {override!r}")
        section = result
        *parents, last = key.split(".")
        for parent in parents:
            child = section.setdefault(parent, {})
            if not isinstance(child, dict):
                raise ConfigError(f"--set {key} must go through a section, got {parent}={child!r}")
            section = child
        section[last] = parse_yaml(raw, f"--set {key}")
    return result


def _copy_sections(data: dict[str, JsonValue]) -> dict[str, JsonValue]:
    return {k: _copy_sections(v) if isinstance(v, dict) else v for k, v in data.items()}


def expand_variables(path: str) -> str:
    """Replace every ${NAME} of a path by the environment variable NAME.

    Raises:
        ConfigError: If the variable is not set or is empty.
    """

    def value_of(match: re.Match[str]) -> str:
        value = os.environ.get(match[1], "")
        if not value:
            raise ConfigError(
                f"a path may use only environment variables that are set, got no {match[1]} "
                f"for {path!r}; set {match[1]} or give the path itself"
            )
        return value

    return re.sub(r"\$\{(\w+)\}", value_of, path)


def validate(model: type[ModelT], data: JsonValue, source: str) -> ModelT:
    """Build a config model, turning the first broken rule into a one-line error.

    Args:
        model: The section's model.
        data: Plain values, as `load_yaml` returns them.
        source: The file's name, for the message.

    Raises:
        ConfigError: Naming rule, value, key and file; an unknown key names the nearest known one.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        details = error.errors(include_url=False)
        first = next((d for d in details if d["type"] == "extra_forbidden"), details[0])
        raise ConfigError(_one_line(model, first, source)) from error


def _one_line(model: type[BaseModel], detail: ErrorDetails, source: str) -> str:
    place = ".".join(str(part) for part in detail["loc"]) or "the whole config"
    if detail["type"] == "extra_forbidden":
        known = list(_section_at(model, detail["loc"][:-1]).model_fields)
        unknown = str(detail["loc"][-1])
        near = difflib.get_close_matches(unknown, known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
        return f"a config key must be known, got {place!r} in {source}; {hint}"
    if detail["type"] == "missing":
        return f"a required config key must be given, got no {place!r} in {source}"
    rule = detail["msg"].removeprefix("Value error, ").rstrip(".")
    got = "" if ", got " in rule else f", got {detail['input']!r}"
    return f"{rule}{got} at {place!r} in {source}"


def _section_at(model: type[BaseModel], loc: Sequence[int | str]) -> type[BaseModel]:
    """Follow an error's location down to the section whose key was unknown."""
    for part in loc:
        field = model.model_fields.get(str(part))
        if field is None:
            continue  # a list index or a dictionary key: the annotation above already led on
        nested = _models_in(field.annotation)
        if nested:
            model = nested[0]
    return model


def _models_in(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for arg in get_args(annotation) for model in _models_in(arg)]
