"""What the README shows works as it stands there."""

import re

import numpy as np

from c2s_rl.cells.parse import parse_cell
from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.config import parse_yaml
from c2s_rl.types import Completion, Group, PromptRecord, Split, Task
from rewards.base import RewardBatch
from rewards.composite import CompositeReward, RewardSpec
from tests.conftest import PROJECT

README = (PROJECT / "README.md").read_text(encoding="utf-8")
SYMBOLS = ("CD3D", "CD3E", "IL7R", "LYZ")
NO_GENES = np.zeros(0, dtype=np.int32)


def block(language, holding):
    """The text of the fenced block of a language that holds some words."""
    fenced = README.split("```")[1::2]
    texts = [text.removeprefix(language) for text in fenced if text.startswith(f"{language}\n")]
    return next(text for text in texts if holding in text)


def test_the_reward_of_the_readme_scores_from_its_yaml(tmp_path, monkeypatch):
    (tmp_path / "my_rewards.py").write_text(block("python", "class MarkerShare"))
    monkeypatch.syspath_prepend(tmp_path)
    spec = RewardSpec.model_validate(
        parse_yaml(block("yaml", "MarkerShare"), "README")["rewards"][0]
    )
    vocabulary = Vocabulary(SYMBOLS, SYMBOLS)
    texts = [" LYZ CD3D IL7R", " LYZ"]
    group = Group(
        PromptRecord(
            "p", "?", " !", Task.CELL_GENERATION, "c", "", "", Split.TRAIN, NO_GENES, NO_GENES
        ),
        (1,),
        tuple(Completion(t, (1,), (0.0,), 0, is_truncated=False) for t in texts),
        tuple(parse_cell(t, vocabulary, is_truncated=False) for t in texts),
    )
    (scored,) = CompositeReward([spec], vocabulary).score([group])
    # 2 of the 3 markers, times the weight 0.5; none of them
    assert scored.rewards_G == (0.5 * 2 / 3, 0.0)
    assert RewardBatch((group,), vocabulary).groups == (group,)


def test_every_name_of_the_tree_exists():
    parents = {0: PROJECT}  # by indent, which grows by 2 a level
    for line in block("", "types.py   ").splitlines():
        indent = len(line) - len(line.lstrip())
        if indent not in parents:
            continue  # the description above it goes on
        for name in re.match(r"((?:\w+(?:\.py|/) ?)*)", line.lstrip())[1].split():
            place = parents[indent] / name
            assert place.exists(), line
            parents[indent + 2] = place
