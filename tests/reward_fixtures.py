"""Groups of prompts with a control cell, for tests of rewards and of what is made of their scores.

Eight genes G0 to G7, in that order in the target; the control is the reverse unless it is given.
"""

import numpy as np

from c2s_rl.cells.parse import parse_cell
from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.config import FrozenConfig
from c2s_rl.types import Completion, Group, PromptRecord, Split, Task
from rewards.base import RewardResult, RewardScope

SYMBOLS = tuple(f"G{i}" for i in range(8))
VOCABULARY = Vocabulary(SYMBOLS, SYMBOLS)


def int32(values):
    return np.array(list(values), dtype=np.int32)


def make_record(
    prompt_id="p", *, condition="c", control=range(7, -1, -1), target_id="", context_id=""
):
    return PromptRecord(
        prompt_id, f"ask {prompt_id}", " G0", Task.PERTURBATION_RESPONSE, condition, context_id,
        target_id, Split.TRAIN, int32(range(8)), int32(control),
    )  # fmt: skip


def make_group(texts, record=None, *, version=0, symbols=VOCABULARY):
    completions = tuple(
        Completion(text, (1, 2, 3), (-0.1, -0.2, -1 / 3), version, is_truncated=False)
        for text in texts
    )
    cells = tuple(parse_cell(text, symbols, is_truncated=False) for text in texts)
    return Group(record or make_record(), (5, 6), completions, cells)


class WordCount:
    """Scores the number of words; `wrong` completions get another answer."""

    scope = RewardScope.GROUP

    class Options(FrozenConfig):
        """None."""

    def __init__(self, options=None):
        self.num_calls = 0

    def score(self, batch):
        self.num_calls += 1
        return RewardResult(tuple(float(s.cell.num_words) for s in batch.samples()))


class AsyncWordCount:
    """The same, as an async plug-in writes it."""

    scope = RewardScope.GROUP

    class Options(FrozenConfig):
        """None."""

    def __init__(self, options):
        pass

    async def score(self, batch):
        import asyncio

        await asyncio.sleep(0)
        return RewardResult(tuple(float(s.cell.num_words) for s in batch.samples()))
