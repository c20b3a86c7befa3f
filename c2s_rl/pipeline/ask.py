"""Asking a policy many prompts, a chunk at a time: bounded memory, results as parts on disk.

The next chunk is sampled while the last answers of the one before come in, so that engines are
never without work. Each prompt has a seed of its own, so an answer does not depend on the chunks,
on what stands beside it or on the number of engines, as far as vLLM computes alike in other
batches. Left out: engines (`actors/`) and what is asked (`annotate.py`, `generate.py`).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.data.parquet_parts import bounds_of, missing_parts, part_path
from c2s_rl.grpo.roles import RolloutAnswer, RolloutRequest
from c2s_rl.grpo.sampling import SamplingConfig
from c2s_rl.types import Group

CHUNK_PROMPTS = 512
CHUNKS_AT_ONCE = 2
# How long one wait for answers lasts before the deadline of the workers is looked at again.
WAIT_S = 5.0

OnProgress = Callable[[int, int], None]
"""Called with the prompts that are answered and those of the whole stage."""


class Engines(Protocol):
    """What is needed of rollout workers here; `grpo.roles.RolloutWorker` has it."""

    def submit(self, requests: Sequence[RolloutRequest]) -> None:
        """Start sampling one group a request."""

    def collect(self, *, timeout_s: float) -> list[RolloutAnswer]:
        """Wait until requests are finished, or for `timeout_s`, and return them."""


StartEngines = Callable[[Vocabulary, SamplingConfig], AbstractContextManager[Engines]]
"""Starts engines on the stage's policy for the length of a block."""


@dataclass(frozen=True)
class AskFolders:
    """Where a stage reads and writes."""

    policy: Path
    """Hugging Face folder."""
    cells: Path
    """Cells folder."""
    output: Path
    """Folder of the results."""


def ask(
    engines: Engines,
    requests_of: Callable[[int, int], list[RolloutRequest]],
    chunks: Sequence[int],
    *,
    num_prompts: int,
    chunk_prompts: int = CHUNK_PROMPTS,
) -> Iterator[tuple[int, list[Group]]]:
    """Have chunks of prompts answered.

    Args:
        engines: Nothing else is being sampled on them.
        requests_of: Makes the requests of prompts start..stop-1; their tickets are set here.
        chunks: Numbers of the chunks to ask.
        num_prompts: Of all chunks together.
        chunk_prompts: Prompts of a chunk.

    Yields:
        Number of a chunk and its groups in the order of its prompts, as chunks are finished.
    """
    remaining = list(reversed(chunks))
    answered: dict[int, dict[int, Group]] = {}
    while remaining or answered:
        while remaining and len(answered) < CHUNKS_AT_ONCE:
            chunk = remaining.pop()
            answered[chunk] = {}
            start, stop = bounds_of(chunk, chunk_prompts, num_prompts)
            engines.submit(_numbered(requests_of(start, stop), start))
        for answer in engines.collect(timeout_s=WAIT_S):
            answered[answer.ticket // chunk_prompts][answer.ticket] = answer.group
        for chunk in list(answered):
            start, stop = bounds_of(chunk, chunk_prompts, num_prompts)
            if len(answered[chunk]) == stop - start:
                groups = answered.pop(chunk)
                yield chunk, [groups[ticket] for ticket in range(start, stop)]


class Asked(Protocol):
    """What is asked, by number, and how answers are kept."""

    def requests(self, start: int, stop: int) -> list[RolloutRequest]:
        """Make the requests of prompts start..stop-1."""

    def write(self, path: Path, groups: list[Group]) -> None:
        """Write the answers of one part, whole or not at all."""


def answer_all(
    asked: Asked,
    folder: Path,
    start: Callable[[], AbstractContextManager[Engines]],
    *,
    num_prompts: int,
    chunk_prompts: int,
    on_progress: OnProgress,
) -> None:
    """Have all prompts answered whose parts are not in the folder yet.

    Args:
        asked: The prompts.
        folder: Where the parts are.
        start: Starts engines; not called if nothing is left to ask.
        num_prompts: Of all parts.
        chunk_prompts: Prompts of a part.
        on_progress: For progress bars.
    """
    missing = missing_parts(folder, chunk_prompts, num_prompts)
    done = num_prompts
    for part in missing:
        first, stop = bounds_of(part, chunk_prompts, num_prompts)
        done -= stop - first
    on_progress(done, num_prompts)
    if not missing:
        return
    with start() as engines:
        for part, groups in ask(
            engines, asked.requests, missing, num_prompts=num_prompts, chunk_prompts=chunk_prompts
        ):
            asked.write(part_path(folder, part), groups)
            done += len(groups)
            on_progress(done, num_prompts)


def _numbered(requests: Sequence[RolloutRequest], start: int) -> list[RolloutRequest]:
    return [
        RolloutRequest(
            request.record,
            request.seed,
            ticket=start + i,
            num_samples=request.num_samples,
            cache_scope=request.cache_scope,
        )
        for i, request in enumerate(requests)
    ]
