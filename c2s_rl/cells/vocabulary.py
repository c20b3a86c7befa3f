"""Which gene symbols exist and how the columns of a matrix map onto them.

A vocabulary is the ordered list of symbols that may stand in a cell sentence; everywhere else a
gene is its index here. Case stays as in the file unless upper case is asked for, and then the
spelling of the file is kept beside it. Left out: other names of a gene (`renames.py`) and ids in
place of symbols (`c2s_rl/data/side_tables.py`).
"""

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

import numpy as np

from c2s_rl.errors import DataError
from c2s_rl.types import IntArray

NUM_SHOWN = 5  # names listed in an error: enough to recognise the problem, still one line

# Ensembl gene ids of any species, with or without version: ENSG00000187608.10, ENSMUSG00000035692.
ENSEMBL_GENE = re.compile(r"ENS[A-Z]{0,4}G\d{11}(\.\d+)?")


class GeneCase(StrEnum):
    """How symbols are written in sentences."""

    KEEP = "keep"
    UPPER = "upper"


class Duplicates(StrEnum):
    """What to do with columns that share a symbol."""

    ERROR = "error"
    SUM = "sum"
    FIRST = "first"


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The symbols of a data set, in order; unique, without white space."""

    symbols: tuple[str, ...]
    """[N] as written in cell sentences."""
    original: tuple[str, ...]
    """[N] as written in the file; differs from `symbols` only in case."""

    def __post_init__(self) -> None:
        """Check what every index into this vocabulary relies on.

        Raises:
            DataError: If the two spellings differ in number or a symbol repeats.
        """
        if len(self.symbols) != len(self.original):
            raise DataError(
                "a vocabulary must give each symbol its spelling in the file, "
                f"got {len(self.symbols)} symbols and {len(self.original)} spellings"
            )
        if len(self._index) != len(self.symbols):
            raise DataError(f"symbols must be unique, got {_repeated(self.symbols)} more than once")

    def __len__(self) -> int:
        return len(self.symbols)

    @cached_property
    def _index(self) -> dict[str, int]:
        return {symbol: index for index, symbol in enumerate(self.symbols)}

    def index_of(self, symbol: str) -> int | None:
        """Return the index of a symbol as written in sentences, or None if it is not a gene."""
        return self._index.get(symbol)

    def indices(self, symbols: Iterable[str]) -> IntArray:
        """Return the indices of symbols, in the order given.

        Raises:
            DataError: Naming the symbols that are not in the vocabulary.
        """
        wanted = list(symbols)
        unknown = [symbol for symbol in wanted if symbol not in self._index]
        if unknown:
            near = difflib.get_close_matches(unknown[0], self.symbols, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise DataError(
                f"a gene must be one of the {len(self)} symbols of the vocabulary, "
                f"got {shown(unknown)}{hint}"
            )
        return np.array([self._index[symbol] for symbol in wanted], dtype=np.int32)


@dataclass(frozen=True, eq=False)
class GeneColumns:
    """A vocabulary and the way from matrix columns to it."""

    vocabulary: Vocabulary
    gene_of_column: IntArray
    """[columns] vocabulary index of each matrix column; -1 for a column that is left out."""
    num_duplicate_columns: int
    """Columns that were added to, or left out for, an earlier column of the same symbol."""

    @cached_property
    def adds_columns(self) -> bool:
        """Whether several columns are added up to one gene."""
        genes = self.gene_of_column[self.gene_of_column >= 0]
        return len(np.unique(genes)) < len(genes)

    @cached_property
    def is_one_to_one(self) -> bool:
        """Whether every column is its own gene, in the order of the vocabulary."""
        return np.array_equal(self.gene_of_column, np.arange(len(self.vocabulary)))

    def of(self, vocabulary: Vocabulary) -> "GeneColumns":
        """Name the columns by another vocabulary; those of genes that it lacks are left out."""
        if vocabulary.symbols == self.vocabulary.symbols:
            return self
        found = [vocabulary.index_of(symbol) for symbol in self.vocabulary.symbols]
        # The last entry stands for columns that are left out already: gene -1.
        index = np.array([*(-1 if i is None else i for i in found), -1], dtype=np.int32)
        return GeneColumns(vocabulary, index[self.gene_of_column], self.num_duplicate_columns)

    def restricted(self, indices: IntArray) -> "GeneColumns":
        """Keep some genes only; the columns of the others are left out.

        Args:
            indices: Rising vocabulary indices, at least one.
        """
        symbols, original = self.vocabulary.symbols, self.vocabulary.original
        kept = indices.tolist()
        # The last entry stands for columns that are left out already: gene -1.
        new_index = np.full(len(symbols) + 1, -1, dtype=np.int32)
        new_index[indices] = np.arange(len(kept), dtype=np.int32)
        vocabulary = Vocabulary(
            symbols=tuple(symbols[i] for i in kept), original=tuple(original[i] for i in kept)
        )
        return GeneColumns(vocabulary, new_index[self.gene_of_column], self.num_duplicate_columns)


def build_vocabulary(
    var_names: Sequence[str],
    *,
    gene_case: GeneCase,
    duplicates: Duplicates,
    source: str = "var_names",
) -> GeneColumns:
    """Make the vocabulary of a matrix from the names of its columns.

    Args:
        var_names: [columns] gene symbols as in the file.
        gene_case: `upper` writes symbols in upper case and keeps the spelling of the file.
        duplicates: `sum` maps all columns of a symbol to one gene, `first` leaves later ones out.
        source: Where the names come from, for error messages.

    Returns:
        Symbols in the order of their first column, and the gene of each column.

    Raises:
        DataError: If a symbol is empty or has white space, most names are Ensembl ids, or a
            symbol repeats (after the change of case) and `duplicates` is `error`.
    """
    _check_names(var_names, source)
    written = [n.upper() if gene_case is GeneCase.UPPER else n for n in var_names]
    if len(set(written)) == len(written):
        vocabulary = Vocabulary(symbols=tuple(written), original=tuple(var_names))
        return GeneColumns(vocabulary, np.arange(len(written), dtype=np.int32), 0)
    index: dict[str, int] = {}
    original: list[str] = []
    gene_of_column = np.empty(len(written), dtype=np.int32)
    repeated: list[str] = []
    for column, (name, symbol) in enumerate(zip(var_names, written, strict=True)):
        is_repeat = symbol in index
        if is_repeat:
            repeated.append(name)
        else:
            index[symbol] = len(index)
            original.append(name)
        is_left_out = is_repeat and duplicates is Duplicates.FIRST
        gene_of_column[column] = -1 if is_left_out else index[symbol]
    if repeated and duplicates is Duplicates.ERROR:
        case = " in upper case" if gene_case is GeneCase.UPPER else ""
        raise DataError(
            f"gene symbols must be unique{case}, got {len(repeated)} repeated "
            f"({shown(repeated)}) in {source}; set duplicates: sum or first to allow them"
        )
    vocabulary = Vocabulary(symbols=tuple(index), original=tuple(original))
    return GeneColumns(vocabulary, gene_of_column, num_duplicate_columns=len(repeated))


def shown(names: Sequence[str]) -> str:
    """Write the first few names of a list for an error message."""
    more = f" and {len(names) - NUM_SHOWN} more" if len(names) > NUM_SHOWN else ""
    return ", ".join(repr(name) for name in names[:NUM_SHOWN]) + more


def unknown_name(what: str, name: str, known: Sequence[str], place: str) -> str:
    """Write the message for a name that is not among the known ones; ends with the nearest."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{what} must be one of {shown(known) or 'none'}, got {name!r} in {place}{hint}"


def _check_names(var_names: Sequence[str], source: str) -> None:
    if not var_names:
        raise DataError(f"a matrix must have at least one gene, got none in {source}")
    # A sentence is split on white space, so a symbol with a space would be read back as two words.
    if " ".join(var_names).split() != list(var_names):
        broken = [name for name in var_names if name.split() != [name]]
        raise DataError(
            f"a gene symbol must be one word without spaces, got {shown(broken)} in {source}"
        )
    ensembl = [n for n in var_names if n.startswith("ENS") and ENSEMBL_GENE.fullmatch(n)]
    # A few clones without a symbol are normal; a matrix named by ids is not.
    if 2 * len(ensembl) > len(var_names):
        raise DataError(
            f"genes must be named by symbols, got Ensembl ids ({shown(ensembl)}) in {source}; "
            "name the var column that holds symbols as symbol_column, or a table of genes as "
            "symbols.table"
        )


def _repeated(symbols: Sequence[str]) -> str:
    return shown([symbol for symbol, num in Counter(symbols).items() if num > 1])
