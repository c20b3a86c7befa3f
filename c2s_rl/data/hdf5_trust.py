"""Does an HDF5 dataset hold what it claims? Asked before memory is taken for it.

A file of a few kilobytes can claim a dataset of any size: chunks that were never written read as
zeros, and deflate packs a thousand zeros into one byte. A data set that was really written has all
its chunks, and no more bytes than its filters can unfold.
"""

import math

import h5py

from c2s_rl.errors import DataError

# Bytes that one stored byte can stand for, by filter (its HDF5 number): what the format allows at
# most. Filters that are not listed get the bound of zstd: a block repeats one byte 131,072 times.
MOST_PER_BYTE = {h5py.h5z.FILTER_DEFLATE: 1_032, h5py.h5z.FILTER_LZF: 264}
UNKNOWN_FILTER = 131_072
# Filters that do not change the size.
KEEPS_SIZE = (h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32)


def require_stored(dataset: h5py.Dataset, place: str) -> None:
    """Refuse a dataset that claims more than the file can hold.

    Args:
        dataset: Of any layout; text of variable length is held to its references.
        place: What it belongs to, for the message.

    Raises:
        DataError: If parts of it were never written, or its size is beyond what it can unfold to.
    """
    if dataset.size in (None, 0):
        return
    claimed = dataset.size * dataset.dtype.itemsize
    what = f"{dataset.name.lstrip('/')} of {place}"
    stored = dataset.id.get_storage_size()
    if stored == 0:
        raise DataError(
            f"a dataset must hold the values that it claims, got {dataset.size:,} claimed and none "
            f"written in {what}"
        )
    if dataset.chunks is not None:
        wanted = math.prod(
            -(-size // chunk) for size, chunk in zip(dataset.shape, dataset.chunks, strict=True)
        )
        found = dataset.id.get_num_chunks()
        if found < wanted:
            raise DataError(
                f"a dataset must hold every chunk that it claims, got {found:,} of {wanted:,} "
                f"written in {what}"
            )
    most = _most_per_byte(dataset)
    if claimed > stored * most:
        raise DataError(
            f"a dataset must hold the values that it claims, got {claimed:,} bytes claimed and "
            f"{stored:,} stored, which unfold to {stored * most:,} at most, in {what}"
        )


def _most_per_byte(dataset: h5py.Dataset) -> int:
    """Return how many bytes one stored byte can stand for, through all filters.

    Of compressors that are known only the strongest counts: packing twice is done to claim more.
    """
    creation = dataset.id.get_create_plist()
    codes = {creation.get_filter(number)[0] for number in range(creation.get_nfilters())}
    most = max([1, *(MOST_PER_BYTE[code] for code in codes if code in MOST_PER_BYTE)])
    for code in codes:
        if code not in MOST_PER_BYTE and code not in KEEPS_SIZE:
            most *= UNKNOWN_FILTER
    return most
