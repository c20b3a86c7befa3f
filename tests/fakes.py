"""Small stand-ins for the three roles of the GRPO loop, and records to run it on.

They obey the same contracts as the real workers; the real ones run in tests/integration.
"""

import json

import numpy as np

from c2s_rl.grpo.roles import LearnStats, PublishedWeights, RolloutAnswer
from c2s_rl.types import Completion, Group, ParsedCell, PromptRecord, ScoredGroup, Split, Task

NO_GENES = np.zeros(0, dtype=np.int32)


def make_record(name, condition="c"):
    return PromptRecord(
        name, f"ask {name}", " a", Task.CELL_GENERATION, condition, "", "", Split.TRAIN,
        NO_GENES, NO_GENES,
    )  # fmt: skip


class FakeRollout:
    """Answers with tokens that depend on the seed and on the weights it was given.

    One request is finished a call of `collect`: the last first where `is_backwards`, else in order.
    What is being sampled keeps the version it was started under, as the oldest of its tokens.
    """

    def __init__(self, *, wrong_by=0.0, is_backwards=False, group_size=2):
        self._group_size = group_size
        self.version = None
        self.seen = []
        self.collected = []
        self._sampling = []
        self._wrong_by = wrong_by
        self._is_backwards = is_backwards

    def pause(self):
        self.is_paused = True

    def update_weights(self, weights):
        assert self.is_paused
        self.is_paused = False
        self.version = weights.version
        self.weight = float(weights.location)

    def submit(self, requests):
        self.seen.append([request.record.prompt_id for request in requests])
        self._sampling += [(request.ticket, self.group(request)) for request in requests]

    def collect(self, *, timeout_s):
        ticket, group = self._sampling.pop(-1 if self._is_backwards else 0)
        self.collected.append(ticket)
        return [RolloutAnswer(ticket, group)]

    def group(self, request):
        rng = np.random.default_rng(request.seed)
        logprob = -self.weight - self._wrong_by
        completions = tuple(
            Completion("A", tuple(rng.integers(0, 9, 3).tolist()), (logprob,) * 3, self.version,
                       is_truncated=False)
            for _ in range(request.num_samples or self._group_size)
        )  # fmt: skip
        cells = tuple(
            ParsedCell(np.array([0], dtype=np.int32), 2, 1, (), is_truncated=False)
            for _ in completions
        )
        return Group(request.record, (1, 2), completions, cells)


class FakeReward:
    """Sums the tokens; fails on prompts named `broken` and on first answers to `half_broken`."""

    def __init__(self, broken=(), half_broken=(), *, is_per_condition=False):
        self._broken = broken
        self._half_broken = half_broken
        self.max_calls = 2
        self.is_per_condition = is_per_condition
        self.calls = []

    def score(self, groups):
        self.calls.append([group.record.prompt_id for group in groups])
        return [self._scored(group) for group in groups]

    def figures(self):
        return {}

    def _scored(self, group):
        rewards = [float(sum(c.token_ids_T)) for c in group.completions_G]
        failures = [None] * len(rewards)
        name = group.record.prompt_id
        num_failed = len(rewards) * (name in self._broken) or (name in self._half_broken)
        for i in range(num_failed):
            rewards[i] = None
            failures[i] = f"raised: a reward must not raise, got one on {name}"
        named = {"tokens": tuple(failures)} if num_failed else {}
        return ScoredGroup(group, tuple(rewards), {"tokens": tuple(rewards)}, {}, named)


class FakeLearner:
    """One weight that moves with the rewards; saving and loading keep it exactly."""

    def __init__(self):
        self.weight = 1.0
        self.stop_at = None
        self.calls = []

    def publish(self, version):
        return PublishedWeights(version, repr(self.weight))

    def logprobs(self, groups):
        return [[[-self.weight] * len(c.token_ids_T) for c in g.completions_G] for g in groups]

    def begin(self, plan):
        if plan.step == self.stop_at:
            raise KeyboardInterrupt
        self._plan = plan
        self._gradient = 0.0
        self.calls.append([])

    def accumulate(self, groups, advantages):
        self.calls[-1].append([scored.group.record.prompt_id for scored in groups])
        for scored, advantages_G in zip(groups, advantages, strict=True):
            for completion, advantage in zip(scored.group.completions_G, advantages_G, strict=True):
                self._gradient += advantage * sum(completion.token_ids_T)

    def finish(self):
        self.weight += 1e-3 * self._gradient / self._plan.num_completions
        return LearnStats({"loss": self.weight, "kl": 0.0})

    def learn(self, batch):
        self.begin(batch.plan)
        self.accumulate(batch.groups, batch.advantages)
        return self.finish()

    def save(self, folder):
        self.save_policy(folder)

    def save_policy(self, folder):
        (folder / "policy").mkdir()
        (folder / "policy" / "weight.json").write_text(json.dumps(self.weight))

    def load(self, folder):
        self.weight = json.loads((folder / "policy" / "weight.json").read_text())
