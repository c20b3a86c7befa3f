"""Ranking with the tie order of the cell2sentence package, to reproduce sentences made with it.

The package (1.2.0, `generate_sentences`) shuffles the stored entries of one row after another with
numpy's global generator and then sorts them stably. Its order among ties therefore depends on the
order of the cells in the file; `rank.py` does not have that weakness and is the default. One
deviation: the package writes stored zeros at the end of a sentence, here they are dropped.
"""

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from c2s_rl.cells.rank import IndexArray, RankedRows
from c2s_rl.types import FloatArray, IntArray

StateArray = npt.NDArray[np.uint32]


class C2SRanker:
    """Ranks rows in the order of the file; keeps the random stream between calls."""

    def __init__(self, seed: int) -> None:
        """Start the stream.

        Args:
            seed: The package's `random_state`, 42 unless it was changed; in 0..2^32-1.
        """
        # The package's generator, for its exact stream.
        self._random = np.random.RandomState(seed)

    @property
    def state(self) -> StateArray:
        """[625] where the stream is: the generator's words and its place among them."""
        words: StateArray = self._random.get_state(legacy=False)["state"]["key"]
        place = self._random.get_state(legacy=False)["state"]["pos"]
        return np.append(words, np.uint32(place))

    def set_state(self, state: StateArray) -> None:
        """Go on where another ranker was."""
        self._random.set_state(("MT19937", state[:-1], int(state[-1])))

    def rank(
        self, indptr: IndexArray, indices: IntArray, values: FloatArray, *, top_k: int | None
    ) -> RankedRows:
        """Rank the next rows; see `rank.rank_rows` for shapes.

        Args:
            indptr: [C + 1] row bounds.
            indices: [Z] gene of each entry, in the order of the file.
            values: [Z] expression; entries that are not positive are dropped.
            top_k: Keep this many genes a cell; None keeps all.
        """
        orders = [
            start + self._order(values[start:stop])[:top_k] for start, stop in pairwise(indptr)
        ]
        order = np.concatenate([np.empty(0, dtype=np.int64), *orders])
        kept_indptr = np.cumsum([0, *map(len, orders)], dtype=np.int64)
        return RankedRows(indptr=kept_indptr, genes=indices[order], values=values[order])

    def _order(self, row: FloatArray) -> IndexArray:
        """Return the positions of the positive entries of a row, highest first."""
        shuffled = np.arange(len(row))
        self._random.shuffle(shuffled)  # what sklearn.utils.shuffle does to the row
        ranked = shuffled[np.argsort(-row[shuffled], kind="stable")]
        expressed: IndexArray = ranked[row[ranked] > 0]
        return expressed
