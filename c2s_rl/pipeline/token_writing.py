"""The work behind `c2s_rl/pipeline/tokens.py`: corpus files to sorted runs, runs to shards.

A work folder holds what is done: a run file and its counts for each corpus file, then a shard and
its figures for each range of the order. Each is whole or not there, and none is made twice. Left
out: deciding whether a work folder belongs to this run (`tokens.py`).
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from c2s_rl.checkpoint import replace_text, sha256_of
from c2s_rl.data.token_file import TRAIN_STREAM, FilePass
from c2s_rl.data.token_shards import TokenShard, write_shard
from c2s_rl.data.token_spill import KEY_END, gather
from c2s_rl.data.token_statistics import TaskTally, TokenSide, add_up
from c2s_rl.errors import DataError
from c2s_rl.types import Task

LOG_EVERY_S = 30.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sizes:
    """How much is held in memory at once, in tokens of 4 bytes."""

    run_tokens: int = 32 * 2**20
    """Tokens that are sorted at once: 128 MB, and as much again while they are."""
    shard_tokens: int = 16 * 2**20
    """Tokens of a shard, which is also the window that is packed: thousands of samples, so that
    best fit leaves well under 1 % of the room."""


@dataclass(frozen=True)
class TokenProgress:
    """How far the writing is."""

    step: str
    """'tokenising' corpus files, then 'writing' shards."""
    num_done: int
    """Files or shards done."""
    num_all: int
    """Files or shards in all."""


OnProgress = Callable[[TokenProgress], None]


@dataclass(frozen=True)
class _Range:
    """What a shard holds."""

    name: str
    side: TokenSide
    task: Task | None
    stream: int
    first_key: int
    end_key: int


class TokenWriter:
    """Writes the shards of one corpus into a work folder."""

    def __init__(
        self, file_pass: FilePass, work: Path, *, shard_tokens: int, on_progress: OnProgress
    ) -> None:
        self._pass = file_pass
        self._work = work
        self._shard_tokens = shard_tokens
        self._on_progress = on_progress
        self._logged = time.monotonic()

    @property
    def codes(self) -> Mapping[Task, int]:
        """Task to its code, in the order of codes."""
        return self._pass.codes

    @property
    def shards(self) -> Path:
        """Folder of the shards."""
        return self._work / "shards"

    def tokenise(self) -> tuple[TaskTally, ...]:
        """Tokenise every corpus file.

        Raises:
            DataError: If a sample is too long and that is an error, or a task is left with none.
        """
        files = self._pass.source.files()
        tallies: tuple[TaskTally, ...] = ()
        for i, path in enumerate(files):
            tallies = add_up((*tallies, *self._pass.run(path, self._spill(i))))
            self._tell(TokenProgress("tokenising", i + 1, len(files)))
        self._check_left(tallies)
        return tallies

    def write(self, tallies: Sequence[TaskTally]) -> tuple[TokenShard, ...]:
        """Gather every shard from the runs.

        Args:
            tallies: What `tokenise` returned.

        Returns:
            The shards, training ones first; those of a stream in its order.
        """
        self.shards.mkdir(exist_ok=True)
        spills = [self._spill(i) for i in range(len(self._pass.source.files()))]
        ranges = list(self._ranges(tallies))
        written = []
        for i, wanted in enumerate(ranges):
            written.append(self._shard(wanted, spills))
            self._tell(TokenProgress("writing", i + 1, len(ranges)))
        for shard in written:
            if shard.num_rows == 0:  # a range of keys without any sample: few samples, small shards
                (self.shards / shard.name).unlink(missing_ok=True)
        return tuple(shard for shard in written if shard.num_rows)

    def _spill(self, index: int) -> Path:
        return self._work / f"runs-{index:05d}.arrow"

    def _check_left(self, tallies: Sequence[TaskTally]) -> None:
        for counts in (tally.counts for tally in tallies):
            if counts.num_in == 0:
                limit = self._pass.source.config.max_length
                raise DataError(
                    f"at least one {counts.side.value} sample of {counts.task.value!r} must have "
                    f"at most data.max_length = {limit} tokens, got {counts.num_samples} samples "
                    "and none of them that short"
                )

    def _ranges(self, tallies: Sequence[TaskTally]) -> Iterator[_Range]:
        num_train = sum(t.counts.num_tokens for t in tallies if t.counts.side.is_train)
        yield from self._divide("train", TRAIN_STREAM, num_train, None)
        for tally in tallies:
            if not tally.counts.side.is_train:
                task = tally.counts.task
                stream = 1 + self._pass.codes[task]
                yield from self._divide(f"eval-{task.value}", stream, tally.counts.num_tokens, task)

    def _divide(
        self, name: str, stream: int, num_tokens: int, task: Task | None
    ) -> Iterator[_Range]:
        """Cut a stream into ranges of keys; keys are hashes, so equal ranges are equally full."""
        num_shards = max(1, -(-num_tokens // self._shard_tokens))
        for i in range(num_shards):
            yield _Range(
                name=f"{name}-{i:05d}.arrow",
                side=TokenSide.TRAIN if task is None else TokenSide.EVAL,
                task=task,
                stream=stream,
                first_key=KEY_END * i // num_shards,
                end_key=KEY_END * (i + 1) // num_shards,
            )

    def _shard(self, wanted: _Range, spills: Sequence[Path]) -> TokenShard:
        path = self.shards / wanted.name
        figures = (self._work / wanted.name).with_suffix(".json")
        if path.is_file():
            return TokenShard.model_validate_json(figures.read_text(encoding="utf-8"))
        samples = gather(spills, wanted.stream, wanted.first_key, wanted.end_key)
        config = self._pass.source.config
        partial = self._work / f"{wanted.name}.partial"
        num_rows = write_shard(
            partial, samples, row_length=config.max_length if config.packing else None
        )
        shard = TokenShard(
            name=wanted.name,
            side=wanted.side,
            task=wanted.task,
            num_rows=num_rows,
            num_samples=len(samples),
            num_tokens=sum(len(sample.ids) for sample in samples),
            sha256=sha256_of(partial),
        )
        # Before the shard gets its name: where it is, its figures are too.
        replace_text(figures, shard.model_dump_json())
        partial.replace(path)
        return shard

    def _tell(self, progress: TokenProgress) -> None:
        self._on_progress(progress)
        now = time.monotonic()
        if now - self._logged > LOG_EVERY_S:
            self._logged = now
            log.info("%s: %d of %d", progress.step, progress.num_done, progress.num_all)
