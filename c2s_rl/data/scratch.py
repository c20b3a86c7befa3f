"""Files that a conversion makes of its sources once and every worker reads: turned or spooled ones.

A scratch folder lies on storage that all workers see. What is in it is named after what it was made
from, and appears whole or not at all; who comes second finds it. Left out: removing it, which is
the business of whoever made the scratch folder.
"""

import os
import shutil
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

MakeFiles = Callable[[Path], None]
ArrayFile = np.memmap[tuple[int, ...], np.dtype[np.generic]]


def identity_of(*paths: Path) -> str:
    """Return what tells files or folders from another version of them: paths, sizes, times.

    A folder stands for all files in it. Contents are not read.
    """
    parts: list[str] = []
    for path in paths:
        parts.append(str(path.resolve()))
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                stat = file.stat()
                parts.append(f"{file.relative_to(path)} {stat.st_size} {stat.st_mtime_ns}")
    return blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()


def made_once(scratch: Path, path: Path, what: str, make: MakeFiles) -> Path:
    """Return a folder of files made from a source, making it unless it is there.

    Args:
        scratch: Created if need be.
        path: The source; another version of it gives another folder.
        what: Names what is made of it: 'layer:counts by rows'. Anything that changes the files
            belongs into it.
        make: Writes the files into an empty folder.

    Returns:
        The folder, whole.
    """
    name = blake2b(f"{identity_of(path)}\n{what}".encode(), digest_size=16).hexdigest()
    folder = scratch / name
    if folder.is_dir():
        return folder
    # Two workers may make it at once: each in a folder of its own, and the first to finish wins.
    partial = scratch / f".{name}.partial-{os.getpid()}-{uuid4().hex[:8]}"
    partial.mkdir(parents=True)
    try:
        make(partial)
        try:
            partial.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


class NumpyRows:
    """A .npy file of [R, K] numbers, or [R] where K is None, that grows row by row.

    `numpy.load(path, mmap_mode="r")` reads it after the block. Nothing but the row at hand is held,
    and a writer that stops early has used no more space than it wrote.
    """

    def __init__(self, path: Path, dtype: np.dtype[np.generic], num_columns: int | None) -> None:
        """Take the file to write."""
        self._path = path
        self._dtype = dtype
        self._columns = () if num_columns is None else (num_columns,)
        self._num_rows = 0

    def __enter__(self) -> Self:
        self._file = self._path.open("wb")
        self._write_header(2**62)  # as long as any number of rows: it is written again at the end
        return self

    def append(self, rows: npt.NDArray[np.generic]) -> None:
        """Write [rows, K] or [rows] numbers."""
        assert rows.shape[1:] == self._columns
        self._file.write(np.ascontiguousarray(rows, dtype=self._dtype).tobytes())
        self._num_rows += len(rows)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self._write_header(self._num_rows)
        self._file.close()

    def _write_header(self, num_rows: int) -> None:
        self._file.seek(0)
        header = {"descr": self._dtype.str, "fortran_order": False}
        shape = {"shape": (num_rows, *self._columns)}
        npy.write_array_header_1_0(self._file, header | shape)  # type: ignore[no-untyped-call]


def new_array_file(path: Path, dtype: np.dtype[np.generic], size: int) -> ArrayFile:
    """Make a .npy file of [size] zeros and open it for writing at any place."""
    array: ArrayFile = npy.open_memmap(  # type: ignore[no-untyped-call]
        path, mode="w+", dtype=dtype, shape=(size,)
    )
    return array
