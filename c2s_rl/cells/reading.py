"""Reading many cell sentences at once: words found and looked up by a kernel, byte by byte.

What counts as a word and as a gene is defined by `parse.parse_cell`; here are the same rules for
whole batches, about four times as fast. Every word keeps its place, repeats and unknown words
too, for rules that need them (`inverse.py`).

Shapes: C texts, W words of all texts, N genes of the vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from c2s_rl.cells.jit import kernel
from c2s_rl.cells.rank import IndexArray
from c2s_rl.cells.spelling import ByteArray
from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.types import BoolArray, IntArray

UNKNOWN = -1
FULL_STOP = ord(".")
# FNV-1a, 64 bits (draft-eastlake-fnv): one multiplication a byte, and few collisions on symbols.
FNV_START, FNV_PRIME = 0xCBF29CE484222325, 0x100000001B3
# Code points below 128 at which str.split() splits.
SPACES = "\t\n\v\f\r\x1c\x1d\x1e\x1f "
SLOTS_PER_SYMBOL = 4  # so that a look-up meets 1.2 slots on average

# Texts to give a reader at once: about 5 MB with their words. More is slower, because fresh pages
# of memory cost more than reading the words into them.
TEXTS_AT_ONCE = 256

# Bytes of the symbols and their bounds, gene of each slot, and which bytes are spaces.
HashTable = tuple[ByteArray, IndexArray, IntArray, BoolArray]


@dataclass(frozen=True, eq=False)
class WordTable:
    """The words of C texts and what they are."""

    indptr: IndexArray
    """[C + 1] text i holds words indptr[i] to indptr[i + 1]."""
    genes: IntArray
    """[W] vocabulary index of each word, repeats included; UNKNOWN for other words."""
    starts: IndexArray
    """[W] first byte of each word in `data`."""
    ends: IndexArray
    """[W] byte after its last one."""
    data: bytes
    """The texts, UTF-8, one after another."""

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def word(self, index: int) -> str:
        """Return word number `index` of all as it is written."""
        return self.data[self.starts[index] : self.ends[index]].decode("utf-8", "surrogatepass")


class SentenceReader:
    """Reads texts with the symbols of one vocabulary."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        """Lay out a hash table of the symbols."""
        words = [symbol.encode() for symbol in vocabulary.symbols]
        symbols = np.frombuffer(b"".join(words), dtype=np.uint8)
        bounds = np.cumsum([0, *map(len, words)], dtype=np.int64)
        num_slots = 1 << (SLOTS_PER_SYMBOL * len(words)).bit_length()
        slots = np.full(num_slots, UNKNOWN, dtype=np.int32)
        _fill_slots(symbols, bounds, slots)
        is_space = np.zeros(256, dtype=np.bool_)
        is_space[[ord(space) for space in SPACES]] = True
        self._table: HashTable = (symbols, bounds, slots, is_space)

    def read(self, texts: Sequence[str], is_truncated_C: Sequence[bool]) -> WordTable:
        """Find the words of texts and look them up.

        One full stop at the end of a text is not part of its last symbol, and the last word of a
        truncated text is left out where it is no symbol; see `parse.parse_cell`.

        Args:
            texts: [C]
            is_truncated_C: [C] whether the sampler stopped at its length limit.
        """
        parts = [_plain(text).encode("utf-8", "surrogatepass") for text in texts]
        data = b"".join(parts)
        bounds = np.cumsum([0, *map(len, parts)], dtype=np.int64)
        most = len(data) // 2 + len(parts)  # a word and its space are two bytes at least
        starts, ends = np.empty(most, dtype=np.int64), np.empty(most, dtype=np.int64)
        genes = np.empty(most, dtype=np.int32)
        indptr = _read(
            np.frombuffer(data, dtype=np.uint8),
            bounds,
            np.array(is_truncated_C, dtype=np.bool_),
            self._table,
            (starts, ends, genes),
        )
        num = int(indptr[-1])
        return WordTable(indptr, genes[:num], starts[:num], ends[:num], data)


@lru_cache(maxsize=8)
def reader_of(vocabulary: Vocabulary) -> SentenceReader:
    """Return the reader of a vocabulary, made once; the last few are kept."""
    return SentenceReader(vocabulary)


def _plain(text: str) -> str:
    """Return a text of the same words that is split at the spaces of ASCII alone."""
    if text.isascii():
        return text
    words = " ".join(text.split())
    return words + " " if text[-1].isspace() else words


@kernel
def _hash(data: ByteArray, start: int, end: int) -> np.uint64:
    code = np.uint64(FNV_START)
    for position in range(np.uint64(start), np.uint64(end)):
        code = (code ^ np.uint64(data[position])) * np.uint64(FNV_PRIME)
    return code


@kernel
def _fill_slots(symbols: ByteArray, bounds: IndexArray, slots: IntArray) -> None:
    """Put each symbol into the first free slot from its hash on."""
    mask = np.uint64(len(slots) - 1)
    for gene in range(len(bounds) - 1):
        slot = _hash(symbols, bounds[gene], bounds[gene + 1]) & mask
        while slots[slot] != UNKNOWN:
            slot = (slot + np.uint64(1)) & mask
        slots[slot] = gene


@kernel
def _find(
    data: ByteArray,
    start: int,
    end: int,
    symbols: ByteArray,
    bounds: IndexArray,
    slots: IntArray,
) -> int:
    """Return the gene that bytes start..end-1 spell, or UNKNOWN."""
    mask = np.uint64(len(slots) - 1)
    slot = _hash(data, start, end) & mask
    while slots[slot] != UNKNOWN:
        gene = slots[slot]
        first = np.uint64(bounds[gene])
        size = np.uint64(bounds[gene + 1]) - first
        if size == np.uint64(end - start):
            offset = np.uint64(0)
            while offset < size and symbols[first + offset] == data[np.uint64(start) + offset]:
                offset += np.uint64(1)
            if offset == size:
                return int(gene)
        slot = (slot + np.uint64(1)) & mask
    return UNKNOWN


@kernel
def _read(
    data: ByteArray,
    bounds: IndexArray,
    is_truncated: BoolArray,
    table: HashTable,
    words: tuple[IndexArray, IndexArray, IntArray],
) -> IndexArray:
    """Write the words of every text; return [C + 1] their bounds."""
    symbols, symbol_bounds, slots, is_space = table
    starts, ends, genes = words
    indptr = np.zeros(len(bounds), dtype=np.int64)
    num = 0
    for text in range(len(bounds) - 1):
        position, end = np.uint64(bounds[text]), np.uint64(bounds[text + 1])
        while position < end:
            if is_space[data[position]]:
                position += np.uint64(1)
                continue
            starts[num] = position
            while position < end and not is_space[data[position]]:
                position += np.uint64(1)
            ends[num] = position
            genes[num] = _find(data, starts[num], ends[num], symbols, symbol_bounds, slots)
            num += 1
        first = indptr[text]
        if num > first and genes[num - 1] == UNKNOWN and data[ends[num - 1] - 1] == FULL_STOP:
            num -= 1
            ends[num] -= 1
            if ends[num] > starts[num]:
                genes[num] = _find(data, starts[num], ends[num], symbols, symbol_bounds, slots)
                num += 1
        is_cut = is_truncated[text] and num > first and not is_space[data[bounds[text + 1] - 1]]
        if is_cut and genes[num - 1] == UNKNOWN:
            num -= 1
        indptr[text + 1] = num
    return indptr
