"""Calling Ray actors: every wait has a deadline, every error keeps its own type and message."""

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
