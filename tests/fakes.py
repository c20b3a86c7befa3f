"""Small stand-ins for the three roles of the GRPO loop, and records to run it on.

They obey the same contracts as the real workers; the real ones run in tests/integration.
"""

import json

import numpy as np

from c2s_rl.grpo.roles import LearnStats, PublishedWeights
from c2s_rl.types import Completion, Group, ParsedCell, PromptRecord, ScoredGroup, Split, Task

NO_GENES = np.zeros(0, dtype=np.int32)


def make_record(name, condition="c"):
    return PromptRecord(
        name, f"ask {name}", " a", Task.CELL_GENERATION, condition, "", "", Split.TRAIN,
        NO_GENES, NO_GENES,
    )  # fmt: skip


class FakeRollout:
    """Answers with tokens that depend on the seed and on the weights it was given."""

    def __init__(self, *, wrong_by=0.0):
        self.version = None
        self.seen = []
        self._wrong_by = wrong_by

    def update_weights(self, weights):
        self.version = weights.version
        self.weight = float(weights.location)

    def generate(self, requests):
        self.seen.append([request.record.prompt_id for request in requests])
        return [self._group(request) for request in requests]

    def _group(self, request):
        rng = np.random.default_rng(request.seed)
        logprob = -self.weight - self._wrong_by
        completions = tuple(
            Completion("A", tuple(rng.integers(0, 9, 3).tolist()), (logprob,) * 3, self.version,
                       is_truncated=False)
            for _ in range(2)
        )  # fmt: skip
        cells = tuple(
            ParsedCell(np.array([0], dtype=np.int32), 2, 1, (), is_truncated=False)
            for _ in completions
        )
        return Group(request.record, (1, 2), completions, cells)


class FakeReward:
    """Sums the tokens; the prompts named `broken` fail."""

    def __init__(self, broken=()):
        self._broken = broken

    def score(self, groups, *, step):
        return [None if g.record.prompt_id in self._broken else self._scored(g) for g in groups]

    def _scored(self, group):
        rewards = tuple(float(sum(c.token_ids_T)) for c in group.completions_G)
        return ScoredGroup(group, rewards, {"tokens": rewards}, {})


class FakeLearner:
    """One weight that moves with the rewards; saving and loading keep it exactly."""

    def __init__(self):
        self.weight = 1.0
        self.stop_at = None

    def publish(self, version):
        return PublishedWeights(version, repr(self.weight))

    def logprobs(self, groups):
        return [[[-self.weight] * len(c.token_ids_T) for c in g.completions_G] for g in groups]

    def learn(self, batch):
        if batch.step == self.stop_at:
            raise KeyboardInterrupt
        for scored, advantages in zip(batch.groups, batch.advantages, strict=True):
            for completion, advantage in zip(scored.group.completions_G, advantages, strict=True):
                self.weight += 1e-3 * advantage * sum(completion.token_ids_T)
        return LearnStats({"loss": self.weight, "kl": 0.0})

    def save(self, folder):
        (folder / "policy").mkdir()
        (folder / "policy" / "weight.json").write_text(json.dumps(self.weight))

    def load(self, folder):
        self.weight = json.loads((folder / "policy" / "weight.json").read_text())
