"""Engines that answer at once, for the stages that ask policies."""

from contextlib import contextmanager

from c2s_rl.cells.parse import parse_cell
from c2s_rl.grpo.roles import RolloutAnswer
from c2s_rl.types import Completion, Group


class FakeEngines:
    """Answers by a function of prompt and seed; the latest request is finished first.

    Use `start` where a stage starts engines.
    """

    def __init__(self, answer, *, break_after=None):
        self._answer = answer
        self._break_after = break_after
        self.num_starts = 0
        self.most_waiting = 0
        self.requests = []
        self.sampling = None
        self._waiting = []

    @contextmanager
    def start(self, vocabulary, sampling):
        self.num_starts += 1
        self.sampling = sampling
        self._vocabulary = vocabulary
        yield self

    def submit(self, requests):
        self.requests += requests
        self._waiting += requests
        self.most_waiting = max(self.most_waiting, len(self._waiting))

    def collect(self, *, timeout_s):
        assert timeout_s > 0
        if self._break_after is not None:
            if self._break_after == 0:
                raise KeyboardInterrupt
            self._break_after -= 1
        request = self._waiting.pop()
        num = request.num_samples or self.sampling.group_size
        texts = [self._answer(request.record, request.seed + i) for i in range(num)]
        completions = tuple(
            Completion(text, (1,), (-0.1,), 0, is_truncated=text.endswith("~")) for text in texts
        )
        cells = tuple(
            parse_cell(c.text, self._vocabulary, is_truncated=c.is_truncated) for c in completions
        )
        return [RolloutAnswer(request.ticket, Group(request.record, (1,), completions, cells))]
