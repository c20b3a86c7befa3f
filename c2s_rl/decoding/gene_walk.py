"""One completion's way through the gene trie, token by token, as the sampler needs it.

A step costs a few dictionary look-ups; the genes that may start next are kept as a bitmap that
changes only where a start's last unused gene is written. The rule is stated in `GeneTrie`.
Nothing imported here may import numba: see `gene_trie`.
Shapes: M nodes, R tokens that start a gene.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from c2s_rl.errors import DataError
from c2s_rl.types import IntArray

if TYPE_CHECKING:
    from c2s_rl.decoding.gene_trie import GeneTrie

TokenArray = npt.NDArray[np.int64]

ROOT = 0


@dataclass(frozen=True, eq=False)
class WalkTables:
    """The trie's nodes as lists and dictionaries, which Python reads faster than arrays."""

    child: dict[tuple[int, int], int]
    """(node, token) to the child."""
    parent: list[int]
    first_child: list[int]
    gene: list[int]
    num_genes: list[int]
    height: list[int]
    token_M: TokenArray
    """[M] token that leads into the node."""
    start_R: TokenArray
    """[R] tokens that start a gene; token r leads to node r + 1."""
    height_R: IntArray
    """[R] tokens of the longest gene that starts so."""

    @classmethod
    def of(
        cls,
        *,
        token_M: IntArray,
        parent_M: IntArray,
        first_child_M: IntArray,
        gene_M: IntArray,
        num_genes_M: IntArray,
        height_M: IntArray,
    ) -> "WalkTables":
        """Make the tables of a trie's node arrays."""
        parent, token = parent_M.tolist(), token_M.tolist()
        child = {(parent[m], token[m]): m for m in range(1, len(token))}
        starts = slice(1, int(first_child_M[1]))
        return cls(
            child=child,
            parent=parent,
            first_child=first_child_M.tolist(),
            gene=gene_M.tolist(),
            num_genes=num_genes_M.tolist(),
            height=height_M.tolist(),
            token_M=token_M.astype(np.int64),
            start_R=token_M[starts].astype(np.int64),
            height_R=height_M[starts],
        )


class GeneWalk:
    """Where one completion stands. Made by `GeneTrie.walk`."""

    def __init__(self, trie: "GeneTrie", max_tokens: int) -> None:
        self._trie = trie
        self._tables = trie.tables
        self._node = ROOT
        self._start = ROOT  # first node of the open gene
        self._used: dict[int, int] = {}  # node to used genes at or below; absent: none
        self._spent: set[int] = set()  # nodes whose own gene is used
        self._thinned: set[int] = set()  # nodes with a child that has no unused gene left
        self._has_unused_R = np.ones(len(self._tables.start_R), dtype=np.bool_)
        self._unused_starts = self._tables.start_R  # those of start_R that have an unused gene
        self._end = np.array([trie.eos_id], dtype=np.int64)
        self._longest = self._tables.height[ROOT]
        self.max_tokens = max_tokens
        """The token budget, end-of-sequence included."""
        self.num_tokens = 0
        """Tokens taken so far."""
        self.genes: list[int] = []
        """Genes written, the open one left out, as indices into the trie's symbols."""
        self.is_done = False
        """End-of-sequence was taken."""

    def allowed(self) -> TokenArray:
        """Return the token ids that may come next, in no particular order; never none.

        After the end only end-of-sequence is left: engines that run ahead of their own results
        ask once more and throw the answer away.
        """
        if self.is_done:
            return self._end
        going_on = self._going_on()
        if not self._may_close():
            return going_on
        parts = [going_on] if len(going_on) else []
        num_genes = len(self.genes) + (self._node != ROOT)
        if num_genes < self._trie.max_genes:
            parts.append(self._starts())
        if num_genes >= self._trie.min_genes:
            parts.append(self._end)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def advance(self, token: int) -> None:
        """Take a token.

        Raises:
            DataError: If it is not allowed; names it, its position and the genes before it.
        """
        child = self._tables.child.get((self._node, token))
        if self._node != ROOT and child is not None:
            if self.is_done or not self._num_unused(child):
                raise self._forbidden(token)
            self._node = child
        else:
            if self.is_done or not self._may_close() or not self._may_follow(token):
                raise self._forbidden(token)
            self._close()
            self.is_done = token == self._trie.eos_id
            self._node = ROOT if self.is_done else self._tables.child[ROOT, token]
            self._start = self._node
        self.num_tokens += 1

    def _num_unused(self, node: int) -> int:
        return self._tables.num_genes[node] - self._used.get(node, 0)

    def _may_close(self) -> bool:
        """Whether an unused gene ends here; the root is the end of nothing."""
        is_end = self._tables.gene[self._node] >= 0 and self._node not in self._spent
        return self._node == ROOT or is_end

    def _may_follow(self, token: int) -> bool:
        """Whether a token may come after the open gene."""
        num_genes = len(self.genes) + (self._node != ROOT)
        if token == self._trie.eos_id:
            return num_genes >= self._trie.min_genes
        start = self._tables.child.get((ROOT, token))
        if start is None or num_genes >= self._trie.max_genes:
            return False
        fits = self._tables.height[start] < self.max_tokens - self.num_tokens
        return fits and self._num_unused(start) > (start == self._start)

    def _going_on(self) -> TokenArray:
        tables = self._tables
        if self._node == ROOT:
            return tables.start_R[:0]
        first, stop = tables.first_child[self._node], tables.first_child[self._node + 1]
        if self._node not in self._thinned:
            return tables.token_M[first:stop]
        return tables.token_M[[child for child in range(first, stop) if self._num_unused(child)]]

    def _starts(self) -> TokenArray:
        """First tokens of the genes that may come after the open one."""
        num_left = self.max_tokens - self.num_tokens
        is_last = self._start != ROOT and self._num_unused(self._start) == 1
        if num_left > self._longest and not is_last:
            return self._unused_starts
        is_free_R = self._has_unused_R & (self._tables.height_R < num_left)
        if is_last:  # the open gene is the last one with its first token
            is_free_R[self._start - 1] = False
        return self._tables.start_R[is_free_R]

    def _close(self) -> None:
        """Count the open gene as used."""
        if self._node == ROOT:
            return
        self.genes.append(self._tables.gene[self._node])
        self._spent.add(self._node)
        node = self._node
        while node != ROOT:
            self._used[node] = self._used.get(node, 0) + 1
            parent = self._tables.parent[node]
            if not self._num_unused(node):
                self._thinned.add(parent)
            node = parent
        if not self._num_unused(self._start):
            self._has_unused_R[self._start - 1] = False
            self._unused_starts = self._tables.start_R[self._has_unused_R]

    def _forbidden(self, token: int) -> DataError:
        path: list[int] = []
        node = self._node
        while node != ROOT:
            path.insert(0, int(self._tables.token_M[node]))
            node = self._tables.parent[node]
        last = f", the last {self._trie.symbols[self.genes[-1]]!r}" if self.genes else ""
        inside = f", then tokens {path}" if path else ""
        return DataError(
            f"a token must be one that the gene trie allows, got {token} at position "
            f"{self.num_tokens} after {len(self.genes)} genes{last}{inside}"
        )
