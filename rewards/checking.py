"""Checking what a plug-in gives back: a failure is typed, and never becomes a number.

Every completion is judged by itself, so that good ones beside a bad one keep their scores. Left
out: deadlines, memory and crashes, which need a process of their own (`actors/reward_process.py`).

Shape suffixes: B = all completions of a batch, group after group.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from c2s_rl.errors import RewardError
from rewards.base import (
    CheckedResult,
    FailureKind,
    Reward,
    RewardBatch,
    RewardFailure,
    RewardResult,
)
from rewards.calling import call_score

NUMBERS = float | int | np.floating | np.integer | np.bool_
# A message is read by people: a megabyte of repr would hide what it says.
MAX_SHOWN = 300


def score_checked(reward: Reward, batch: RewardBatch, name: str) -> CheckedResult:
    """Call a plug-in, sync or async, and check what it gives back.

    Args:
        reward: The plug-in.
        batch: What it is given.
        name: Names it in messages.

    Returns:
        One entry a completion. Where the call as a whole failed (it raised, or its answer has the
        wrong shape) every completion has that failure.
    """
    try:
        result = call_score(reward, batch)
    except MemoryError as error:
        return _all_failed(batch, _failure(FailureKind.MEMORY, _raised(error), batch, name))
    except Exception as error:  # noqa: BLE001 whatever a plug-in raises
        return _all_failed(batch, _failure(FailureKind.RAISED, _raised(error), batch, name))
    wrong_shape = _wrong_shape(result, len(batch))
    if wrong_shape:
        return _all_failed(batch, _failure(FailureKind.WRONG_LENGTH, wrong_shape, batch, name))
    return _checked(result, batch, name)


def raise_failures(result: CheckedResult) -> CheckedResult:
    """Return a result without failures as it is; for callers that go no further with one.

    Raises:
        RewardError: With the first failure's message and their number.
    """
    if result.failures:
        first = result.failures[min(result.failures)]
        raise RewardError(
            f"{first.message} ({len(result.failures)} of {len(result.scores)} completions failed)"
        )
    return result


def split_result(result: CheckedResult, sizes: Sequence[int]) -> list[CheckedResult]:
    """Cut a result into parts of so many completions, in order."""
    parts: list[CheckedResult] = []
    start = 0
    for size in sizes:
        part = slice(start, start + size)
        parts.append(
            CheckedResult(
                result.scores[part],
                {name: values[part] for name, values in result.diagnostics.items()},
                {i - start: f for i, f in result.failures.items() if start <= i < part.stop},
            )
        )
        start = part.stop
    return parts


def join_results(parts: Sequence[CheckedResult]) -> CheckedResult:
    """Put results one after the other; nan where a part does not have another's diagnostic."""
    names = dict.fromkeys(name for part in parts for name in part.diagnostics)
    failures: dict[int, RewardFailure] = {}
    start = 0
    for part in parts:
        failures |= {start + i: failure for i, failure in part.failures.items()}
        start += len(part.scores)
    return CheckedResult(
        tuple(score for part in parts for score in part.scores),
        {
            name: tuple(
                value
                for part in parts
                for value in part.diagnostics.get(name, (math.nan,) * len(part.scores))
            )
            for name in names
        },
        failures,
    )


def shorten(text: str) -> str:
    """Make one line of at most `MAX_SHOWN` characters."""
    line = " ".join(text.split())
    return line if len(line) <= MAX_SHOWN else f"{line[:MAX_SHOWN]}..."


def _shown(value: object) -> str:
    try:
        return shorten(repr(value))
    except Exception:  # noqa: BLE001 a plug-in's object may fail even here
        return f"a {type(value).__name__} that cannot be shown"


def _raised(error: Exception) -> str:
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 a plug-in's exception may fail even here
        text = "(its message cannot be read)"
    return f"a reward must not raise, got {type(error).__name__}: {shorten(text)}"


def _wrong_shape(result: object, num_completions: int) -> str:
    """Say what is wrong with the answer as a whole; '' if nothing is."""
    if not isinstance(result, RewardResult):
        return f"a reward must return a RewardResult, got {_shown(result)}"
    if not isinstance(result.diagnostics, Mapping):
        return f"a reward must give diagnostics by name, got {_shown(result.diagnostics)}"
    for what, values in {"scores": result.scores, **result.diagnostics}.items():
        if not isinstance(values, Sequence | np.ndarray):
            return f"a reward must give {what} as a tuple, got {_shown(values)}"
        if len(values) != num_completions:
            return (
                f"a reward must give one value per completion, got {len(values)} {what} "
                f"for {num_completions}"
            )
    return ""


def _checked(result: RewardResult, batch: RewardBatch, name: str) -> CheckedResult:
    """Judge every completion of an answer that has the right shape."""
    prompts_B = [g.record.prompt_id for g in batch.groups for _ in g.completions_G]
    wrong: dict[int, tuple[FailureKind, str]] = {}
    for what, values in result.diagnostics.items():
        for i, value in enumerate(values):
            # not finite is allowed: no figure for this completion
            if _wrong_number(value) is FailureKind.NOT_A_NUMBER:
                rule = f"a diagnostic must be a number, got {_shown(value)} as {what!r}"
                wrong[i] = (FailureKind.NOT_A_NUMBER, rule)
    for i, score in enumerate(result.scores):
        if score is not None and (kind := _wrong_number(score)) is not None:
            wrong[i] = (kind, f"a reward must give finite numbers, got {_shown(score)}")
    return CheckedResult(
        tuple(
            None if value is None or i in wrong else float(value)
            for i, value in enumerate(result.scores)
        ),
        {
            what: tuple(_figure(v) if i not in wrong else math.nan for i, v in enumerate(values))
            for what, values in result.diagnostics.items()
        },
        {
            i: RewardFailure(kind, f"{rule} in reward {name!r} on prompt {prompts_B[i]!r}")
            for i, (kind, rule) in wrong.items()
        },
    )


def _figure(value: float) -> float:
    """A diagnostic as a float; not-a-number for what is not finite, which means would spread."""
    return float(value) if _wrong_number(value) is None else math.nan


def _wrong_number(value: object) -> FailureKind | None:
    if not isinstance(value, NUMBERS):
        return FailureKind.NOT_A_NUMBER
    try:
        return None if math.isfinite(value) else FailureKind.NOT_FINITE
    except OverflowError:  # an integer beyond floating point
        return FailureKind.NOT_FINITE


def _failure(kind: FailureKind, message: str, batch: RewardBatch, name: str) -> RewardFailure:
    prompts = shorten(", ".join(repr(group.record.prompt_id) for group in batch.groups))
    return RewardFailure(kind, f"{message} in reward {name!r} on prompts [{prompts}]")


def _all_failed(batch: RewardBatch, failure: RewardFailure) -> CheckedResult:
    failures = dict.fromkeys(range(len(batch)), failure)
    return CheckedResult((None,) * len(batch), {}, failures)
