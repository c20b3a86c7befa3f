"""What an epoch shows of each task, found by scans of the corpus before anything is tokenised."""

from collections import Counter
from collections.abc import Iterator, Mapping

from c2s_rl.data.token_config import SftDataConfig, check_mixed
from c2s_rl.data.token_mixture import (
    HashedSample,
    QuotaScan,
    TaskQuota,
    epoch_quotas,
    every_sample_once,
)
from c2s_rl.data.token_source import SampleSource
from c2s_rl.data.token_statistics import TokenSide
from c2s_rl.errors import DataError
from c2s_rl.types import Task


def plan_epoch(source: SampleSource) -> dict[Task, TaskQuota]:
    """Count the samples of a corpus and decide how often each is shown.

    Returns:
        The quota of every task that is learnt, by name.

    Raises:
        DataError: If there is nothing to learn from or nothing to evaluate on, or if a task of
            `tasks` or `mixture` has no training samples.
    """
    config = source.config
    counts = _count(source)
    learnt = {task: counts[task, TokenSide.TRAIN] for task, side in counts if side.is_train}
    num_eval = sum(num for (_, side), num in counts.items() if not side.is_train)
    _check_tasks(source, learnt)
    if config.eval_fraction > 0 and num_eval == 0:
        raise DataError(
            f"data.eval_fraction = {config.eval_fraction} must keep some samples out for the eval "
            f"loss, got none of {sum(learnt.values())} in {source.corpus}"
        )
    if config.mixture is None:
        return every_sample_once(learnt)
    try:
        check_mixed(config.mixture, learnt, "the corpus")
    except ValueError as error:
        raise DataError(f"data.{error} in {source.corpus}") from None
    quotas = epoch_quotas(learnt, config.mixture, max_repeats=config.max_repeats)
    scan = QuotaScan()
    scan.add(_hashes(source))
    return scan.choose(quotas, _hashes(source))


def _count(source: SampleSource) -> Mapping[tuple[Task, TokenSide], int]:
    return Counter((place.task, place.side) for place in source.places() if not place.is_shared)


def _hashes(source: SampleSource) -> Iterator[HashedSample]:
    for place in source.places():
        if place.side.is_train and not place.is_shared:
            yield place.task, source.mixture_hash(place.prompt_id)


def _check_tasks(source: SampleSource, learnt: Mapping[Task, int]) -> None:
    wanted = _wanted(source.config)
    missing = sorted(task.value for task in wanted if task not in learnt)
    if missing or not learnt:
        found = ", ".join(f"{task.value} ({num})" for task, num in sorted(learnt.items()))
        raise DataError(
            f"the corpus must have training samples of {', '.join(missing) or 'some task'}, "
            f"got {found or 'none'} in {source.corpus}"
        )


def _wanted(config: SftDataConfig) -> set[Task]:
    return {*(config.tasks or ()), *(config.mixture or ())}
