"""Two views of the same samples: pseudobulks of single cells, and bulk profiles or the cells.

The paper's sample is a donor x cell type x batch, its pseudobulk the mean of ten cells (C2S-Scale
4.6). Where bulk profiles of the samples are at hand, they are the second view; else the second view
of a sample is the mean vector of the very cells that the pseudobulk was made of. Both are embedded
like any cell. How well partners find each other is FOSCTTM (`c2s_rl/evaluation/matching.py`).

Shape suffixes: S samples, k cells of a sample, D hidden size.
"""

import logging
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from c2s_rl.cells.rank import IndexArray, UIntArray, stable_hash
from c2s_rl.data.cell_groups import group_codes
from c2s_rl.data.cell_reader import CellReader
from c2s_rl.data.pseudobulk import rank_pseudobulks
from c2s_rl.errors import DataError
from c2s_rl.evaluation.matching import closer_shares
from c2s_rl.evaluation.rank import DoubleArray
from c2s_rl.pipeline.embed_config import IntegrationConfig
from c2s_rl.pipeline.embed_contexts import CellWording, Context
from c2s_rl.pipeline.embed_texts import ListedContexts
from c2s_rl.types import FloatArray

SAMPLES_AT_ONCE = 128  # x 10 cells x 2,000 genes: 20 MB

log = logging.getLogger(__name__)


