"""Which cells the prompts of a corpus show, by side of the held-out line, without their texts."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from c2s_rl.data.prompt_set import read_manifest
from c2s_rl.errors import DataError
from c2s_rl.types import Split, Task


def cells_shown(corpus: Path, task: Task, split: Split) -> frozenset[str]:
    """Collect the ids of the (first) cells that prompts of a task and side show.

    Raises:
        MissingFileError: If the folder holds no corpus.
        DataError: If a shard cannot be read, or no prompt of the task is on that side.
    """
    read_manifest(corpus)
    ids: set[str] = set()
    for path in sorted(corpus.glob("prompts-*.parquet")):
        try:
            table = pq.read_table(path, columns=["context_id", "task", "split"])
        except (pa.ArrowException, OSError) as error:
            reason = " ".join(str(error).split())
            raise DataError(
                f"a prompt shard must be whole Parquet, got {reason} in {path}"
            ) from error
        for column, wanted in (("task", task), ("split", split)):
            table = table.filter(pc.equal(table[column].cast(pa.string()), wanted.value))
        ids.update(table["context_id"].to_pylist())
    if not ids:
        raise DataError(f"the corpus must have {task} prompts on the {split} side, got {corpus}")
    return frozenset(ids)
