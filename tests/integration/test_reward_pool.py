"""Reward workers on a real Ray: a failing, hanging or dying plug-in costs its group and no more."""

import os
import time

import numpy as np
import pytest
import ray

from actors.launch import start_reward
from actors.reward import RewardPoolConfig
from actors.reward_pool import RewardPool
from actors.session import RayConfig, ray_session
from c2s_rl.cells.parse import parse_cell
from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.config import FrozenConfig
from c2s_rl.types import Completion, Group, PromptRecord, Split, Task
from rewards.base import RewardBatch, RewardResult, RewardScope
from rewards.composite import RewardSpec

pytestmark = pytest.mark.integration

VOCABULARY = Vocabulary(("A", "B"), ("A", "B"))
NO_GENES = np.zeros(0, dtype=np.int32)


class Moody:
    """Counts words, unless the prompt asks for trouble."""

    scope = RewardScope.GROUP

    class Options(FrozenConfig):
        """None."""

    def __init__(self, options: Options) -> None:
        pass

    def score(self, batch: RewardBatch) -> RewardResult:
        for group in batch.groups:
            match group.record.prompt:
                case "raise":
                    raise ZeroDivisionError("moody")
                case "hang":
                    time.sleep(60)
                case "die":
                    os._exit(7)
        return RewardResult(tuple(float(s.cell.num_words) for s in batch.samples()))


def make_group(prompt: str) -> Group:
    record = PromptRecord(
        prompt, prompt, " A", Task.CELL_GENERATION, prompt, "", "", Split.TRAIN, NO_GENES, NO_GENES
    )
    completions = tuple(
        Completion(t, (1,), (0.0,), 0, is_truncated=False) for t in (" A B", " A", " A B B")
    )
    cells = tuple(parse_cell(c.text, VOCABULARY, is_truncated=False) for c in completions)
    return Group(record, (1,), completions, cells)


@pytest.fixture(scope="module")
def session():
    with ray_session(RayConfig(), num_cpus=2):
        yield


@pytest.mark.parametrize("trouble", ["raise", "hang", "die"])
def test_a_bad_group_is_dropped_and_the_others_keep_their_scores(session, trouble):
    config = RewardPoolConfig(num_workers=2, max_retries=1, deadline_s=8, num_cpus=0.5)
    specs = (RewardSpec(name=f"{__name__}:Moody", label="words"),)
    pool = RewardPool(
        lambda: start_reward(specs, VOCABULARY, config), config, is_per_condition=False
    )
    pool.ready()
    prompts = ["fine", trouble, "good", "well"]
    scored = pool.score([make_group(p) for p in prompts])
    assert [None if s is None else s.rewards_G for s in scored] == [
        (2.0, 1.0, 3.0),
        None,
        (2.0, 1.0, 3.0),
        (2.0, 1.0, 3.0),
    ]
    # the pool is back to full size: the same call without the bad group scores everything
    again = pool.score([make_group(p) for p in ("fine", "good", "well")])
    assert [s.components["words"] for s in again] == [(2.0, 1.0, 3.0)] * 3
    for worker in pool.workers:
        ray.kill(worker)
