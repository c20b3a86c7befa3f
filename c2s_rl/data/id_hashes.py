"""Are all cell ids of a conversion different? Told by sorted hashes, in bounded memory.

Fifty million ids do not fit as Python strings, but their hashes lie on disk, sorted part by part.
Read bucket by bucket of equal upper bits, two equal ones show. Equal hashes alone prove nothing:
who asks compares the ids themselves.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from c2s_rl.cells.rank import UIntArray

# Hashes looked at together: 32 MB. Ids beyond that are looked at in several buckets.
BUCKET_SIZE = 4_000_000
MOST_REPEATS = 1_000  # an error names five

ReadHashes = Callable[[int], UIntArray]


def repeated_hashes(num_parts: int, num_ids: int, read: ReadHashes) -> UIntArray:
    """Find hashes that occur more than once.

    Args:
        num_parts: How many sorted arrays there are.
        num_ids: How many hashes they hold together.
        read: Reads one of the arrays; called once a bucket for each.

    Returns:
        Up to MOST_REPEATS of them, each once, rising.
    """
    num_buckets = 1 << max(0, (num_ids // BUCKET_SIZE).bit_length())
    found: list[UIntArray] = []
    num_found = 0
    for bucket in range(num_buckets):
        low, high = _edges(bucket, num_buckets)
        pieces = [_between(read(part), low, high) for part in range(num_parts)]
        hashes = np.sort(np.concatenate([np.zeros(0, dtype=np.uint64), *pieces]))
        repeated = np.unique(hashes[1:][hashes[1:] == hashes[:-1]])
        found.append(repeated)
        num_found += len(repeated)
        if num_found >= MOST_REPEATS:
            break
    return np.concatenate(found)[:MOST_REPEATS]


def repeated_ids(hashes: UIntArray, parts: Iterator[tuple[Sequence[str], UIntArray]]) -> list[str]:
    """Return ids that occur more than once, of those whose hash is one of `hashes`.

    Args:
        hashes: Rising.
        parts: Ids and their hashes, in portions.
    """
    seen: set[str] = set()
    repeated: dict[str, None] = {}
    for ids, id_hashes in parts:
        for row in np.flatnonzero(np.isin(id_hashes, hashes)).tolist():
            name = ids[row]
            if name in seen:
                repeated[name] = None
            seen.add(name)
    return list(repeated)


def _edges(bucket: int, num_buckets: int) -> tuple[int, int]:
    """Return the lowest and the highest hash of a bucket."""
    size = 2**64 // num_buckets
    return bucket * size, (bucket + 1) * size - 1


def _between(hashes: UIntArray, low: int, high: int) -> UIntArray:
    first = np.searchsorted(hashes, np.uint64(low), side="left")
    last = np.searchsorted(hashes, np.uint64(high), side="right")
    return hashes[first:last]
