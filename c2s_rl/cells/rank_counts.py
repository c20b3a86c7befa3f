"""Ranking counts: the same order as `rank.rank_rows` gives, several times as fast.

Counts are small whole numbers of which a cell holds few different ones. So a gene's place is packed
into one word (count, hash of the tie, place in the row), most of which two radix passes sort; and a
logarithm is taken once a different count, not once a gene. Counts that do not fit a word are left
to `rank_rows`. Loops count their way through arrays: the compiler takes several entries at a time
then, and one where they walk through the entries themselves.

Shapes: C cells, N genes of the vocabulary, Z stored entries, Y ranked entries.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from c2s_rl.cells.jit import kernel
from c2s_rl.cells.rank import IndexArray, UIntArray, mixed
from c2s_rl.cells.rank_model import RankSteps, RunArrays, StepArrays, add_runs
from c2s_rl.types import BoolArray, FloatArray, IntArray

CountArray = npt.NDArray[np.float32] | npt.NDArray[np.float64]
SlotArray = npt.NDArray[np.uint32]

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
# Quarters of a row are counted and placed side by side, each with slots of its own: half of a
# cell's genes may have one count, and who fills one slot waits for who filled it last.
STREAMS = 4


@dataclass(frozen=True)
class CountRules:
    """What is kept of counts, and their unit."""

    top_k: int | None
    """Keep this many genes a cell; None keeps all."""
    min_genes: int
    """Expressed genes that a cell needs; at least 1."""
    target_sum: float
    """Counts of a cell after normalisation."""
    divisor: float
    """What natural logarithms are divided by."""


class CountRows(NamedTuple):
    """Rows of counts."""

    indptr: IndexArray
    """[C + 1] row bounds, starting at 0."""
    genes_Z: IntArray
    """[Z] gene of each entry, at most once a row; -1 for an entry that is left out."""
    counts: CountArray
    """[Z] whole numbers for which `fits` holds; 0 is not expressed."""
    cell_hashes: UIntArray
    """[C] `stable_hash` of each cell id."""
    passes: BoolArray
    """[C] whether a cell may be kept."""


class RankedInto(NamedTuple):
    """Where to write the genes of cells that are kept, highest first, cell after cell."""

    genes: IntArray
    """[>= Z] vocabulary indices."""
    values: FloatArray
    """[>= Z] ln(1 + target_sum * count / all counts) / divisor; empty: they are not written."""


class _Scratch(NamedTuple):
    """Memory for one row."""

    words: UIntArray
    spare: UIntArray
    slots: SlotArray


class _Unit(NamedTuple):
    """Unit of a cell's values: ln(1 + factor * count) / divisor."""

    factor: float
    divisor: float


class _Kept(NamedTuple):
    """Rules, as a kernel takes them."""

    limit: int
    min_genes: int
    target_sum: float
    divisor: float


def fits(indptr: IndexArray, counts: CountArray) -> bool:
    """Whether `rank_counts` can take these rows."""
    longest = int(np.diff(indptr).max(initial=0))
    return longest <= MAX_ROW and float(counts.max(initial=0)) <= MAX_COUNT


def rank_counts(
    rows: CountRows, gene_hashes: UIntArray, rules: CountRules, into: RankedInto, steps: RankSteps
) -> tuple[IndexArray, IndexArray]:
    """Rank the genes of each row by falling count, and write those of cells that are kept.

    Args:
        rows: What to rank.
        gene_hashes: [N] `stable_hash` of each symbol.
        rules: Which cells and genes to keep.
        into: Where to write them.
        steps: Takes the values of what is written, rank by rank.

    Returns:
        [C] expressed genes before `top_k`, and [C] genes written, 0 for a cell that is not kept.
    """
    limit = MAX_ROW if rules.top_k is None else min(rules.top_k, MAX_ROW)
    longest = int(np.diff(rows.indptr).max(initial=0))
    steps.reserve(min(longest, limit))
    kept = _Kept(limit, rules.min_genes, rules.target_sum, rules.divisor)
    return _rank(rows, gene_hashes, kept, longest, into, steps.arrays)


