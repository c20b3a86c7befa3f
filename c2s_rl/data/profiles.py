"""What a GCT and a GCTX file have in common: a full matrix with a frame for either side of it.

Shape suffixes: C profiles, N genes.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from c2s_rl.data.h5ad_frame import Frame, TextFrame
from c2s_rl.data.h5ad_matrix import CsrChunk

# Values read at once: about 100 MB with all intermediates, 162 profiles of 12,328 genes.
VALUES_AT_ONCE = 2_000_000


class Sliceable2D(Protocol):
    """A two-dimensional array that lies in a file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows, columns."""

    def __getitem__(self, key: tuple[slice, slice], /) -> npt.NDArray[np.generic]: ...


class ProfileMatrix:
    """A full matrix, read by profiles; every value is an entry, zeros too."""

    def __init__(
        self,
        values: Sliceable2D,
        *,
        is_gene_first: bool,
        kept_genes: npt.NDArray[np.int64] | None = None,
    ) -> None:
        """Take [N, C] values, or [C, N]; None keeps all genes."""
        self._values = values
        self._is_gene_first = is_gene_first
        self._kept_genes = kept_genes

    @property
    def shape(self) -> tuple[int, int]:
        """Profiles, genes that are kept."""
        num_profiles, num_genes = (
            reversed(self._values.shape) if self._is_gene_first else (self._values.shape)
        )
        return num_profiles, num_genes if self._kept_genes is None else len(self._kept_genes)

    @property
    def most_rows(self) -> int:
        """Profiles that may be read at once, at least one."""
        num_genes = self._values.shape[0 if self._is_gene_first else 1]
        return max(1, VALUES_AT_ONCE // max(num_genes, 1))

    def of_genes(self, kept_genes: npt.NDArray[np.int64]) -> "ProfileMatrix":
        """Return the same matrix with some of its genes only."""
        return ProfileMatrix(self._values, is_gene_first=self._is_gene_first, kept_genes=kept_genes)

    def read_rows(self, start: int, stop: int) -> CsrChunk:
        """Read profiles start..stop-1."""
        profiles, every = slice(start, stop), slice(None)
        if self._is_gene_first:
            block = np.asarray(self._values[every, profiles]).T
        else:
            block = np.asarray(self._values[profiles, every])
        if self._kept_genes is not None:
            block = block[:, self._kept_genes]
        num_rows, num_genes = block.shape
        return CsrChunk(
            start,
            np.arange(num_rows + 1, dtype=np.int64) * num_genes,
            np.tile(np.arange(num_genes, dtype=np.int32), num_rows),
            block.astype(np.float64).ravel(),
        )


@dataclass(frozen=True, eq=False)
class ProfileFile:
    """An open GCT or GCTX file."""

    profiles: TextFrame
    """Names and labels of the profiles."""
    genes: Frame
    """Names and labels of the genes."""
    matrix: ProfileMatrix
