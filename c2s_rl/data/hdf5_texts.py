"""Texts in HDF5 arrays as 10x and CMap write them: padded bytes, numbers where texts are meant.

Shapes: C rows.
"""

import h5py
import numpy as np
import numpy.typing as npt

from c2s_rl.data.text_column import TextArray


class Hdf5Texts:
    """A dataset of texts that is read by ranges."""

    def __init__(self, dataset: h5py.Dataset, *, missing: tuple[str, ...] = ()) -> None:
        """Take a dataset of one dimension and the texts that stand for "no value" in it."""
        self._dataset = dataset
        self._missing = frozenset(missing)

    def __len__(self) -> int:
        return int(self._dataset.shape[0])

    def read(self, start: int, stop: int) -> TextArray:
        """Return the texts of rows start..stop-1; '' where missing."""
        texts = as_texts(self._dataset[start:stop])
        return np.array([t if t not in self._missing else "" for t in texts], dtype=np.str_)


def as_texts(values: npt.NDArray[np.generic]) -> list[str]:
    """Write values as text, whatever type they were stored as; padding is cut off."""
    if values.dtype.kind == "f":
        # Shortest decimal of a dose: 0.12 and not 0.12000000000000001, 10 and not 10.0.
        return [f"{value:g}" for value in values.tolist()]
    return [
        (value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)).strip()
        for value in values.tolist()
    ]
