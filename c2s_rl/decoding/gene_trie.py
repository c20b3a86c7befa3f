"""A token trie over gene symbols: completions that are valid cell sentences by construction.

A completion is the concatenation of its genes' token paths, then end-of-sequence. The path of a
symbol is the tokenizer's encoding of a space and the symbol. Here is what is fixed for a run: the
nodes, the limits, the columns that may ever be allowed. What changes along a completion (the genes
already written, the place inside one) is `gene_walk.GeneWalk` in the sampler and
`gene_replay` in the learner; both follow the rule that `GeneTrie` states.

Nothing imported here may import numba: the sampler's engine starts with this module loaded.
Shapes: M nodes, N genes, R tokens that start a gene, U columns, T completion tokens, W bytes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from c2s_rl.decoding.gene_walk import GeneWalk, WalkTables
from c2s_rl.errors import ConfigError, DataError
from c2s_rl.types import IntArray

Encode = Callable[[list[str]], list[list[int]]]

NO_GENE = -1
# Sentences that the joining rule is checked on: long enough to be quick, short of any length limit.
CHECKED_GENES = 32


@dataclass(frozen=True, eq=False)
class GeneTrie:
    """The paths of all genes that may be sampled, and how many genes a completion holds.

    The rule, with r tokens left of the budget and n genes written before the open one:
    - inside a gene, a token is allowed if an unused gene goes on with it;
    - where an unused gene ends (or at the start), that gene counts as written, and allowed are also
      end-of-sequence if at least `min_genes` are written, and the first token of every unused gene
      if fewer than `max_genes` are written and the longest path that starts with it leaves room for
      the end (its length < r). So a completion is never cut inside a gene.

    Nodes are numbered breadth first with the children of a node in the order of their tokens: node
    0 is the root, and the children of node m are `first_child_M[m]` to `first_child_M[m + 1] - 1`.
    """

    symbols: tuple[str, ...]
    """[N] the genes that may be written."""
    eos_id: int
    """End-of-sequence."""
    min_genes: int
    """Fewest genes of a completion."""
    max_genes: int
    """Most genes of a completion, at most N."""
    tokens_needed: int
    """Smallest token budget with which `min_genes` genes and the end always fit."""
    token_M: IntArray
    """[M] token that leads into the node; -1 for the root."""
    parent_M: IntArray
    """[M] the node before; -1 for the root."""
    first_child_M: IntArray
    """[M + 1] see the class."""
    gene_M: IntArray
    """[M] gene that ends here, or -1."""
    num_genes_M: IntArray
    """[M] genes that end at the node or below."""
    height_M: IntArray
    """[M] tokens of the longest gene that goes through the node."""
    columns_U: npt.NDArray[np.int64]
    """[U] token ids that may ever be allowed, ascending; end-of-sequence is one of them."""

    @classmethod
    def build(
        cls,
        symbols: Sequence[str],
        encode: Encode,
        *,
        eos_id: int,
        min_genes: int = 1,
        max_genes: int | None = None,
    ) -> "GeneTrie":
        """Build the trie of some symbols.

        Args:
            symbols: [N] distinct gene symbols.
            encode: Token ids of texts, without special tokens; asked for " SYMBOL" and for whole
                sentences.
            eos_id: End-of-sequence.
            min_genes: Fewest genes of a completion.
            max_genes: Most genes; None allows all.

        Raises:
            ConfigError: If the limits do not fit the number of symbols.
            DataError: If a symbol has no path, two have the same, a path holds end-of-sequence, a
                sentence is not encoded as its genes one by one, or it cannot be told from its
                tokens where a gene ends.
        """
        limit = len(symbols) if max_genes is None else min(max_genes, len(symbols))
        if not min_genes <= limit:
            raise ConfigError(
                f"min_genes must be at most the {limit} genes that may be written, got {min_genes}"
            )
        paths = encode([f" {symbol}" for symbol in symbols])
        _check_paths(symbols, paths, eos_id)
        _check_joining(symbols, paths, encode)
        nodes = _Nodes(paths)
        _check_ends(symbols, nodes)
        longest_first = sorted(map(len, paths), reverse=True)
        # min_genes - 1 genes at their longest, then one that may start only if any gene would fit
        needed = sum(longest_first[: max(0, min_genes - 1)])
        needed += longest_first[0] + 1 if min_genes else 1
        return cls(
            symbols=tuple(symbols),
            eos_id=eos_id,
            min_genes=min_genes,
            max_genes=limit,
            tokens_needed=needed,
            token_M=nodes.token_M,
            parent_M=nodes.parent_M,
            first_child_M=nodes.first_child_M,
            gene_M=nodes.gene_M,
            num_genes_M=nodes.num_genes_M,
            height_M=nodes.height_M,
            columns_U=np.union1d(nodes.token_M[1:], [eos_id]).astype(np.int64),
        )

    def __getstate__(self) -> dict[str, object]:
        """Leave out the tables, which each process makes anew."""
        return {field.name: self.__dict__[field.name] for field in fields(self)}

    @cached_property
    def tables(self) -> "WalkTables":
        """The nodes as Python's own types, for walking token by token."""
        return WalkTables.of(
            token_M=self.token_M,
            parent_M=self.parent_M,
            first_child_M=self.first_child_M,
            gene_M=self.gene_M,
            num_genes_M=self.num_genes_M,
            height_M=self.height_M,
        )

    def check_budget(self, max_tokens: int) -> None:
        """Check that a completion can always be ended as the limits demand.

        Raises:
            ConfigError: If `min_genes` genes and the end may not fit.
        """
        if max_tokens < self.tokens_needed:
            raise ConfigError(
                f"max_tokens must be at least {self.tokens_needed} for {self.min_genes} genes of "
                f"up to {self.height_M[0]} tokens and the end, got {max_tokens}"
            )

    def walk(self, max_tokens: int) -> GeneWalk:
        """Start a completion.

        Args:
            max_tokens: Its token budget, end-of-sequence included.

        Raises:
            ConfigError: If `min_genes` genes and the end may not fit.
        """
        self.check_budget(max_tokens)
        return GeneWalk(self, max_tokens)

    def replay(
        self, token_ids_T: Sequence[int] | npt.NDArray[np.integer], *, max_tokens: int
    ) -> npt.NDArray[np.uint8]:
        """Recompute what was allowed at each position of a sampled completion.

        Args:
            token_ids_T: [T] the completion, from its first token; it may stop anywhere.
            max_tokens: The budget that it was sampled under.

        Returns:
            [T, W = ceil(U / 8)] bit u % 8 (little-endian) of byte u // 8 of row t says whether
            `columns_U[u]` might have been token t.

        Raises:
            ConfigError: If `min_genes` genes and the end may not fit.
            DataError: If a token was not allowed; names its position and the genes before it.
        """
        from c2s_rl.decoding.gene_replay import TrieArrays, replay_bits

        self.check_budget(max_tokens)
        tokens_T = np.asarray(token_ids_T, dtype=np.int32)
        bits_T_W = np.zeros((len(tokens_T), (len(self.columns_U) + 7) // 8), dtype=np.uint8)
        arrays = TrieArrays(
            self.token_M,
            self.parent_M,
            self.first_child_M,
            self.gene_M,
            self.num_genes_M,
            self.height_M,
            self._column_M,
            self.min_genes,
            self.max_genes,
            self.eos_id,
        )
        if replay_bits(tokens_T, max_tokens, arrays, bits_T_W) < len(tokens_T):
            walk = GeneWalk(self, max_tokens)
            for token in tokens_T.tolist():
                walk.advance(token)  # raises at the token that the kernel stopped at
        return bits_T_W

    def save(self, path: Path) -> None:
        """Write the trie to a file, for another process to `load`."""
        arrays = {name: np.asarray(value) for name, value in self.__getstate__().items()}
        with path.open("wb") as file:  # given a path, numpy would add a suffix
            np.savez(file, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: Path) -> "GeneTrie":
        """Read a trie that `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            return cls(
                symbols=tuple(file["symbols"].tolist()),
                eos_id=int(file["eos_id"]),
                min_genes=int(file["min_genes"]),
                max_genes=int(file["max_genes"]),
                tokens_needed=int(file["tokens_needed"]),
                token_M=file["token_M"],
                parent_M=file["parent_M"],
                first_child_M=file["first_child_M"],
                gene_M=file["gene_M"],
                num_genes_M=file["num_genes_M"],
                height_M=file["height_M"],
                columns_U=file["columns_U"],
            )

    @cached_property
    def _column_M(self) -> IntArray:
        """[M] index into `columns_U` of each node's token; of end-of-sequence for the root."""
        tokens_M = self.token_M.astype(np.int64)
        tokens_M[0] = self.eos_id
        return np.searchsorted(self.columns_U, tokens_M).astype(np.int32)


class _Nodes:
    """The node arrays of a trie; see `GeneTrie`."""

    def __init__(self, paths: Sequence[Sequence[int]]) -> None:
        children: list[dict[int, int]] = [{}]
        genes = [NO_GENE]
        for gene, path in enumerate(paths):
            node = 0
            for token in path:
                node = children[node].setdefault(token, len(children))
                if node == len(children):
                    children.append({})
                    genes.append(NO_GENE)
            genes[node] = gene
        order, tokens, parents, first_child = [0], [NO_GENE], [NO_GENE], [1]
        for place, node in enumerate(order):  # grows while it is read: breadth first
            for token in sorted(children[node]):
                order.append(children[node][token])
                tokens.append(token)
                parents.append(place)
            first_child.append(len(order))
        self.token_M = np.array(tokens, dtype=np.int32)
        self.parent_M = np.array(parents, dtype=np.int32)
        self.first_child_M = np.array(first_child, dtype=np.int32)
        self.gene_M = np.array([genes[node] for node in order], dtype=np.int32)
        self.num_genes_M = (self.gene_M != NO_GENE).astype(np.int32)
        self.height_M = np.zeros(len(order), dtype=np.int32)
        depth_M = np.zeros(len(order), dtype=np.int32)
        for node in range(1, len(order)):
            depth_M[node] = depth_M[parents[node]] + 1
        self.height_M[:] = np.where(self.gene_M != NO_GENE, depth_M, 0)
        for node in range(len(order) - 1, 0, -1):  # children come after their parents
            parent = parents[node]
            self.num_genes_M[parent] += self.num_genes_M[node]
            self.height_M[parent] = max(self.height_M[parent], self.height_M[node])


def _check_paths(symbols: Sequence[str], paths: Sequence[Sequence[int]], eos_id: int) -> None:
    seen: dict[tuple[int, ...], str] = {}
    for symbol, path in zip(symbols, paths, strict=True):
        if not path or eos_id in path:
            raise DataError(
                f"a gene symbol must be encoded as tokens other than the end token {eos_id}, "
                f"got {list(path)} for {symbol!r}"
            )
        other = seen.setdefault(tuple(path), symbol)
        if other is not symbol:
            raise DataError(
                f"two gene symbols must have different tokens, got {list(path)} for both "
                f"{other!r} and {symbol!r}"
            )


def _check_joining(symbols: Sequence[str], paths: Sequence[Sequence[int]], encode: Encode) -> None:
    """Check on sentences that the tokenizer encodes genes one by one.

    All genes in order, and for every pair of a last and a next first character one pair of genes:
    a merge across the border depends on the characters beside it.
    """
    orders = [list(range(len(symbols))), _bordering_pairs(symbols)]
    cuts = [
        order[start : start + CHECKED_GENES]
        for order in orders
        for start in range(0, len(order), CHECKED_GENES)
    ]
    texts = ["".join(f" {symbols[gene]}" for gene in cut) for cut in cuts]
    for cut, ids in zip(cuts, encode(texts), strict=True):
        joined = [token for gene in cut for token in paths[gene]]
        if list(ids) == joined:
            continue
        pairs = [(symbols[a], symbols[b]) for a, b in pairwise(cut)]
        found = encode([f" {a} {b}" for a, b in pairs])
        wanted = [[*paths[a], *paths[b]] for a, b in pairwise(cut)]
        broken = [pair for pair, f, w in zip(pairs, found, wanted, strict=True) if list(f) != w]
        example = " ".join(broken[0]) if broken else " ".join(symbols[gene] for gene in cut)
        raise DataError(
            "the gene trie needs a tokenizer that encodes ' A B' as ' A' and then ' B', "
            f"got other tokens for ' {example}'; set sampling.genes.mode to off for this model"
        )


def _bordering_pairs(symbols: Sequence[str]) -> list[int]:
    """Return genes in an order in which every last character meets every first character."""
    last = {symbol[-1]: gene for gene, symbol in enumerate(symbols)}
    first = {symbol[0]: gene for gene, symbol in enumerate(symbols)}
    return [gene for a in last.values() for b in first.values() for gene in (a, b)]


def _check_ends(symbols: Sequence[str], nodes: _Nodes) -> None:
    """Check that where a gene ends, the next token tells whether it goes on or another starts."""
    first = nodes.first_child_M
    starts = set(nodes.token_M[1 : first[1]].tolist())
    for node in np.flatnonzero(nodes.gene_M != NO_GENE).tolist():
        clash = starts.intersection(nodes.token_M[first[node] : first[node + 1]].tolist())
        if clash:
            raise DataError(
                "a token that goes on with a gene must not start another one, "
                f"got {min(clash)} after {symbols[nodes.gene_M[node]]!r}"
            )
