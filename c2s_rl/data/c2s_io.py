"""Opening data sets of the cell2sentence package: Hugging Face folders of cell_name, cell_sentence.

A sentence has ranks but no values. So that shards, rank models and rewards work as on measured
cells, the gene at rank r of a sentence gets the pseudo-value

    1 - log10(r) / log10(N + 1)        r = 1, 2, ...; N words in the vocabulary

which is 1 for the first gene, falls strictly and stays above 0: the order in the shards is that of
the sentence, word for word. The vocabulary is every word that occurs, sorted, or the file
`vocabulary.json` in the folder, the package's own dictionary {gene: number of cells} as JSON.
A word that a sentence repeats counts once, where it stands first; repeats are counted.
Left out: Hugging Face data sets that are not on disk.

Shapes: C cells, N words of the vocabulary, Z words of a block of sentences.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from c2s_rl.cells.vocabulary import shown, unknown_name
from c2s_rl.data.cell_file import CellFile
from c2s_rl.data.h5ad_matrix import CsrChunk, RowMatrix
from c2s_rl.data.scratch import made_once
from c2s_rl.data.spool import as_texts, row_spool, spooled_rows
from c2s_rl.data.text_column import TextArray
from c2s_rl.errors import DataError, MissingFileError

if TYPE_CHECKING:
    import datasets

NAME, SENTENCE = "cell_name", "cell_sentence"
VOCABULARY = "vocabulary.json"
COUNTS, PLACES = "counts.json", "places.npy"
CELLS_AT_ONCE = 1_024  # about 2 million words


@contextmanager
def open_sentences(path: Path, *, obs_columns: Sequence[str], scratch: Path) -> Iterator[CellFile]:
    """Open a data set of cell sentences for reading by cells.

    Args:
        path: A folder as `save_to_disk` writes it; cell2sentence's CSData does.
        obs_columns: Label columns to read as text.
        scratch: A folder that stays for the whole conversion.

    Raises:
        MissingFileError: If there is no such folder.
        DataError: If the folder is damaged, holds several splits, lacks a column, or a sentence has
            a word that is not in `vocabulary.json`.
    """
    dataset = _load(path)
    for name in (NAME, SENTENCE, *obs_columns):
        if name not in dataset.column_names:
            raise DataError(unknown_name("a column", name, dataset.column_names, str(path)))
    folder = made_once(scratch, path, "words of sentences", partial(_spool, dataset, path))
    words = json.loads((folder / VOCABULARY).read_text(encoding="utf-8"))
    counts = json.loads((folder / COUNTS).read_text(encoding="utf-8"))
    rows = spooled_rows(folder, len(words), place=str(path))
    matrix = SentenceMatrix(rows, np.load(folder / PLACES))
    yield CellFile(
        path=path,
        place=str(path),
        cell_ids=_Column(dataset, NAME, path),
        var_names=tuple(words),
        obs={name: _Column(dataset, name, path) for name in obs_columns},
        matrix=matrix,
        num_left_out={what: num for what, num in counts.items() if num},
    )


class SentenceMatrix:
    """Rows of words in their order, valued by it."""

    def __init__(self, words: RowMatrix, final_place: npt.NDArray[np.int32]) -> None:
        """Take rows of words in the order of the sentence, and each word's place in the vocabulary.

        Words are numbered as they appear; only when the last is read can they be sorted.
        """
        self._words = words
        self._final_place = final_place

    @property
    def shape(self) -> tuple[int, int]:
        """Cells, words of the vocabulary."""
        return self._words.shape

    def read_rows(self, start: int, stop: int) -> CsrChunk:
        """Read rows start..stop-1."""
        chunk = self._words.read_rows(start, stop)
        lengths = np.diff(chunk.indptr)
        rank_Z = np.arange(1, len(chunk.columns) + 1) - np.repeat(chunk.indptr[:-1], lengths)
        values = 1.0 - np.log10(rank_Z) / np.log10(self.shape[1] + 1)
        return CsrChunk(start, chunk.indptr, self._final_place[chunk.columns], values)


def _load(path: Path) -> "datasets.Dataset":
    import datasets

    if not path.is_dir():
        raise MissingFileError(f"a data set of cell2sentence must be a folder, got {path}")
    with _arrow_errors(path):
        dataset = datasets.load_from_disk(str(path))
    if isinstance(dataset, datasets.DatasetDict):
        raise DataError(
            f"a data set must be one split, got the splits {shown(list(dataset))} in {path}; name "
            f"one of their folders, such as {path / next(iter(dataset), '')}"
        )
    return dataset


@contextmanager
def _arrow_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, DataError):
            raise
        reason = " ".join(str(error).split())
        raise DataError(
            f"a data set of cell2sentence must be a whole folder of save_to_disk, got {reason} "
            f"in {path}"
        ) from error


@dataclass(frozen=True, eq=False)
class _Column:
    """A column of a data set, as text."""

    dataset: "datasets.Dataset"
    name: str
    path: Path

    def __len__(self) -> int:
        return int(self.dataset.num_rows)

    def read(self, start: int, stop: int) -> TextArray:
        with _arrow_errors(self.path):
            block = self.dataset.with_format("arrow")[start:stop][self.name]
        feature = self.dataset.features[self.name]
        names = getattr(feature, "names", None)
        if names:  # codes of datasets.ClassLabel
            codes = block.to_pylist()
            texts = ["" if code is None or code < 0 else names[code] for code in codes]
        else:
            texts = as_texts(block)
        return np.array(texts, dtype=np.str_)


class _Words:
    """Gives each word its place: in the order of a vocabulary, or of appearance."""

    def __init__(self, fixed: Sequence[str] | None, path: Path) -> None:
        self._place = {word: place for place, word in enumerate(fixed or ())}
        self._is_fixed = fixed is not None
        self._path = path

    def __len__(self) -> int:
        return len(self._place)

    def places(self, words: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return the places of distinct words.

        Raises:
            DataError: If the vocabulary is fixed and lacks a word.
        """
        if self._is_fixed:
            unknown = [word for word in words if word not in self._place]
            if unknown:
                raise DataError(
                    f"a word of a sentence must be in {VOCABULARY}, got {shown(unknown)} in "
                    f"{self._path}"
                )
        return np.array(
            [self._place.setdefault(w, len(self._place)) for w in words], dtype=np.int64
        )

    def sorted(self) -> tuple[list[str], npt.NDArray[np.int32]]:
        """Return the vocabulary and the place in it of each word; a fixed one stays as it is."""
        words = list(self._place) if self._is_fixed else sorted(self._place)
        final = np.empty(len(words), dtype=np.int32)
        final[[self._place[word] for word in words]] = np.arange(len(words), dtype=np.int32)
        return words, final


