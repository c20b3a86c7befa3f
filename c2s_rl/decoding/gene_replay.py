"""The gene trie's masks of a whole completion, as the learner needs them: compiled loops.

The same rule as `GeneWalk`, which the tests hold it to. Importing this imports numba, so the
sampler's process must not (see `gene_trie`).
Shapes: M nodes, T completion tokens, W bytes of a row of bits.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from c2s_rl.cells.jit import kernel
from c2s_rl.types import IntArray

BitRow = npt.NDArray[np.uint8]


class TrieArrays(NamedTuple):
    """The trie's numbers in a form that kernels take; see `GeneTrie` for the arrays."""

    token_M: IntArray
    parent_M: IntArray
    first_child_M: IntArray
    gene_M: IntArray
    num_genes_M: IntArray
    height_M: IntArray
    column_M: IntArray
    """[M] bit of each node's token; the root's is the bit of end-of-sequence."""
    min_genes: int
    max_genes: int
    eos_id: int


@kernel
def _set(row_W: BitRow, bit: int) -> None:
    row_W[bit >> 3] |= np.uint8(1 << (bit & 7))


@kernel
def _clear(row_W: BitRow, bit: int) -> None:
    row_W[bit >> 3] &= np.uint8(255 ^ (1 << (bit & 7)))


@kernel
def _child(token: int, node: int, trie: TrieArrays) -> int:
    """Return the child of a node by token, or -1; children are in the order of their tokens."""
    low, stop = trie.first_child_M[node], trie.first_child_M[node + 1]
    high = stop
    while low < high:
        middle = (low + high) // 2
        if trie.token_M[middle] < token:
            low = middle + 1
        else:
            high = middle
    if low < stop and trie.token_M[low] == token:
        return int(low)
    return -1


@kernel
def _write_starts(
    row_W: BitRow, starts_W: BitRow, trie: TrieArrays, num_left: int, exhausted: int
) -> None:
    """Allow the first tokens of unused genes that fit, except the node `exhausted` (0: none)."""
    row_W[:] = starts_W
    if exhausted != 0:
        _clear(row_W, trie.column_M[exhausted])
    if num_left <= trie.height_M[0]:
        for start in range(1, trie.first_child_M[1]):
            if trie.height_M[start] >= num_left:
                _clear(row_W, trie.column_M[start])


@kernel
def _write_children(row_W: BitRow, trie: TrieArrays, node: int, unused_M: IntArray) -> None:
    """Allow the tokens that go on with a gene from a node to an unused one."""
    for child in range(trie.first_child_M[node], trie.first_child_M[node + 1]):
        if unused_M[child] > 0:
            _set(row_W, trie.column_M[child])


@kernel
def _after_close(token: int, trie: TrieArrays) -> int:
    """Return the node that a token leads to where no gene is open: 0 is the end, -1 nowhere."""
    return 0 if token == trie.eos_id else _child(token, 0, trie)


@kernel
def _use_gene(node: int, trie: TrieArrays, unused_M: IntArray, starts_W: BitRow) -> None:
    """Count the gene that ends at a node as used."""
    start = node
    while node != 0:
        unused_M[node] -= 1
        start, node = node, trie.parent_M[node]
    if unused_M[start] == 0:
        _clear(starts_W, trie.column_M[start])


@kernel
def replay_bits(tokens_T: IntArray, max_tokens: int, trie: TrieArrays, bits_T_W: BitRow) -> int:
    """Set the bits of what was allowed before each token.

    Args:
        tokens_T: [T] the completion.
        max_tokens: Its token budget.
        trie: The trie.
        bits_T_W: [T, W] all 0; set here.

    Returns:
        T, or the position of the first token that was not allowed.
    """
    unused_M = trie.num_genes_M.copy()
    is_used_M = np.zeros(len(unused_M), dtype=np.bool_)
    starts_W = np.zeros(bits_T_W.shape[1], dtype=np.uint8)
    _write_children(starts_W, trie, 0, unused_M)
    node, start, num_written = 0, 0, 0
    for t in range(len(tokens_T)):
        row_W = bits_T_W[t]
        may_close = node == 0 or (trie.gene_M[node] >= 0 and not is_used_M[node])
        num_closed = num_written + (1 if node != 0 else 0)
        if may_close and num_closed < trie.max_genes:
            exhausted = start if node != 0 and unused_M[start] == 1 else 0
            _write_starts(row_W, starts_W, trie, max_tokens - t, exhausted)
        if may_close and num_closed >= trie.min_genes:
            _set(row_W, trie.column_M[0])
        following = -1
        if node != 0:
            _write_children(row_W, trie, node, unused_M)
            following = _child(tokens_T[t], node, trie)
        is_closing = following < 0
        if is_closing:
            following = _after_close(tokens_T[t], trie) if may_close else -1
        # the row is the rule itself: what it does not hold was not allowed
        bit = trie.column_M[following]
        if following < 0 or not (row_W[bit >> 3] >> (bit & 7)) & 1:
            return t
        if is_closing:
            if node != 0:
                is_used_M[node] = True
                num_written += 1
                _use_gene(node, trie, unused_M, starts_W)
            start = following
        node = following
        if node == 0:
            return min(t + 1, len(tokens_T))  # nothing may follow the end
    return len(tokens_T)
