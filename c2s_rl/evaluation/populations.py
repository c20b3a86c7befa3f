"""Which cells are compared as one population.

Shape suffix: B completions.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from c2s_rl.cells.sentence import stable_hash
from c2s_rl.types import IntArray, PromptRecord, Split


def populations(records_B: Sequence[PromptRecord], num_together: int) -> Iterator[list[int]]:
    """Places of the completions that form one population, conditions in order of appearance.

    More than `num_together` are dealt out like cards, so that every part holds some of each prompt
    and none is larger than the others by more than one. Prompts whose answer is text are in none.

    Args:
        records_B: [B] the prompt of every completion.
        num_together: Most completions of one population.
    """
    by_condition: defaultdict[tuple[Split, str], list[int]] = defaultdict(list)
    for index, record in enumerate(records_B):
        if len(record.target_genes_K):
            by_condition[record.split, record.condition].append(index)
    for places in by_condition.values():
        num_parts = -(-len(places) // num_together)
        yield from (places[first::num_parts] for first in range(num_parts))


def draw_cells(cells: Sequence[IntArray], num: int, name: str, seed: int) -> list[IntArray]:
    """Take at most `num` cells, by a generator of this name alone; in the order given."""
    if len(cells) <= num:
        return list(cells)
    rng = np.random.default_rng(stable_hash(name, seed))
    picked = np.sort(rng.permutation(len(cells))[:num])
    return [cells[index] for index in picked.tolist()]
