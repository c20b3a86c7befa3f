"""Ranking counts: the same order as `rank.rank_rows` gives, several times as fast.

Counts are small whole numbers of which a cell holds few different ones. So a gene's place is packed
into one word (count, hash of the tie, place in the row), most of which two radix passes sort; and a
logarithm is taken once a different count, not once a gene. Counts that do not fit a word are left
to `rank_rows`.

Shapes: C cells, N genes of the vocabulary, Z stored entries, Y ranked entries.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from c2s_rl.cells.jit import kernel
from c2s_rl.cells.rank import IndexArray, UIntArray, mixed
from c2s_rl.types import IntArray

CountArray = npt.NDArray[np.float32] | npt.NDArray[np.float64]
CodeArray = npt.NDArray[np.uint16]

MAX_COUNT = 2**16 - 1
MAX_ROW = 2**16  # places in a row that fit their bits

# A word: 16 bits of 65,535 - count, 32 bits of hash, 16 bits of place in the row. The first pass
# sorts the upper 11 bits of the hash, the second the count (two passes where counts are further
# apart than 11 bits); what 11 bits of hash leave equal, the insertion pass mends: about 150 pairs
# in a cell with 800 genes of one count.
PLACE_BITS, HASH_BITS, DIGIT_BITS = 16, 32, 11
HASH_SHIFT = PLACE_BITS + HASH_BITS - DIGIT_BITS
COUNT_SHIFT = PLACE_BITS + HASH_BITS
NUM_BUCKETS = 2**DIGIT_BITS


@dataclass(frozen=True, eq=False)
class RankedCounts:
    """The expressed genes of C cells, highest count first, in compressed-row form."""

    indptr: IndexArray
    """[C + 1] cell i holds entries indptr[i] to indptr[i + 1]."""
    genes: IntArray
    """[Y] vocabulary indices."""
    counts: CodeArray
    """[Y] falling within a cell."""
    num_expressed: IndexArray
    """[C] expressed genes before `top_k`."""
    totals: IndexArray
    """[C] sum of the counts of each cell, of entries without a gene too."""


def fits(indptr: IndexArray, counts: CountArray) -> bool:
    """Whether `rank_counts` can take these rows."""
    longest = int(np.diff(indptr).max(initial=0))
    return longest <= MAX_ROW and float(counts.max(initial=0)) <= MAX_COUNT


def rank_counts(
    indptr: IndexArray,
    genes_Z: IntArray,
    counts: CountArray,
    *,
    cell_hashes: UIntArray,
    gene_hashes: UIntArray,
    top_k: int | None,
) -> RankedCounts:
    """Rank the genes of each row by falling count.

    Args:
        indptr: [C + 1] row bounds, starting at 0.
        genes_Z: [Z] gene of each entry, at most once a row; -1 for an entry that is left out.
        counts: [Z] whole numbers for which `fits` holds; 0 is not expressed.
        cell_hashes: [C] `stable_hash` of each cell id.
        gene_hashes: [N] `stable_hash` of each symbol.
        top_k: Keep this many genes a cell; None keeps all.
    """
    limit = MAX_ROW if top_k is None else min(top_k, MAX_ROW)
    ranked, codes, kept, num_expressed, totals = _rank(
        indptr, genes_Z, counts, cell_hashes, gene_hashes, limit
    )
    return RankedCounts(kept, ranked[: kept[-1]], codes[: kept[-1]], num_expressed, totals)


@kernel
def _rank(
    indptr: IndexArray,
    genes_Z: IntArray,
    counts: CountArray,
    cell_hashes: UIntArray,
    gene_hashes: UIntArray,
    limit: int,
) -> tuple[IntArray, CodeArray, IndexArray, IndexArray, IndexArray]:
    """Return the fields of `RankedCounts`, genes and counts first and longer than what is kept."""
    ranked = np.empty(len(genes_Z), dtype=np.int32)
    codes = np.empty(len(genes_Z), dtype=np.uint16)
    kept = np.zeros(len(indptr), dtype=np.int64)
    num_expressed = np.zeros(len(indptr) - 1, dtype=np.int64)
    totals = np.zeros(len(indptr) - 1, dtype=np.int64)
    longest = 0
    for cell in range(len(cell_hashes)):
        longest = max(longest, indptr[cell + 1] - indptr[cell])
    words = np.empty(longest, dtype=np.uint64)
    spare = np.empty(longest, dtype=np.uint64)
    slots = np.empty(NUM_BUCKETS, dtype=np.uint32)
    for cell in range(len(cell_hashes)):
        start, stop, first = indptr[cell], indptr[cell + 1], kept[cell]
        row, row_counts = genes_Z[start:stop], counts[start:stop]
        num, total = _pack(row, row_counts, cell_hashes[cell], gene_hashes, words)
        num_expressed[cell], totals[cell] = num, total
        last = first + min(num, limit)
        if num > 0:
            in_order = _sort(words[:num], spare[:num], slots)[: last - first]
            _unpack(in_order, row, ranked[first:last], codes[first:last])
        kept[cell + 1] = last
    return ranked, codes, kept, num_expressed, totals


@kernel
def _pack(
    row: IntArray,
    row_counts: CountArray,
    cell_hash: np.uint64,
    gene_hashes: UIntArray,
    words: UIntArray,
) -> tuple[int, int]:
    """Write one word for each expressed gene of a row; return their number and the sum of counts.

    Loops without a branch: the compiler takes several genes at a time.
    """
    for place in range(len(row)):
        words[place] = gene_hashes[np.uint32(max(row[place], np.int32(0)))]
    num, total = 0, 0
    for place in range(len(row)):
        count = int(np.int32(row_counts[place]))
        total += count
        num += (count > 0) & (row[place] >= 0)
        tie = mixed(cell_hash ^ words[place]) >> np.uint64(32)
        word = (np.uint64(MAX_COUNT - count) << np.uint64(HASH_BITS)) | tie
        words[place] = (word << np.uint64(PLACE_BITS)) | np.uint64(place)
    if num < len(row):
        num = 0
        for place in range(len(row)):
            if row_counts[place] > 0 and row[place] >= 0:
                words[num] = words[place]
                num += 1
    return num, total


@kernel
def _unpack(in_order: UIntArray, row: IntArray, genes: IntArray, codes: CodeArray) -> None:
    """Write genes and counts of sorted words of a row."""
    for rank in range(len(in_order)):
        codes[rank] = np.uint16(MAX_COUNT) - np.uint16(in_order[rank] >> np.uint64(COUNT_SHIFT))
    for rank in range(len(in_order)):
        genes[rank] = row[in_order[rank] & np.uint64(0xFFFF)]


@kernel
def _sort(words: UIntArray, spare: UIntArray, slots: npt.NDArray[np.uint32]) -> UIntArray:
    """Sort at least one word: radix passes, then insertion. Overwrites all its arguments."""
    low, high = words[0], words[0]
    for word in words:
        low, high = min(low, word), max(high, word)
    shift = np.uint64(COUNT_SHIFT)
    low, high = low >> shift, high >> shift
    _pass(words, spare, slots, np.uint64(HASH_SHIFT), np.uint64(0))
    words, spare = spare, words
    spread = high - low
    if spread >= np.uint64(NUM_BUCKETS):
        _pass(words, spare, slots, shift, np.uint64(0))
        _pass(spare, words, slots, np.uint64(COUNT_SHIFT + DIGIT_BITS), np.uint64(0))
    elif spread > np.uint64(0):
        _pass(words, spare, slots[: np.int64(spread) + 1], shift, low)
        words, spare = spare, words
    for i in range(1, len(words)):
        word = words[i]
        if words[i - 1] < word:
            continue
        j = i - 1
        while j >= 0 and words[j] > word:
            words[j + 1] = words[j]
            j -= 1
        words[j + 1] = word
    return words


@kernel
def _pass(
    words: UIntArray,
    into: UIntArray,
    slots: npt.NDArray[np.uint32],
    shift: np.uint64,
    lowest: np.uint64,
) -> None:
    """Sort words into another array by the digit at `shift`, equal ones in the order they have.

    `slots` has a place for each digit that occurs; the first is that of `lowest`.
    """
    mask = np.uint64(NUM_BUCKETS - 1)
    slots[:] = 0
    for word in words:
        slots[((word >> shift) - lowest) & mask] += np.uint32(1)
    start = np.uint32(0)
    for bucket in range(len(slots)):
        num = slots[bucket]
        slots[bucket] = start
        start += num
    for word in words:
        bucket_of_word = ((word >> shift) - lowest) & mask
        slot = slots[bucket_of_word]
        slots[bucket_of_word] = slot + np.uint32(1)
        into[slot] = word
