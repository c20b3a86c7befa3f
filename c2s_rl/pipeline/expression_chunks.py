"""Cells with expression, a few thousand at a time: stored ones, or sentences by a rank model.

What `to_anndata` writes. Words of a sentence that are no genes and genes that are named again are
counted for each cell. Left out: files and their form (`c2s_rl.data`).

Shapes: C cells of a chunk, W words of all its sentences, N genes of the vocabulary.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from c2s_rl.cells.inverse import (
    ExpressionRows,
    RepeatRule,
    first_places,
    sentences_to_expression,
)
from c2s_rl.cells.rank import IndexArray
from c2s_rl.cells.reading import TEXTS_AT_ONCE, UNKNOWN, SentenceReader, WordTable
from c2s_rl.cells.vocabulary import Vocabulary, shown
from c2s_rl.data.h5ad_stream import Column
from c2s_rl.data.sentence_files import SentenceBatch
from c2s_rl.data.shard_stream import iter_cells
from c2s_rl.data.shards import CellManifest
from c2s_rl.errors import DataError

CELLS_AT_ONCE = 2_048
NUM_SHOWN = 3  # unknown words in a message

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class ExpressionChunk:
    """Consecutive cells ready to be written."""

    cell_ids: list[str]
    """[C]"""
    rows: ExpressionRows
    """[C] expression by gene."""
    num_words_C: IndexArray
    """[C] words of each sentence; of stored cells, genes."""
    num_unknown_C: IndexArray
    """[C] words that are no symbols."""
    obs: dict[str, Column]
    """Label to [C] values."""

    @property
    def counts(self) -> dict[str, IndexArray]:
        """Name to [C], as obs columns; `sentence_files.COUNTS` lists them."""
        num_genes = np.diff(self.rows.indptr)
        below_zero = self.rows.num_below_zero_C
        return {
            "num_words": self.num_words_C,
            "num_genes": num_genes,
            "num_unknown_words": self.num_unknown_C,
            "num_repeated_words": self.num_words_C - self.num_unknown_C - num_genes - below_zero,
            "num_below_zero": below_zero,
        }


def cell_chunks(
    folder: Path, manifest: CellManifest, *, with_values: bool
) -> Iterator[ExpressionChunk]:
    """Read the cells of a folder, with every label.

    Args:
        folder: Cell shards.
        manifest: Their manifest.
        with_values: Take the values that are stored, else those of the rank model.

    Raises:
        MissingFileError: If a part is not there.
        DataError: If a part is damaged or has no values.
    """
    batches = iter_cells(
        folder,
        manifest,
        columns=manifest.obs_columns,
        with_values=with_values,
        num_cells=CELLS_AT_ONCE,
    )
    for batch in batches:
        none = np.zeros(len(batch.cell_ids), dtype=np.int64)
        if batch.values is None:
            rows = sentences_to_expression(
                batch.indptr,
                batch.genes,
                manifest.rank_model,
                num_genes=len(manifest.symbols),
                repeats=RepeatRule.FIRST,
            )
        else:
            rows = ExpressionRows(batch.indptr, batch.genes, batch.values, none)
        origin: dict[str, Column] = {
            "source_file": np.array(batch.source_files, dtype=np.object_),
            "source_row": batch.source_rows,
        }
        yield ExpressionChunk(
            batch.cell_ids, rows, np.diff(batch.indptr), none, {**batch.obs, **origin}
        )


def sentence_chunks(
    batches: Iterable[SentenceBatch], manifest: CellManifest, repeats: RepeatRule, *, place: str
) -> Iterator[ExpressionChunk]:
    """Read sentences and give their genes the values of a rank model.

    Args:
        batches: The sentences, a few at a time.
        manifest: Of the cells that the sentences are like: vocabulary and rank model.
        repeats: Where a gene that is named twice stands.
        place: Where the sentences are from, for messages.

    Raises:
        DataError: If no word of all sentences is a gene, or a completion does not parse to the
            genes that were recorded with it.
    """
    reader = SentenceReader(manifest.vocabulary)
    num_words, num_unknown, unknown = 0, 0, ""
    for batch in batches:
        parts: list[ExpressionRows] = []
        words_C: list[IndexArray] = []
        unknown_C: list[IndexArray] = []
        for start in range(0, len(batch.texts), TEXTS_AT_ONCE):
            part = slice(start, start + TEXTS_AT_ONCE)
            words = reader.read(batch.texts[part], batch.is_truncated[part])
            _require_recorded(words, batch, part, len(manifest.symbols))
            parts.append(
                sentences_to_expression(
                    words.indptr,
                    words.genes,
                    manifest.rank_model,
                    num_genes=len(manifest.symbols),
                    repeats=repeats,
                )
            )
            words_C.append(np.diff(words.indptr))
            unknown_C.append(_sums_of_rows(words.indptr, words.genes == UNKNOWN))
            unknown = unknown or _first_unknown(words)
        chunk = ExpressionChunk(
            batch.ids, _joined(parts), np.concatenate(words_C), np.concatenate(unknown_C), batch.obs
        )
        num_words += int(chunk.num_words_C.sum())
        num_unknown += int(chunk.num_unknown_C.sum())
        yield chunk
    _require_genes(num_words, num_unknown, unknown, manifest.vocabulary, place)


def _joined(parts: Sequence[ExpressionRows]) -> ExpressionRows:
    lengths = np.concatenate([np.diff(rows.indptr) for rows in parts])
    return ExpressionRows(
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.concatenate([rows.genes for rows in parts]),
        np.concatenate([rows.values for rows in parts]),
        np.concatenate([rows.num_below_zero_C for rows in parts]),
    )


def _sums_of_rows(indptr: IndexArray, flags: npt.NDArray[np.bool_]) -> IndexArray:
    sums: IndexArray = np.diff(np.concatenate([[0], np.cumsum(flags)])[indptr])
    return sums


def _first_unknown(words: WordTable) -> str:
    unknown = np.flatnonzero(words.genes == UNKNOWN)[:NUM_SHOWN]
    return shown([words.word(index) for index in unknown.tolist()])


def _require_recorded(words: WordTable, batch: SentenceBatch, part: slice, num_genes: int) -> None:
    """Check that answers parse to the genes that they had when they were sampled."""
    if batch.recorded_genes is None:
        return
    bounds, genes, _ = first_places(words.indptr, words.genes, num_genes)
    for row, recorded in enumerate(batch.recorded_genes[part]):
        found = genes[bounds[row] : bounds[row + 1]]
        if found.tolist() != recorded:
            raise DataError(
                f"completions must parse to the genes that were recorded, got {len(found)} genes "
                f"instead of {len(recorded)} or others, for {batch.ids[part][row]!r} in "
                f"{batch.place}: the cells have another vocabulary"
            )


def _require_genes(
    num_words: int, num_unknown: int, unknown: str, vocabulary: Vocabulary, place: str
) -> None:
    """Check at the end that the sentences were of this vocabulary."""
    if not num_unknown:
        return
    if num_unknown == num_words:
        first = unknown.split("'")[1]
        is_case = first.casefold() in {symbol.casefold() for symbol in vocabulary.symbols}
        hint = f"; the cells spell it in another case than {first!r}" if is_case else ""
        raise DataError(
            f"sentences must name genes of the cells' vocabulary ({len(vocabulary)} symbols), got "
            f"none among {num_words} words, such as {unknown}, in {place}{hint}"
        )
    if 2 * num_unknown > num_words:
        log.warning(
            "to-anndata: %d of %d words of %s are no symbols of the cells, such as %s",
            num_unknown,
            num_words,
            place,
            unknown,
        )
