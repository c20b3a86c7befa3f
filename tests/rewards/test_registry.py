"""Rewards by name, by entry point and by class path; what is no reward is refused at load."""

import re
from pathlib import Path

import pytest
from pydantic import Field

from c2s_rl.config import FrozenConfig, parse_yaml
from c2s_rl.errors import ConfigError
from rewards import BUILT_IN, REWARDS, find_reward, known_rewards, load_reward, reward_class
from rewards.base import RewardResult, RewardScope
from rewards.info import UNKNOWN, RewardInfo, info_of
from rewards.listing import example_options, listed_rewards, shown_reward

HERE = __name__


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Make a package that offers rewards, as pip leaves it."""

    def make(package: str, entry_points: str) -> Path:
        folder = tmp_path / package
        info = folder / f"{package}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[c2s_rl.rewards]\n{entry_points}\n")
        monkeypatch.syspath_prepend(folder)
        return folder

    return make


class Plain:
    """Scores nothing.

    A second line.
    """

    scope = RewardScope.GROUP

    class Options(FrozenConfig):
        """None."""

    def __init__(self, options, seed=0):
        self.options = options

    def score(self, batch):
        return RewardResult((0.0,) * len(batch))


def test_an_installed_package_offers_a_reward_by_name(install):
    install("lab_rewards", f"plain = {HERE}:Plain")
    assert find_reward("plain").origin == "package lab_rewards"
    assert isinstance(load_reward("plain", {}), Plain)
    assert [entry.name for entry in known_rewards()] == [*REWARDS, "plain"]


def test_a_name_of_ours_taken_by_a_package_is_refused_naming_it(install):
    install("lab_rewards", f"kendall = {HERE}:Plain")
    with pytest.raises(ConfigError, match=r"got 'kendall' for rewards\.kendall.*lab_rewards"):
        reward_class("kendall")
    # other names, and the class itself, are as clear as before
    assert reward_class("validity") is not Plain
    assert reward_class(REWARDS["kendall"]).__name__ == "KendallReward"


def test_a_name_that_two_packages_offer_is_refused_naming_both(install):
    install("one", f"plain = {HERE}:Plain")
    install("two", f"plain = {HERE}:Plain")
    with pytest.raises(ConfigError, match=r"\(package one\) and .*\(package two\)"):
        reward_class("plain")


def test_a_mistyped_name_of_a_package_finds_the_nearest(install):
    install("lab_rewards", f"plain = {HERE}:Plain")
    with pytest.raises(ConfigError, match="got 'plian'; did you mean 'plain'"):
        reward_class("plian")


def test_a_package_whose_import_fails_says_what_it_raised(install):
    folder = install("lab_rewards", "broken = broken_module:Reward")
    (folder / "broken_module.py").write_text("1 / 0\n")
    with pytest.raises(ConfigError, match=r"must be importable.*ZeroDivisionError: division by"):
        reward_class("broken")
    # the list shows it beside the others
    problems = {reward.entry.name: reward.problem for reward in listed_rewards()}
    assert "ZeroDivisionError" in problems.pop("broken")
    assert set(problems.values()) == {""}


class NoOptions(Plain):
    def __init__(self):
        """Takes nothing."""


class NeedsMore(Plain):
    def __init__(self, options, device):
        """Takes too much."""


class NoBatch(Plain):
    def score(self):
        return RewardResult(())


class TakesTexts(Plain):
    def score(self, prompts, completions):
        return RewardResult(())


class StaticScore(Plain):
    @staticmethod
    def score(batch):
        return RewardResult(())


class WrongScope(Plain):
    scope = "group"


class WrongOptions(Plain):
    Options = dict


class WrongInfo(Plain):
    info = "a good reward"


class NoScope:
    class Options(FrozenConfig):
        """None."""

    def __init__(self, options):
        pass

    def score(self, batch):
        return RewardResult(())


class Nothing:
    pass


def function(options):
    return options


@pytest.mark.parametrize(
    ("name", "got"),
    [
        ("NoOptions", "got __init__(self) in"),
        ("NeedsMore", "got __init__(self, options, device) in"),
        ("NoBatch", "got score(self) in"),
        ("TakesTexts", "got score(self, prompts, completions) in"),
        ("StaticScore", "got score=<staticmethod"),
        ("WrongScope", "got scope='group' in"),
        ("WrongOptions", "got Options=<class 'dict'> in"),
        ("WrongInfo", "got info='a good reward', which is no RewardInfo in"),
        ("NoScope", "got no scope in"),
        ("Nothing", "got no scope; no Options; __init__(self); no score in"),
        ("function", "got <function function"),
        ("Absent", "got None for"),
    ],
)
def test_a_wrong_plugin_is_refused_with_what_is_expected(name, got):
    expected = "a class with scope = RewardScope.GROUP or CONDITION, class Options(FrozenConfig), "
    with pytest.raises(ConfigError, match=re.escape(expected)) as caught:
        reward_class(f"{HERE}:{name}")
    assert got in str(caught.value)
    assert "__init__(self, options) and score(self, batch), sync or async" in str(caught.value)


def test_further_arguments_with_defaults_are_fine():
    assert reward_class(f"{HERE}:Plain") is Plain


def test_a_reward_that_says_nothing_about_itself_shows_its_docstring():
    info = info_of(Plain)
    assert (info.meaning, info.range, info.baseline) == ("Scores nothing.", UNKNOWN, UNKNOWN)


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [(0, 1, "[0, 1]"), (float("-inf"), 0.5, "(-inf, 0.5]"), (0, float("inf"), "[0, inf)")],
)
def test_a_range_is_an_interval(low, high, text):
    assert RewardInfo("x", low, high).range == text


@pytest.mark.parametrize("name", list(REWARDS))
def test_every_reward_of_ours_says_what_it_is_and_gives_an_example(name):
    plugin = reward_class(name)
    info = info_of(plugin)
    assert UNKNOWN not in (info.meaning, info.range, info.baseline, info.source)
    assert len(info.meaning) <= 80
    assert find_reward(name).origin == BUILT_IN
    # an option without default needs `examples` in its Field
    plugin.Options.model_validate(example_options(plugin))
    assert [option.name for option in shown_reward(name).options if not option.description] == []


class Wordy(Plain):
    """Counts [words]."""

    class Options(FrozenConfig):
        word: str = Field(description="Which [word]")
        number: int | None = Field(None, description="How many")
        scope: RewardScope = Field(RewardScope.GROUP, description="Where")
        names: tuple[str, ...] = Field((), description="Which")


def test_a_reward_is_shown_with_options_and_an_example_that_is_yaml():
    shown = shown_reward(f"{HERE}:Wordy")
    assert [(o.name, o.kind, o.default) for o in shown.options] == [
        ("word", "str", "required"),
        ("number", "int | null", "null"),
        ("scope", "group | condition", "group"),
        ("names", "list of str", "()"),
    ]
    assert parse_yaml(shown.example, "") == {
        "rewards": [{"name": f"{HERE}:Wordy", "weight": 1.0, "options": {"word": "<str>"}}]
    }
