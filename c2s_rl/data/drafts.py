"""Which cells make which prompt, before any text is written.

Every choice is keyed by cell ids and the seed, so it does not depend on the order of the cells.
Left out: wording and targets (`corpus.py`) and the line between training and test (`splits.py`).

Shape suffix: C cells.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from c2s_rl.cells.rank import stable_hash
from c2s_rl.cells.vocabulary import shown
from c2s_rl.data.corpus_config import PromptLimits
from c2s_rl.data.labels import LabelledCell
from c2s_rl.types import Split, Task

log = logging.getLogger(__name__)


class Placed(Protocol):
    """What limiting and counting need to know of a draft."""

    @property
    def prompt_id(self) -> str:
        """Unique id."""

    @property
    def task(self) -> Task:
        """What is asked."""

    @property
    def condition(self) -> str:
        """Population that the answer belongs to."""

    @property
    def split(self) -> Split:
        """Its side."""


PlacedT = TypeVar("PlacedT", bound=Placed)


@dataclass(frozen=True)
class Draft:
    """A prompt to be written."""

    prompt_id: str
    """Unique: task, answer cell and number of the draw."""
    task: Task
    """What is asked."""
    cell: LabelledCell
    """The cell that is the answer, or whose type is."""
    control: LabelledCell | None
    """The untreated cell shown; None when the task has none."""

    @property
    def condition(self) -> str:
        """Population of the answer."""
        return self.cell.condition

    @property
    def split(self) -> Split:
        """Side of the answer."""
        return self.cell.split


def draft_prompts(
    cells: Sequence[LabelledCell], task: Task, *, pairs_per_cell: int, seed: int
) -> tuple[list[Draft], Counter[str]]:
    """Choose the cells of every prompt of a task.

    Args:
        cells: All cells of the corpus.
        task: The task.
        pairs_per_cell: Control cells a perturbed cell is paired with.
        seed: Seed of the pairing.

    Returns:
        Drafts in order of cell id and draw, and what was left out: 'no_control' (cells),
        'too_few_controls' (prompts), 'not_control' (cells).
    """
    ordered = sorted(cells, key=lambda cell: cell.cell_id)
    if task is Task.PERTURBATION_RESPONSE:
        return _pair(ordered, pairs_per_cell, seed)
    if task is Task.CELL_GENERATION:
        # The prompt names a cell type and no perturbation: an untreated cell is what it asks for.
        kept = [cell for cell in ordered if cell.is_control]
    else:
        kept = ordered
    drafts = [Draft(f"{task}/{cell.cell_id}/0", task, cell, None) for cell in kept]
    return drafts, Counter({"not_control": len(ordered) - len(kept)})


def _pair(
    ordered: Sequence[LabelledCell], pairs_per_cell: int, seed: int
) -> tuple[list[Draft], Counter[str]]:
    """Pair each perturbed cell with controls of its type, donor and side, drawn without repeats."""
    pools: defaultdict[tuple[str, str, Split], list[LabelledCell]] = defaultdict(list)
    for cell in ordered:
        if cell.is_control:
            pools[cell.cell_type, cell.donor, cell.split].append(cell)
    drafts: list[Draft] = []
    dropped: Counter[str] = Counter()
    lacking: Counter[str] = Counter()
    for cell in ordered:
        if cell.is_control:
            continue
        pool = pools.get((cell.cell_type, cell.donor, cell.split), [])
        if not pool:
            dropped["no_control"] += 1
            lacking[f"{cell.condition} ({cell.split})"] += 1
            continue
        num = min(pairs_per_cell, len(pool))
        dropped["too_few_controls"] += pairs_per_cell - num
        generator = np.random.default_rng(stable_hash(f"pair|{cell.cell_id}", seed))
        for draw, pick in enumerate(generator.choice(len(pool), size=num, replace=False)):
            prompt_id = f"{Task.PERTURBATION_RESPONSE}/{cell.cell_id}/{draw}"
            drafts.append(Draft(prompt_id, Task.PERTURBATION_RESPONSE, cell, pool[pick]))
    if lacking:
        names = shown([f"{name}: {num}" for name, num in sorted(lacking.items())])
        log.warning("left out perturbed cells that have no control cell: %s", names)
    return drafts, dropped


def limit_drafts(
    drafts: Iterable[PlacedT], limits: PromptLimits, *, seed: int
) -> tuple[list[PlacedT], int]:
    """Shuffle drafts by a hash of their id and keep the first so many of each task and condition.

    Args:
        drafts: All drafts of a corpus.
        limits: Most prompts per task, condition and side.
        seed: Seed of the order; the order given has no influence.

    Returns:
        What is kept, in shuffled order, so that any first part is a fair sample; and the number
        that was left out.
    """
    most = {Split.TRAIN: limits.train, Split.TEST: limits.test}
    num: Counter[tuple[Task, str, Split]] = Counter()
    kept: list[PlacedT] = []
    num_dropped = 0
    for draft in sorted(drafts, key=lambda d: stable_hash(f"order|{d.prompt_id}", seed)):
        key = (draft.task, draft.condition, draft.split)
        limit = most[draft.split]
        if limit is not None and num[key] >= limit:
            num_dropped += 1
            continue
        num[key] += 1
        kept.append(draft)
    return kept, num_dropped
