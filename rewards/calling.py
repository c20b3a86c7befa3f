"""Calling a plug-in's `score`, sync or async; one way for training and for scoring offline.

Left out: checking what comes back, processes and deadlines; those belong to whoever calls.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Sequence

from c2s_rl.types import Group
from rewards.base import Reward, RewardBatch, RewardResult, RewardScope


def call_score(reward: Reward, batch: RewardBatch) -> RewardResult:
    """Call a reward and, if its `score` is async, wait for the answer.

    Every call of an async reward runs in an event loop of its own, so a plug-in opens its clients
    inside `score`. Call it from a thread without a running loop.

    Raises:
        Exception: Whatever the plug-in raises.
    """
    answer: RewardResult | Awaitable[RewardResult] = reward.score(batch)
    if inspect.isawaitable(answer):
        return asyncio.run(_wait(answer))
    return answer


def split_by_scope(scope: RewardScope, groups: Sequence[Group]) -> list[tuple[int, ...]]:
    """Say which groups one call of a reward must see together.

    Returns:
        Indices into `groups`, ascending within a call: all in one for GROUP, one call a condition
        for CONDITION, in the order of their first group. Empty for no groups.
    """
    if scope is RewardScope.GROUP:
        return [tuple(range(len(groups)))] if groups else []
    calls: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        calls.setdefault(group.record.condition, []).append(index)
    return [tuple(indices) for indices in calls.values()]


async def _wait(answer: Awaitable[RewardResult]) -> RewardResult:
    return await answer
