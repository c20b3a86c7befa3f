"""The groups of each optimiser step, in the order they are learned from.

Synchronous or not is a matter of how far the source runs ahead: by no step, or by
`staleness.max_versions`. Left out: what the groups are used for, and checkpoints.
Shape suffixes: P prompts of a step.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from c2s_rl.grpo.roles import PublishedWeights, RolloutRequest
from c2s_rl.grpo.staleness import Cursor, Ledger, OnExcess, OnSync, StalenessConfig, Start
from c2s_rl.pipeline.align_data import PromptStream, rollout_seed
from c2s_rl.pipeline.failure_budget import is_failed
from c2s_rl.pipeline.group_stream import GroupStream, Outcome


@dataclass(frozen=True)
class SourcePlan:
    """What a run asks of its source."""

    per_step: int
    """P."""
    num_steps: int
    """Of the whole run."""
    max_extra: int
    """Most prompts that a step samples in place of groups whose rewards are all equal."""
    staleness: StalenessConfig | None
    """None is synchronous."""
    seed: int
    """The run's seed."""


class GroupSource:
    """Has groups sampled by the right weights and hands them out step by step."""

    def __init__(
        self, stream: GroupStream, prompts: PromptStream, plan: SourcePlan, cursor: Cursor
    ) -> None:
        """Start nothing yet.

        Args:
            stream: Samples and scores.
            prompts: What is sampled.
            plan: How much of it, and when.
            cursor: How much of the prompts has been used by an earlier session of the run.
        """
        staleness = plan.staleness
        self._stream = stream
        self._prompts = prompts
        self._plan = plan
        self._lead = staleness.max_versions if staleness else 0
        self._waits_at_sync = staleness is None or staleness.on_sync is OnSync.FINISH
        self._ledger = Ledger(
            max_versions=self._lead,
            on_excess=staleness.on_excess if staleness else OnExcess.WAIT,
            per_step=plan.per_step,
            total=plan.num_steps * plan.per_step,
            cursor=cursor,
        )
        self._arrived: dict[int, Outcome] = {}
        self._counts = {"dropped_stale": 0, "replaced_groups": 0}

    @property
    def cursor(self) -> Cursor:
        """What of the prompts has been used: what a checkpoint keeps."""
        return self._ledger.cursor

    def counts(self) -> dict[str, float]:
        """Groups dropped for their age, groups replaced and what rewards did, since last called."""
        counts = {name: float(count) for name, count in self._counts.items()}
        self._counts = dict.fromkeys(self._counts, 0)
        return counts | self._stream.reward_figures()

    def update(self, publish: Callable[[], PublishedWeights]) -> None:
        """Have everything that is started from now on sampled by new weights.

        Args:
            publish: Gives them out, when the engines are ready for them.
        """
        self._stream.update(publish, should_wait=self._waits_at_sync)

    def groups(self, step: int, *, is_in_step: bool) -> Iterator[list[Outcome]]:
        """Hand out a step's groups as they can be learned from.

        In the order of the prompts, or of arrival with `OnExcess.DROP`. Groups whose rewards are
        all equal are held back and as many further prompts sampled, wave after wave, while
        `max_extra` lasts. A wave starts when the one before is scored, whether or not its groups
        were already learned from, so that the engines see the same requests either way.

        Args:
            step: 0-based.
            is_in_step: Do not run ahead of the learner at this step.
        """
        self._start(self._ledger.admit(lead=0 if is_in_step else self._lead))
        wave = self._planned(step)
        num_extra = 0
        while True:
            num_replaced = 0
            for outcomes in wave:
                kept: list[Outcome] = []
                for outcome in outcomes:
                    if num_extra + num_replaced < self._plan.max_extra and is_flat(outcome):
                        num_replaced += 1
                    else:
                        kept.append(outcome)
                if kept:
                    yield kept
            if not num_replaced:
                return
            wave = self._extra(step, range(num_extra, num_extra + num_replaced))
            num_extra += num_replaced
            self._counts["replaced_groups"] += num_replaced

    def answer(self, requests: Sequence[RolloutRequest]) -> list[Outcome]:
        """Have prompts that are not trained on answered and scored, and wait for all of them.

        They are sampled by the weights that were loaded last, for none are loaded meanwhile.
        Groups of coming steps that are under way go on beside them and are kept.

        Args:
            requests: Their tickets are not looked at.

        Returns:
            One outcome a request, in order.
        """
        # below 0, where no position of the prompt stream is
        tickets = [-1 - i for i in range(len(requests))]
        self._stream.submit(
            [replace(r, ticket=ticket) for r, ticket in zip(requests, tickets, strict=True)]
        )
        answered: dict[int, Outcome] = {}
        while len(answered) < len(requests):
            for outcome in self._stream.take():
                if outcome.ticket < 0:
                    answered[outcome.ticket] = outcome
                else:
                    self._arrive(outcome)
        return [answered[ticket] for ticket in tickets]

    def _planned(self, step: int) -> Iterator[list[Outcome]]:
        missing = self._plan.per_step
        while missing:
            dropped = self._ledger.drop(step=step)
            self._counts["dropped_stale"] += len(dropped)
            for start in dropped:
                del self._arrived[start.position]
            self._start(dropped)
            positions = self._ledger.take(limit=missing)
            if positions:
                missing -= len(positions)
                yield [self._arrived.pop(position) for position in positions]
                continue
            for outcome in self._stream.take():
                self._arrive(outcome)

    def _arrive(self, outcome: Outcome) -> None:
        self._arrived[outcome.ticket] = outcome
        self._ledger.arrive(outcome.ticket, outcome.version)

    def _start(self, starts: Sequence[Start]) -> None:
        requests: list[RolloutRequest] = []
        for start in starts:
            step, index = divmod(start.position, self._plan.per_step)
            seed = rollout_seed(self._plan.seed, step, index, attempt=start.attempt)
            record = self._prompts.at(start.position)
            requests.append(RolloutRequest(record, seed, start.position))
        self._stream.submit(requests)

    def _extra(self, step: int, numbers: Sequence[int]) -> Iterator[list[Outcome]]:
        """Sample further prompts of a step and hand them out in order."""
        self._stream.submit(
            [
                RolloutRequest(
                    self._prompts.extra(step, number),
                    rollout_seed(self._plan.seed, step, self._plan.per_step + number),
                    number,
                )
                for number in numbers
            ]
        )
        arrived: dict[int, Outcome] = {}
        for number in numbers:
            while number not in arrived:
                arrived |= {outcome.ticket: outcome for outcome in self._stream.take()}
            yield [arrived.pop(number)]


def is_flat(outcome: Outcome) -> bool:
    """Whether a scored group teaches nothing: fewer than two different rewards."""
    if is_failed(outcome.scored):
        return False
    return len({reward for reward in outcome.scored.rewards_G if reward is not None}) < 2
