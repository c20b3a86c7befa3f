"""What a reward says about itself, for `c2s-rl rewards list` and `rewards show`.

A class says it in a class variable `info`. Without one it works all the same, and the listing shows
what is not known as such. Left out: the direction, for every reward is better when it is higher.
"""

import inspect
import math
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from rewards.base import RewardPlugin

UNKNOWN = "not said"


@dataclass(frozen=True)
class RewardInfo:
    """Meaning and scale of a reward; higher is always better."""

    meaning: str
    """One line: what a high score says about a completion."""
    low: float | None = None
    """Lowest possible score, -inf where there is none; None where it is not known."""
    high: float | None = None
    """Highest possible score, inf where there is none; None where it is not known."""
    baseline: str = UNKNOWN
    """What a null answer scores (the copied control, a shuffled cell, an empty answer)."""
    source: str = UNKNOWN
    """Paper and section, or 'this project'."""

    @property
    def range(self) -> str:
        """The possible scores in interval notation, or that they are not known."""
        if self.low is None or self.high is None:
            return UNKNOWN
        left = "(" if math.isinf(self.low) else "["
        right = ")" if math.isinf(self.high) else "]"
        return f"{left}{self.low:g}, {self.high:g}{right}"


@runtime_checkable
class DescribedReward(Protocol):
    """A reward's class that describes itself."""

    info: ClassVar[RewardInfo]


def info_of(plugin: type[RewardPlugin]) -> RewardInfo:
    """Return what a reward's class says about itself: its `info`, else its first docstring line."""
    described: object = plugin
    if isinstance(described, DescribedReward):
        return described.info
    docstring = inspect.getdoc(plugin) or UNKNOWN
    return RewardInfo(docstring.splitlines()[0])
