"""The training samples of a corpus, read a few at a time: text, and on which side they stand.

Reads only the columns that tokenising needs, so that the genes of targets and controls, most of a
prompt shard, are never decoded. Left out: the test side, which nothing here may see.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from c2s_rl.cells.rank import stable_hash
from c2s_rl.data.token_config import SftDataConfig
from c2s_rl.data.token_samples import SampleText
from c2s_rl.data.token_statistics import TokenSide
from c2s_rl.errors import DataError, MissingFileError
from c2s_rl.types import Split, Task

PLACES = ["prompt_id", "target_ids", "context_ids", "task", "split"]
TEXTS = ["prompt", "target"]
# Samples decoded at once: 60 MB of text where a sample shows twenty cells of a thousand genes.
ROWS_AT_ONCE = 512


@dataclass(frozen=True)
class SourceSample:
    """Which sample it is and where it stands."""

    prompt_id: str
    """Unique within the corpus."""
    task: Task
    """What it asks."""
    side: TokenSide
    """Learnt from, or kept out for the eval loss."""
    is_shared: bool = False
    """It would be learnt from, but holds a cell that is kept out: it is left out."""


@dataclass(frozen=True)
class SampleSource:
    """Training samples of a corpus."""

    corpus: Path
    """Prompt shards."""
    config: SftDataConfig
    """Which tasks, and which share of cells is kept out."""
    seed: int
    """The run's seed."""

    def files(self) -> list[Path]:
        """Prompt shards, in order.

        Raises:
            MissingFileError: If there are none.
        """
        paths = sorted(self.corpus.glob("prompts-*.parquet"))
        if not paths:
            raise MissingFileError(
                f"a corpus must hold prompts-*.parquet, got none in {self.corpus}"
            )
        return paths

    def places(self) -> Iterator[SourceSample]:
        """Read where all samples stand, without their text."""
        for path in self.files():
            for table in self._tables(path, PLACES):
                yield from self._places(table)

    def read(self, path: Path) -> Iterator[list[tuple[SourceSample, SampleText]]]:
        """Read the samples of one file with their text, some at a time."""
        for table in self._tables(path, [*PLACES, *TEXTS]):
            prompts, targets = (table[name].to_pylist() for name in TEXTS)
            yield [
                (place, SampleText(place.prompt_id, place.task, prompt, target))
                for place, prompt, target in zip(self._places(table), prompts, targets, strict=True)
            ]

    def mixture_hash(self, prompt_id: str) -> int:
        """64-bit hash by which a mixture chooses samples."""
        return stable_hash(f"mixture {prompt_id}", self.seed)

    def order_key(self, prompt_id: str, copy: int) -> int:
        """Place of one showing of a sample in the order of an epoch, 64 bits."""
        return stable_hash(f"order {copy} {prompt_id}", self.seed)

    def _tables(self, path: Path, columns: list[str]) -> Iterator[pa.Table]:
        tasks = self.config.tasks
        try:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(ROWS_AT_ONCE, columns=columns):
                    table = pa.table(batch)
                    mask = pc.equal(table["split"].cast(pa.string()), Split.TRAIN.value)
                    if tasks is not None:
                        names = pa.array([task.value for task in tasks])
                        mask = pc.and_(mask, pc.is_in(table["task"].cast(pa.string()), names))
                    yield table.filter(mask)
        except (pa.ArrowInvalid, pa.ArrowKeyError, KeyError, OSError) as error:
            raise DataError(
                f"a prompt shard must be whole Parquet, got {error} in {path}"
            ) from error

    def _places(self, table: pa.Table) -> Iterator[SourceSample]:
        fraction = self.config.eval_fraction
        for prompt_id, targets, contexts, task in zip(
            table["prompt_id"].to_pylist(),
            table["target_ids"].to_pylist(),
            table["context_ids"].to_pylist(),
            table["task"].cast(pa.string()).to_pylist(),
            strict=True,
        ):
            # A prompt without cells of the shards stands for itself.
            units = [*targets, *contexts] or [prompt_id]
            are_out = [is_kept_out(unit, fraction=fraction, seed=self.seed) for unit in units]
            yield SourceSample(
                prompt_id=prompt_id,
                task=Task(task),
                side=TokenSide.EVAL if are_out[0] else TokenSide.TRAIN,
                is_shared=any(are_out) and not are_out[0],
            )


def is_kept_out(unit: str, *, fraction: float, seed: int) -> bool:
    """Tell whether a cell is kept out of training for the eval loss.

    Depends on nothing but id and seed. No sample with such a cell is learnt, in whatever place it
    holds it. The eval loss is of those whose first cell it is (of the answer, else of the prompt);
    other cells of a sample of several may be learnt elsewhere.

    Args:
        unit: Id of a cell, or of a prompt that holds none.
        fraction: Expected share that is kept out, in [0, 1).
        seed: The run's seed.
    """
    return stable_hash(unit, seed) < int(fraction * 2**64)
