"""Copying and summing up in one pass: a page is summed while it is still in the nearest cache.

Apart from `actors/shared_weights.py` because vLLM's process reads slots too and cannot stand numba.
"""

import numpy as np
import numpy.typing as npt

from c2s_rl.cells.jit import kernel

PAGE_WORDS = 4096 // 8


@kernel
def copy_pages(
    target: npt.NDArray[np.uint64], source: npt.NDArray[np.uint64], sums: npt.NDArray[np.uint64]
) -> None:
    """Copy words to the start of whole pages and sum the pages up, modulo 2^64.

    Args:
        target: Whole pages; beyond the source's end they keep what they hold.
        source: At most as many words.
        sums: One entry a page, overwritten.
    """
    for page in range(len(sums)):
        first = page * PAGE_WORDS
        last = min(first + PAGE_WORDS, len(source))
        if first < last:
            target[first:last] = source[first:last]
        total = np.uint64(0)
        for word in range(first, first + PAGE_WORDS):
            total += target[word]
        sums[page] = total
