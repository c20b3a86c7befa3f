"""Whether a class is a reward: checked once, when it is loaded, so that no run fails on it."""

import inspect
from collections.abc import Iterator
from typing import cast

from c2s_rl.config import FrozenConfig
from c2s_rl.errors import ConfigError
from rewards.base import RewardPlugin, RewardScope
from rewards.info import DescribedReward, RewardInfo

SHAPE = (
    "a class with scope = RewardScope.GROUP or CONDITION, class Options(FrozenConfig), "
    "__init__(self, options) and score(self, batch), sync or async"
)


def check_plugin(found: object, target: str) -> type[RewardPlugin]:
    """Return the class as a reward's class.

    Args:
        found: What the name led to.
        target: 'package.module:Class', for the message.

    Raises:
        ConfigError: Naming every rule that it breaks, and what is expected.
    """
    if not isinstance(found, type):
        raise ConfigError(f"a reward must be {SHAPE}, got {found!r} for {target!r}")
    problems = [*_parts(found), *_signatures(found)]
    if problems:
        raise ConfigError(f"a reward must be {SHAPE}, got {'; '.join(problems)} in {target!r}")
    return cast("type[RewardPlugin]", found)


def _parts(found: type) -> Iterator[str]:
    scope = inspect.getattr_static(found, "scope", None)
    if not isinstance(scope, RewardScope):
        yield "no scope" if scope is None else f"scope={scope!r}"
    options = inspect.getattr_static(found, "Options", None)
    if not (isinstance(options, type) and issubclass(options, FrozenConfig)):
        yield "no Options" if options is None else f"Options={options!r}"
    described: object = found
    if isinstance(described, DescribedReward) and not isinstance(described.info, RewardInfo):
        yield f"info={described.info!r}, which is no RewardInfo"


def _signatures(found: type) -> Iterator[str]:
    signature = inspect.signature(found)
    if not _takes(signature, 1):
        yield f"__init__{_with_self(signature)}"
    score = inspect.getattr_static(found, "score", None)
    if score is None:
        yield "no score"
    elif not inspect.isfunction(score):
        yield f"score={score!r}"
    elif not _takes(inspect.signature(score), 2):
        yield f"score{inspect.signature(score)}"


def _takes(signature: inspect.Signature, num_arguments: int) -> bool:
    """Whether a call with so many positional arguments is possible."""
    try:
        signature.bind(*[None] * num_arguments)
    except TypeError:
        return False
    return True


def _with_self(signature: inspect.Signature) -> str:
    return f"({', '.join(['self', *map(str, signature.parameters.values())])})"