class IntegrationResult(BaseModel):
    """What the comparison of two views found; integration.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    foscttm: float = Field(description="Mean of both directions; 0 best, 0.5 random.")
    pseudobulk_to_partner: float = Field(description="From the side of the pseudobulks.")
    partner_to_pseudobulk: float = Field(description="From the side of their partners.")
    partner_cosine: float = Field(description="Mean cosine of a pseudobulk and its partner.")
    num_samples: int = Field(description="Samples that both views hold.")
    second_view: str = Field(description="What the partners are.")
    by: tuple[str, ...] = Field(description="Labels that make a sample.")
    cells: int = Field(description="Cells of a pseudobulk.")
    num_small: int = Field(description="Groups left out: too few cells.")
    num_unlabelled: int = Field(description="Cells left out: a label is missing.")
    num_without_bulk: int = Field(description="Pseudobulks left out: no bulk profile.")
    num_bulk_unused: int = Field(description="Bulk profiles left out: no pseudobulk.")


@dataclass(frozen=True, eq=False)
class Views:
    """What is embedded for a comparison, in one order of samples."""

    pseudobulks: ListedContexts
    """[S]"""
    partners: ListedContexts
    """[S] bulk profiles, or [S * k] cells of one sample after another."""
    cells_per_partner: int
    """1 for bulk profiles, k for cells."""
    num_small: int
    """Groups with too few cells."""
    num_unlabelled: int
    """Cells without one of the labels."""
    num_without_bulk: int
    """Pseudobulks that no bulk profile belongs to."""
    num_bulk_unused: int
    """Bulk profiles that no pseudobulk belongs to."""

    @property
    def labels(self) -> list[tuple[str, ...]]:
        """[S] labels of each sample."""
        return [context.labels for context in self.pseudobulks.contexts]


@dataclass(frozen=True, eq=False)
class _Draw:
    """Cells of each sample."""

    rows_S_k: IndexArray
    labels: list[tuple[str, ...]]
    num_small: int
    num_unlabelled: int


def make_views(
    config: IntegrationConfig, cells: CellReader, wording: CellWording, *, seed: int
) -> Views:
    """Draw the cells, make their pseudobulks, and find the partners.

    Args:
        config: What makes a sample, and what its partner is.
        cells: Single cells, with values.
        wording: How a profile becomes a text; the same for both views.
        seed: Seeds the draw of cells.

    Raises:
        MissingFileError: If the folder of bulk profiles is not there.
        DataError: If a column is unknown, the cells have no values, two bulk profiles have the same
            labels, or fewer than 2 samples have a partner.
    """
    draw = _draw(config, cells, seed)
    num_without_bulk = num_bulk_unused = 0
    if config.bulk is None:
        partners = _own_cells(draw, config, cells, wording)
    else:
        bulk = CellReader(config.bulk)
        row_of = _bulk_rows(bulk, config.by)
        is_paired = np.array([labels in row_of for labels in draw.labels], dtype=np.bool_)
        num_without_bulk = int(np.count_nonzero(~is_paired))
        num_bulk_unused = len(row_of) - int(np.count_nonzero(is_paired))
        paired = [labels for labels in draw.labels if labels in row_of]
        draw = _Draw(draw.rows_S_k[is_paired], paired, draw.num_small, draw.num_unlabelled)
        partners = _bulk_profiles(draw, bulk, row_of, config, wording)
    if len(draw.labels) < 2:
        raise DataError(
            f"a comparison needs at least 2 samples with partners, got {len(draw.labels)} of "
            f"{config.cells} cells each by {', '.join(config.by)} in {cells.folder} "
            f"({draw.num_small} groups are too small, {num_without_bulk} have no bulk profile)"
        )
    for what, num in (
        ("groups with too few cells", draw.num_small),
        ("cells without a label", draw.num_unlabelled),
        ("pseudobulks without a bulk profile", num_without_bulk),
        ("bulk profiles without a pseudobulk", num_bulk_unused),
    ):
        if num:
            log.info("left out of the comparison: %d %s", num, what)
    return Views(
        pseudobulks=_pseudobulks(draw, config, cells, wording),
        partners=partners,
        cells_per_partner=config.cells if config.bulk is None else 1,
        num_small=draw.num_small,
        num_unlabelled=draw.num_unlabelled,
        num_without_bulk=num_without_bulk,
        num_bulk_unused=num_bulk_unused,
    )


@dataclass(frozen=True, eq=False)
class Compared:
    """Both views as vectors, and how well they meet."""

    first_S_D: DoubleArray
    """[S, D] pseudobulks."""
    second_S_D: DoubleArray
    """[S, D] partners."""
    closer_S: DoubleArray
    """[S] mean of both directions: share of other samples that are closer than the partner."""
    result: IntegrationResult
    """The numbers."""


def compare_views(
    config: IntegrationConfig, views: Views, first_S_D: FloatArray, partner_vectors: FloatArray
) -> Compared:
    """Measure FOSCTTM with cosine distances.

    Args:
        config: For the record.
        views: What was embedded.
        first_S_D: [S, D] vectors of the pseudobulks.
        partner_vectors: [S * cells_per_partner, D] vectors of the partners.
    """
    first = first_S_D.astype(np.float64)
    shape = (len(first), views.cells_per_partner, first.shape[1])
    second = partner_vectors.astype(np.float64).reshape(shape).mean(axis=1)
    forth_S, back_S = closer_shares(first, second), closer_shares(second, first)
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    result = IntegrationResult(
        foscttm=float((forth_S.mean() + back_S.mean()) / 2),
        pseudobulk_to_partner=float(forth_S.mean()),
        partner_to_pseudobulk=float(back_S.mean()),
        partner_cosine=float(((first * second).sum(axis=1) / lengths).mean()),
        num_samples=len(first),
        second_view="bulk profiles" if config.bulk else "mean vectors of the same cells",
        by=config.by,
        cells=config.cells,
        num_small=views.num_small,
        num_unlabelled=views.num_unlabelled,
        num_without_bulk=views.num_without_bulk,
        num_bulk_unused=views.num_bulk_unused,
    )
    return Compared(first, second, (forth_S + back_S) / 2, result)


def _draw(config: IntegrationConfig, cells: CellReader, seed: int) -> _Draw:
    key_C, groups = group_codes(cells, config.by)
    rows: list[IndexArray] = []
    labels: list[tuple[str, ...]] = []
    order = np.argsort(key_C, kind="stable")
    bounds = np.searchsorted(key_C[order], np.arange(len(groups) + 1))
    for number, group in enumerate(groups):
        members = order[bounds[number] : bounds[number + 1]]
        if len(members) < config.cells:
            continue
        generator = np.random.default_rng(stable_hash(f"pseudobulk|{_name(group)}", seed))
        rows.append(np.sort(generator.choice(members, size=config.cells, replace=False)))
        labels.append(group)
    return _Draw(
        rows_S_k=np.array(rows, dtype=np.int64).reshape(len(rows), config.cells),
        labels=labels,
        num_small=len(groups) - len(rows),
        num_unlabelled=int(np.count_nonzero(key_C < 0)),
    )


def _pseudobulks(
    draw: _Draw, config: IntegrationConfig, cells: CellReader, wording: CellWording
) -> ListedContexts:
    vocabulary, seed = cells.manifest.vocabulary, cells.manifest.seed
    hashes: UIntArray = np.array(
        [stable_hash(symbol, seed) for symbol in vocabulary.symbols], dtype=np.uint64
    )
    contexts: list[Context] = []
    for start in range(0, len(draw.labels), SAMPLES_AT_ONCE):
        labels = draw.labels[start : start + SAMPLES_AT_ONCE]
        rows = draw.rows_S_k[start : start + SAMPLES_AT_ONCE]
        table = cells.read(rows.ravel(), with_values=True)
        rows_of = {
            _name(group): range(s * config.cells, (s + 1) * config.cells)
            for s, group in enumerate(labels)
        }
        ranked = rank_pseudobulks(table, rows_of, gene_hashes=hashes, seed=seed)
        contexts += [
            Context(_name(group), wording.cell(ranked[_name(group)], vocabulary), group)
            for group in labels
        ]
    return ListedContexts(tuple(contexts), config.by)


def _own_cells(
    draw: _Draw, config: IntegrationConfig, cells: CellReader, wording: CellWording
) -> ListedContexts:
    vocabulary = cells.manifest.vocabulary
    contexts: list[Context] = []
    for labels, rows in zip(draw.labels, draw.rows_S_k, strict=True):
        table = cells.read(rows)
        contexts += [
            Context(table.cell_ids[i], wording.cell(table.genes_of(i), vocabulary), labels)
            for i in range(len(table))
        ]
    return ListedContexts(tuple(contexts), config.by)


def _bulk_rows(bulk: CellReader, by: tuple[str, ...]) -> dict[tuple[str, ...], int]:
    """Labels to the row of the one bulk profile that has them."""
    key_C, groups = group_codes(bulk, by)
    counts = np.bincount(key_C[key_C >= 0], minlength=len(groups))
    if counts.max(initial=0) > 1:
        twice = groups[int(counts.argmax())]
        raise DataError(
            f"a sample must have one bulk profile, got {int(counts.max())} with {', '.join(by)} = "
            f"{_name(twice)} in {bulk.folder}"
        )
    return {groups[key]: row for row, key in enumerate(key_C.tolist()) if key >= 0}


def _bulk_profiles(
    draw: _Draw,
    bulk: CellReader,
    row_of: dict[tuple[str, ...], int],
    config: IntegrationConfig,
    wording: CellWording,
) -> ListedContexts:
    rows = np.array([row_of[labels] for labels in draw.labels], dtype=np.int64)
    table = bulk.read(rows)
    vocabulary = bulk.manifest.vocabulary
    contexts = tuple(
        Context(table.cell_ids[i], wording.cell(table.genes_of(i), vocabulary), labels)
        for i, labels in enumerate(draw.labels)
    )
    return ListedContexts(contexts, config.by)


def _name(labels: tuple[str, ...]) -> str:
    return " | ".join(labels)