def _spool(dataset: "datasets.Dataset", path: Path, folder: Path) -> None:
    """Write the words of all sentences as rows of places, and the vocabulary behind them."""
    words = _Words(_saved_vocabulary(path), path)
    num_repeats = num_cells_with_repeats = 0
    with row_spool(folder) as add_rows:
        for lengths, place_Z in _blocks(dataset, words, path):
            row_Z = np.repeat(np.arange(len(lengths)), lengths)
            is_first = _is_first(row_Z, place_Z, len(words))
            num_repeats += int(np.count_nonzero(~is_first))
            num_cells_with_repeats += len(np.unique(row_Z[~is_first]))
            kept = np.bincount(row_Z[is_first], minlength=len(lengths))
            add_rows(kept, place_Z[is_first], np.zeros(0))
    if not len(words):
        raise DataError(f"sentences must have words, got none in {path}")
    vocabulary, final = words.sorted()
    np.save(folder / PLACES, final)
    (folder / VOCABULARY).write_text(json.dumps(vocabulary), encoding="utf-8")
    counts = {
        "repeated words of sentences": num_repeats,
        "sentences with repeated words": num_cells_with_repeats,
    }
    (folder / COUNTS).write_text(json.dumps(counts), encoding="utf-8")


def _blocks(
    dataset: "datasets.Dataset", words: _Words, path: Path
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Read sentences, a block at a time: words of each, and the place of every word."""
    sentences = dataset.with_format("arrow")
    for start in range(0, dataset.num_rows, CELLS_AT_ONCE):
        with _arrow_errors(path):
            column = sentences[start : start + CELLS_AT_ONCE][SENTENCE]
            split = _split(column)
        block = split.flatten().dictionary_encode()
        places = words.places(block.dictionary.to_pylist())
        lengths = pc.list_value_length(split).to_numpy(zero_copy_only=False).astype(np.int64)
        yield lengths, places[block.indices.to_numpy(zero_copy_only=False)]


def _split(column: pa.ChunkedArray) -> pa.ListArray:
    """Split sentences at white space; one without words has an empty list."""
    texts = pc.utf8_trim_whitespace(column.combine_chunks().cast(pa.string()).fill_null(""))
    lists = pc.utf8_split_whitespace(texts)
    # Arrow splits '' into one empty word.
    is_empty = pc.equal(texts, "")
    empty = pa.array([[]], pa.list_(pa.string()))[0]
    return pc.if_else(is_empty, empty, lists.cast(pa.list_(pa.string())))


def _is_first(
    row_Z: npt.NDArray[np.int64], place_Z: npt.NDArray[np.int64], num_words: int
) -> npt.NDArray[np.bool_]:
    """Return [Z] whether a word stands there for the first time in its row."""
    _, first = np.unique(row_Z * max(num_words, 1) + place_Z, return_index=True)
    is_first = np.zeros(len(row_Z), dtype=np.bool_)
    is_first[first] = True
    return is_first


def _saved_vocabulary(path: Path) -> list[str] | None:
    file = path / VOCABULARY
    if not file.is_file():
        return None
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{VOCABULARY} must be JSON, got {error} in {file}") from error
    if not isinstance(data, dict) or not data:
        raise DataError(
            f"{VOCABULARY} must be a dictionary of genes and numbers of cells, got "
            f"{type(data).__name__} in {file}"
        )
    return list(data)
