"""Groups of completions for tests of reward workers."""

import numpy as np

from c2s_rl.cells.parse import parse_cell
from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.evaluation.material import RewardMaterial
from c2s_rl.types import Completion, Group, PromptRecord, Split, Task
from rewards.base import RewardScope
from rewards.composite import RewardSpec

VOCABULARY = Vocabulary(("A", "B"), ("A", "B"))
NO_GENES = np.zeros(0, dtype=np.int32)


def make_group(texts, *, prompt="p", condition="c"):
    record = PromptRecord(
        prompt, prompt, " A", Task.CELL_GENERATION, condition, "", "", Split.TRAIN, NO_GENES,
        NO_GENES,
    )  # fmt: skip
    completions = tuple(Completion(t, (1,), (0.0,), 0, is_truncated=False) for t in texts)
    cells = tuple(parse_cell(t, VOCABULARY, is_truncated=False) for t in texts)
    return Group(record, (1,), completions, cells)


def moody(name="Moody", *, label="words", workers=None, **options):
    return RewardSpec(
        name=f"tests.moody_rewards:{name}", label=label, options=options, workers=workers
    )


def setup_of(spec, scope=RewardScope.GROUP):
    from actors.reward_messages import PluginSetup

    return PluginSetup(spec, scope, VOCABULARY, RewardMaterial())
