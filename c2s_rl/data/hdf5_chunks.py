"""One-dimensional HDF5 datasets packed with gzip, read by several threads at once.

HDF5 lets one thread in at a time, and unpacks with zlib. Where a dataset's chunks are packed with
deflate, with or without the byte shuffle, they are fetched as they lie in the file and unpacked
here by ISA-L, twice as fast and without Python's lock. Anything else, and a chunk that cannot be
unpacked, is left to h5py, whose values are the definition and whose errors name the damage.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import h5py
import numpy as np
import numpy.typing as npt
from isal import isal_zlib

from c2s_rl.cells.jit import kernel

ByteArray = npt.NDArray[np.uint8]

# The package's own types call this class an exception, not a class of exceptions.
UnpackError = cast("type[Exception]", isal_zlib.IsalError)

PACKED = (
    (h5py.h5z.FILTER_DEFLATE,),
    (h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE),
)
MAX_CHUNK = 64 * 2**20  # bytes of a chunk, unpacked; HDF5's own are below 1 MB


@dataclass(frozen=True)
class _Stored:
    """Where a chunk lies in the file."""

    offset: int
    size: int


class UnpackedArray:
    """A dataset that is sliced like itself, faster."""

    def __init__(self, dataset: h5py.Dataset) -> None:
        """Find the chunks of a dataset for which `can_unpack` holds."""
        self._dataset = dataset
        self._file_number = int(dataset.file.id.get_vfd_handle())
        self._length = len(dataset)
        self._chunk = int(dataset.chunks[0])
        self._dtype: np.dtype[np.generic] = dataset.dtype
        self._is_shuffled = len(_filters(dataset)) == 2
        self._stored: dict[int, _Stored] = {}
        dataset.id.chunk_iter(self._note)
        # Rows do not end where chunks do: the chunk that was cut is needed again for the next rows.
        self._last_number = -1
        self._last: npt.NDArray[np.generic] = np.zeros(0, dtype=self._dtype)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, key: slice) -> npt.NDArray[np.generic]:
        """Read a range of values; the step must be 1."""
        start, stop, step = key.indices(self._length)
        assert step == 1
        values = np.empty(max(stop - start, 0), dtype=self._dtype)
        position = start
        while position < stop:
            number = position // self._chunk
            first = number * self._chunk
            chunk = self._read(number)
            if chunk is None:
                return np.asarray(self._dataset[key])
            end = min(first + self._chunk, stop)
            values[position - start : end - start] = chunk[position - first : end - first]
            position = end
        return values

    def _note(self, info: h5py.h5d.StoreInfo) -> None:
        if info.filter_mask == 0:  # else a filter was left out of this chunk
            number = info.chunk_offset[0] // self._chunk
            self._stored[number] = _Stored(info.byte_offset, info.size)

    def _read(self, number: int) -> npt.NDArray[np.generic] | None:
        """Read one chunk; None where only h5py can tell what it holds."""
        if number == self._last_number:
            return self._last
        stored = self._stored.get(number)
        if stored is None:
            return None
        packed = os.pread(self._file_number, stored.size, stored.offset)
        size = self._chunk * self._dtype.itemsize
        try:
            unpacked = isal_zlib.decompressobj().decompress(packed, size + 1)
        except UnpackError:
            return None
        if len(unpacked) != size:
            return None
        flat = np.frombuffer(unpacked, dtype=np.uint8)
        if self._is_shuffled:
            flat = _unshuffle(flat, self._dtype.itemsize)
        self._last_number, self._last = number, flat.view(self._dtype)
        return self._last


def unpacked(dataset: h5py.Dataset) -> h5py.Dataset | UnpackedArray:
    """Return the dataset, or what reads it faster."""
    return UnpackedArray(dataset) if can_unpack(dataset) else dataset


def can_unpack(dataset: h5py.Dataset) -> bool:
    """Whether a dataset's chunks can be unpacked here."""
    return (
        dataset.ndim == 1
        and dataset.chunks is not None
        and dataset.dtype.kind in "iuf"
        and dataset.dtype.isnative
        and _filters(dataset) in PACKED
        and dataset.chunks[0] * dataset.dtype.itemsize <= MAX_CHUNK
        # Chunks are fetched by their place in the file that the system has open.
        and dataset.file.driver == "sec2"
        and dataset.file.userblock_size == 0
    )


def _filters(dataset: h5py.Dataset) -> Sequence[int]:
    creation = dataset.id.get_create_plist()
    return tuple(creation.get_filter(i)[0] for i in range(creation.get_nfilters()))


@kernel
def _unshuffle(shuffled: ByteArray, itemsize: int) -> ByteArray:
    """Bring the bytes of each number together again."""
    num = len(shuffled) // itemsize
    result = np.empty(len(shuffled), dtype=np.uint8)
    for byte in range(itemsize):
        for i in range(num):
            result[i * itemsize + byte] = shuffled[byte * num + i]
    return result