@kernel
def _rank(
    rows: CountRows,
    gene_hashes: UIntArray,
    rules: _Kept,
    longest: int,
    into: RankedInto,
    steps: StepArrays,
) -> tuple[IndexArray, IndexArray]:
    num_cells = len(rows.cell_hashes)
    num_expressed = np.zeros(num_cells, dtype=np.int64)
    lengths = np.zeros(num_cells, dtype=np.int64)
    scratch = _Scratch(
        np.empty(longest, dtype=np.uint64),
        np.empty(longest, dtype=np.uint64),
        np.empty(STREAMS * NUM_BUCKETS, dtype=np.uint32),
    )
    runs = (np.empty(longest, dtype=np.int64), np.empty(longest, dtype=np.float32))
    first = 0
    for cell in range(num_cells):
        start, stop = rows.indptr[cell], rows.indptr[cell + 1]
        row, counts = rows.genes_Z[start:stop], rows.counts[start:stop]
        num, total, low, high = _pack(
            row, counts, rows.cell_hashes[cell], gene_hashes, scratch.words
        )
        num_expressed[cell] = num
        if num < rules.min_genes or not rows.passes[cell]:
            continue
        last = first + min(num, rules.limit)
        words = _sort(scratch, num, low, high)[: last - first]
        _unpack(words, row, into.genes[first:last])
        unit, num_codes = _Unit(rules.target_sum / max(total, 1), rules.divisor), high - low + 1
        if num_codes <= NUM_BUCKETS:
            num_runs = _known_runs(scratch.slots, high, num_codes, len(words), unit, runs)
        else:
            num_runs = _runs(words, unit, runs)
        ends, numbers = runs[0][:num_runs], runs[1][:num_runs]
        add_runs(ends, numbers, into.values[first:last], steps)  # values stay empty if they are
        lengths[cell] = last - first
        first = last
    return num_expressed, lengths


@kernel
def _pack(
    row: IntArray,
    counts: CountArray,
    cell_hash: np.uint64,
    gene_hashes: UIntArray,
    words: UIntArray,
) -> tuple[int, int, int, int]:
    """Write one word for each expressed gene of a row.

    Returns:
        Their number, the sum of all counts, the lowest count above 0 and the highest.
    """
    for place in range(len(row)):
        words[place] = gene_hashes[np.uint32(max(row[place], np.int32(0)))]
    total, low, high, lowest_gene = 0, MAX_COUNT, 1, 0
    for place in range(len(row)):
        count = int(np.int32(counts[place]))
        total += count
        low, high = min(low, count), max(high, count)
        lowest_gene = min(lowest_gene, row[place])
    for place in range(len(row)):
        code = np.uint64(MAX_COUNT - np.int32(counts[place]))
        tie = mixed(cell_hash ^ words[place]) >> np.uint64(32)
        words[place] = (
            ((code << np.uint64(HASH_BITS)) | tie) << np.uint64(PLACE_BITS)
        ) | np.uint64(place)
    num = len(row)
    if low <= 0 or lowest_gene < 0:
        num = 0
        for place in range(len(row)):
            if counts[place] > 0 and row[place] >= 0:
                words[num] = words[place]
                num += 1
    return num, total, max(low, 1), high


@kernel
def _unpack(words: UIntArray, row: IntArray, genes: IntArray) -> None:
    """Write the genes of sorted words of a row."""
    for rank in range(len(words)):
        genes[rank] = row[words[rank] & np.uint64(0xFFFF)]


@kernel
def _known_runs(
    slots: SlotArray, high: int, num_codes: int, num: int, unit: _Unit, runs: RunArrays
) -> int:
    """Find the runs of equal counts among the first `num` genes of a row; return their number.

    What `_pass_in_streams` left in the slots says where each count ends, from `high` downwards.
    """
    run, former = 0, 0
    for below in range(num_codes):
        end = min(int(slots[STREAMS * below + STREAMS - 1]), num)
        if end > former:
            runs[0][run], runs[1][run] = end, _logarithm(high - below, unit)
            run, former = run + 1, end
    return run


