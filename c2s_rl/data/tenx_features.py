"""The features of a 10x matrix: which of them are genes, and of which genome.

A 10x matrix may hold antibodies, guides and probes beside genes. Only 'Gene Expression' features
are kept, the rest is counted. Two genomes in one matrix (barnyard experiments) share symbols, so
one must be named.

Shapes: F features, N genes kept.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from c2s_rl.cells.vocabulary import shown
from c2s_rl.data.h5ad_matrix import CsrChunk, RowMatrix
from c2s_rl.errors import DataError

GENE_EXPRESSION = "Gene Expression"


@dataclass(frozen=True, eq=False)
class Features:
    """[F] features in the order of the matrix."""

    ids: tuple[str, ...]
    """Ensembl ids, as a rule."""
    symbols: tuple[str, ...]
    kinds: tuple[str, ...] | None
    """'Gene Expression', 'Antibody Capture', ...; None in old files, which hold genes only."""
    genomes: tuple[str, ...] | None
    """None where the format does not say."""
    place: str
    """The file, for messages."""

    def __post_init__(self) -> None:
        """Check that there is one of each a feature.

        Raises:
            DataError: If the columns differ in length.
        """
        columns = {"id": self.ids, "name": self.symbols, "type": self.kinds, "genome": self.genomes}
        sizes = {what: len(column) for what, column in columns.items() if column is not None}
        if len(set(sizes.values())) > 1:
            raise DataError(f"features must have one of each, got {sizes} in {self.place}")


@dataclass(frozen=True, eq=False)
class KeptFeatures:
    """Those that are genes."""

    places: npt.NDArray[np.int64]
    """[N] rising."""
    ids: tuple[str, ...]
    symbols: tuple[str, ...]
    num_left_out: Mapping[str, int]
    """What was left out, by kind."""


def keep_genes(features: Features, *, genome: str | None) -> KeptFeatures:
    """Choose the genes of one genome.

    Raises:
        DataError: If there are several genomes and none is named, the named one is not there, or
            no feature is a gene.
    """
    num_features, place = len(features.ids), features.place
    is_kept = np.ones(num_features, dtype=np.bool_)
    left_out: Counter[str] = Counter()
    if features.kinds is not None:
        is_kept = np.array([kind == GENE_EXPRESSION for kind in features.kinds], dtype=np.bool_)
        left_out.update(f"{kind} features" for kind in features.kinds if kind != GENE_EXPRESSION)
    if features.genomes is not None:
        genomes = [features.genomes[i] for i in np.flatnonzero(is_kept)]
        chosen = _one_genome(genomes, genome, place)
        is_chosen = np.array([name == chosen for name in features.genomes], dtype=np.bool_)
        left_out.update({"genes of other genomes": int(np.count_nonzero(is_kept & ~is_chosen))})
        is_kept &= is_chosen
    places = np.flatnonzero(is_kept)
    if not len(places):
        raise DataError(
            f"a 10x matrix must hold {GENE_EXPRESSION!r} features, got {num_features} features of "
            f"{shown(sorted(set(features.kinds or ())))} in {place}"
        )
    return KeptFeatures(
        places,
        tuple(features.ids[i] for i in places),
        tuple(features.symbols[i] for i in places),
        +left_out,
    )


def _one_genome(genomes: list[str], wanted: str | None, place: str) -> str:
    known = sorted(set(genomes))
    if wanted is None and len(known) > 1:
        raise DataError(
            f"a matrix of several genomes needs genome to name one, got {shown(known)} in {place}"
        )
    if wanted is not None and wanted not in known:
        raise DataError(f"genome must be one of {shown(known)}, got {wanted!r} for {place}")
    return known[0] if wanted is None and known else wanted or ""


class KeptColumns:
    """Some columns of a matrix, in their order."""

    def __init__(self, matrix: RowMatrix, places: npt.NDArray[np.int64]) -> None:
        """Take [N] rising columns to keep."""
        self._matrix = matrix
        self._num_kept = len(places)
        self._new_place = np.full(matrix.shape[1], -1, dtype=np.int32)
        self._new_place[places] = np.arange(len(places), dtype=np.int32)

    @property
    def shape(self) -> tuple[int, int]:
        """Cells, columns kept."""
        return self._matrix.shape[0], self._num_kept

    def read_rows(self, start: int, stop: int) -> CsrChunk:
        """Read rows start..stop-1."""
        chunk = self._matrix.read_rows(start, stop)
        columns = self._new_place[chunk.columns]
        is_kept = columns >= 0
        ends = np.concatenate([[0], np.cumsum(is_kept)])
        return CsrChunk(start, ends[chunk.indptr], columns[is_kept], chunk.values[is_kept])


def with_kept(matrix: RowMatrix, kept: KeptFeatures) -> RowMatrix:
    """Return the matrix as it is where all columns are kept."""
    if len(kept.places) == matrix.shape[1]:
        return matrix
    return KeptColumns(matrix, kept.places)
