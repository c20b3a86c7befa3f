"""What a reward worker and the process of its plug-in say to each other."""

from dataclasses import dataclass

from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.evaluation.material import RewardMaterial
from rewards.base import CheckedResult, RewardScope
from rewards.composite import RewardSpec


@dataclass(frozen=True, eq=False)
class PluginSetup:
    """What a plug-in is built from; the first message to its process."""

    spec: RewardSpec
    """Which reward, with which options."""
    scope: RewardScope
    """Of the plug-in; the worker itself never imports it."""
    vocabulary: Vocabulary
    """Gene symbols of the prompts."""
    material: RewardMaterial
    """Real cells and where encodings are kept; absolute paths, for a plug-in may change folders."""


@dataclass(frozen=True)
class Ready:
    """The plug-in is loaded."""


@dataclass(frozen=True)
class NotReady:
    """The plug-in cannot be loaded."""

    message: str
    """Why, in one line."""


@dataclass(frozen=True)
class Cut:
    """Some completions of one group of a call."""

    group: int
    """Index into the groups of the call."""
    completions: tuple[int, ...]
    """Indices into the group, ascending."""


@dataclass(frozen=True)
class ScoreCall:
    """Ask for scores."""

    cuts: tuple[Cut, ...]
    """What to score, in this order."""
    groups: tuple[bytes, ...] | None
    """Pickled groups that the cuts are of; None: those of the call before."""


@dataclass(frozen=True, eq=False)
class ScoreReply:
    """The checked answer to a `ScoreCall`."""

    result: CheckedResult
    """One entry a completion, cut after cut."""
    cache_hits: int
    """Encodings that the plug-in looked up and found."""
    cache_misses: int
    """Encodings that it had to make."""
