"""Calling Ray actors: every wait has a deadline, every error keeps its own type and message."""

import time
from collections.abc import Sequence
from typing import TypeVar

import ray
from ray import ObjectRef
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

from c2s_rl.errors import C2SError, DeadlineError, StageError

T = TypeVar("T")


def wait_all(refs: Sequence["ObjectRef[T]"], *, deadline_s: float, peer: str) -> list[T]:
    """Wait for the results of remote calls, in order.

    Args:
        refs: What the calls returned.
        deadline_s: Longest wait for all of them, seconds.
        peer: Who is waited for, in the words of the error message.

    Raises:
        DeadlineError: If they take longer.
        StageError: If the peer's process died.
        C2SError: Whatever the peer raised, as it raised it.
    """
    try:
        results: list[T] = ray.get(list(refs), timeout=deadline_s)
    except GetTimeoutError as error:
        raise DeadlineError(f"{peer} must answer within {deadline_s:g} s, got no answer") from error
    except RayTaskError as error:
        if isinstance(error.cause, C2SError):
            raise error.cause from error
        raise
    except RayActorError as error:
        raise StageError(f"{peer} must stay alive, got its death: {error}") from error
    return results


def wait_each(
    refs: Sequence["ObjectRef[T]"], *, deadline_s: float, peers: Sequence[str]
) -> list[T]:
    """Wait for the results of calls to several peers, in order, naming the one that is late.

    Args:
        refs: What the calls returned.
        deadline_s: Longest wait for all of them together, seconds.
        peers: Who is waited for, one a call.

    Raises:
        DeadlineError: If one takes longer.
        StageError: If a peer's process died.
        C2SError: Whatever a peer raised, as it raised it.
    """
    end = time.monotonic() + deadline_s
    results: list[T] = []
    for ref, peer in zip(refs, peers, strict=True):
        try:
            results += wait_all([ref], deadline_s=max(0.0, end - time.monotonic()), peer=peer)
        except DeadlineError as error:
            raise DeadlineError(
                f"{peer} must answer within {deadline_s:g} s, got no answer"
            ) from error
    return results