@kernel
def _runs(words: UIntArray, unit: _Unit, runs: RunArrays) -> int:
    """Find the runs of equal counts among sorted words; return their number."""
    shift = np.uint64(COUNT_SHIFT)
    run = 0
    for rank in range(len(words)):
        code = words[rank] >> shift
        if rank + 1 == len(words) or words[rank + 1] >> shift != code:
            runs[0][run], runs[1][run] = rank + 1, _logarithm(MAX_COUNT - int(code), unit)
            run += 1
    return run


@kernel
def _logarithm(count: int, unit: _Unit) -> np.float32:
    """Return ln(1 + factor * count) / divisor, to the last bit as other values are normalised."""
    return np.float32(math.log1p(count * unit.factor) / unit.divisor)


@kernel
def _sort(scratch: _Scratch, num: int, low: int, high: int) -> UIntArray:
    """Sort the first `num` words, whose counts are from `low` to `high`.

    Where these are close enough for one pass, that leaves where each count ends in the last stream
    of the slots.
    """
    words, spare, slots = scratch.words[:num], scratch.spare[:num], scratch.slots
    _pass(words, spare, slots[:NUM_BUCKETS], np.uint64(HASH_SHIFT))
    if high - low + 1 <= NUM_BUCKETS:
        _pass_in_streams(spare, words, slots, np.uint64(MAX_COUNT - high), high - low + 1)
    else:
        _pass(spare, words, slots[:NUM_BUCKETS], np.uint64(COUNT_SHIFT))
        _pass(words, spare, slots[:NUM_BUCKETS], np.uint64(COUNT_SHIFT + DIGIT_BITS))
        words, spare = spare, words
    for i in range(1, num):
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
def _pass(words: UIntArray, into: UIntArray, slots: SlotArray, shift: np.uint64) -> None:
    """Sort words into another array by the digit at `shift`, equal ones in the order they have."""
    mask, one = np.uint64(NUM_BUCKETS - 1), np.uint32(1)
    slots[:] = 0
    for i in range(len(words)):
        slots[(words[i] >> shift) & mask] += one
    _start_slots(slots)
    for i in range(len(words)):
        word = words[i]
        bucket = (word >> shift) & mask
        slot = slots[bucket]
        slots[bucket] = slot + one
        into[slot] = word


@kernel
def _pass_in_streams(
    words: UIntArray, into: UIntArray, slots: SlotArray, lowest: np.uint64, num_codes: int
) -> None:
    """Sort words into another array by the code of their count, from `lowest` on."""
    slots = slots[: STREAMS * num_codes]
    slots[:] = 0
    one = np.uint32(1)
    quarter = len(words) // STREAMS
    tail = STREAMS * quarter  # the last quarter goes on to the end
    a, b, c, d = words[:quarter], words[quarter:], words[2 * quarter :], words[3 * quarter :]
    for i in range(quarter):
        slots[_slot(a[i], lowest, 0)] += one
        slots[_slot(b[i], lowest, 1)] += one
        slots[_slot(c[i], lowest, 2)] += one
        slots[_slot(d[i], lowest, 3)] += one
    for i in range(tail, len(words)):
        slots[_slot(words[i], lowest, 3)] += one
    _start_slots(slots)
    for i in range(quarter):
        at_a, at_b = _slot(a[i], lowest, 0), _slot(b[i], lowest, 1)
        at_c, at_d = _slot(c[i], lowest, 2), _slot(d[i], lowest, 3)
        into[slots[at_a]], into[slots[at_b]] = a[i], b[i]
        into[slots[at_c]], into[slots[at_d]] = c[i], d[i]
        slots[at_a] += one
        slots[at_b] += one
        slots[at_c] += one
        slots[at_d] += one
    for i in range(tail, len(words)):
        at = _slot(words[i], lowest, 3)
        into[slots[at]] = words[i]
        slots[at] += one


@kernel
def _slot(word: np.uint64, lowest: np.uint64, stream: int) -> np.uint64:
    return ((word >> np.uint64(COUNT_SHIFT)) - lowest) * np.uint64(STREAMS) + np.uint64(stream)


@kernel
def _start_slots(slots: SlotArray) -> None:
    """Turn numbers of words into where the words of each slot start."""
    start = np.uint32(0)
    for slot in range(len(slots)):
        num = slots[slot]
        slots[slot] = start
        start += num
