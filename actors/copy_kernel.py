"""Copying and summing up in one pass: words are read once and written once, past the caches.

A plain store first reads the line that it goes to, which is a third of the traffic of a copy, and
drives out what others keep in the caches; but who reads these words is another process, later.

Apart from `actors/shared_weights.py` because vLLM's process reads slots too and cannot stand numba.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from c2s_rl.cells.jit import kernel

WordArray = npt.NDArray[np.uint64]

PAGE_WORDS = 4096 // 8


@intrinsic  # type: ignore[untyped-decorator]
def _store_past_caches(_context: Any, words: types.Array, _place: Any, _word: Any) -> Any:  # noqa: ANN401
    """Write `words[place] = word` by a store that LLVM calls nontemporal (its language reference).

    Other threads may see it late: a `_fence` must come before they are told.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        array = context.make_array(signature.args[0])(context, builder, args[0])
        store = builder.store(args[2], builder.gep(array.data, [args[1]]), align=8)
        one = ir.Constant(ir.IntType(32), 1)
        store.set_metadata("nontemporal", builder.module.add_metadata([one]))
        return context.get_dummy_value()

    return types.void(words, types.int64, types.uint64), generate


@intrinsic  # type: ignore[untyped-decorator]
def _fence(_context: Any) -> Any:  # noqa: ANN401
    """Let every earlier store be seen before any later one."""

    def generate(context: Any, builder: Any, _signature: Any, _args: Any) -> Any:  # noqa: ANN401
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), generate


@kernel
def copy_pages(target: WordArray, source: WordArray, sums: WordArray) -> None:
    """Copy words to the start of whole pages and sum the pages up, modulo 2^64.

    Args:
        target: Whole pages, one after the other in memory; beyond the source's end they keep what
            they hold.
        source: At most as many words.
        sums: One entry a page, overwritten.
    """
    for page in range(len(sums)):
        first = page * PAGE_WORDS
        last = min(first + PAGE_WORDS, len(source))
        total = np.uint64(0)
        for place in range(first, last):
            word = source[place]
            total += word
            _store_past_caches(target, place, word)
        for place in range(max(first, last), first + PAGE_WORDS):
            total += target[place]
        sums[page] = total
    _fence()
