"""Naming the genes of a file by approved symbols: from ids, former symbols and, if asked, aliases.

Every gene ends in one of six ways (`How`), is counted, and stands with its candidates in a report.
Nothing is guessed: a name that may mean several genes stays unresolved.

Shapes: N genes.
"""

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pydantic import Field

from c2s_rl.cells.vocabulary import shown
from c2s_rl.config import FrozenConfig
from c2s_rl.data.symbol_table import ENSEMBL_ID, ENTREZ_ID, SymbolTable, read_symbol_table
from c2s_rl.errors import DataError


class IdKind(StrEnum):
    """What the genes of a file are named by."""

    AUTO = "auto"
    SYMBOL = "symbol"
    ENSEMBL = "ensembl"
    ENTREZ = "entrez"


class Unresolved(StrEnum):
    """What becomes of a gene that no symbol is found for."""

    KEEP = "keep"
    DROP = "drop"
    ERROR = "error"


class SymbolsConfig(FrozenConfig):
    """How genes get their approved symbols."""

    table: str = Field(
        description="HGNC's table (symbol, entrez_id, ensembl_gene_id, prev_symbol, alias_symbol), "
        "one like it of another species, or a gene_info table; may use ${VARIABLES}"
    )
    id: IdKind = Field(
        IdKind.AUTO,
        description="Look genes up as symbol, ensembl or entrez; auto tries the ids that stand "
        "beside the names, then the names, each by its look",
    )
    id_column: str | None = Field(
        None,
        description="Column of genes with the ids; null takes 10x's feature ids, L1000's "
        "pr_gene_id or gene_id, and elsewhere the names themselves",
    )
    aliases: bool = Field(
        default=False,
        description="Resolve a name that is nobody's symbol by aliases, where only one fits",
    )
    unresolved: Unresolved = Field(
        Unresolved.KEEP, description="keep leaves the name of the file, drop leaves the gene out"
    )


class How(StrEnum):
    """How a gene came by its symbol."""

    ID = "id"
    APPROVED = "approved"
    PREVIOUS = "previous"
    ALIAS = "alias"
    AMBIGUOUS = "ambiguous"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class NamedGene:
    """One gene of the file."""

    name: str
    """As the file names it."""
    gene_id: str
    """The id beside it; '' where the file has none."""
    symbol: str
    """What it is called from here on; '' where it is dropped."""
    how: How
    candidates: tuple[str, ...] = ()
    """Ambiguous: the symbols that it may mean. Unknown: those that have it as an alias."""


@dataclass(frozen=True, eq=False)
class SymbolReport:
    """What became of the genes of a file."""

    genes: tuple[NamedGene, ...]
    """[N] in the order of the file."""
    table: str
    """The table, as the config names it."""

    @property
    def counts(self) -> dict[How, int]:
        """Genes by how they were named."""
        counts = Counter(gene.how for gene in self.genes)
        return {how: counts[how] for how in How}

    @property
    def num_dropped(self) -> int:
        """Genes that are left out."""
        return sum(not gene.symbol for gene in self.genes)

    @property
    def num_resolved(self) -> int:
        """Genes that have an approved symbol."""
        counts = self.counts
        return len(self.genes) - counts[How.AMBIGUOUS] - counts[How.UNKNOWN]

    @property
    def line(self) -> str:
        """The report in one line."""
        counts = ", ".join(f"{num} {how}" for how, num in self.counts.items() if num)
        ambiguous = [
            f"{gene.name} ({' or '.join(gene.candidates)})"
            for gene in self.genes
            if gene.how is How.AMBIGUOUS
        ]
        listed = f"; ambiguous: {shown(ambiguous)}" if ambiguous else ""
        return (
            f"{self.num_resolved} of {len(self.genes)} genes have an approved symbol ({counts}), "
            f"{self.num_dropped} are left out{listed}"
        )

    def write(self, path: Path) -> None:
        """Write one line a gene, separated by tabs."""
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter="\t", lineterminator="\n")
            writer.writerow(["name", "id", "symbol", "how", "candidates"])
            for gene in self.genes:
                candidates = "|".join(gene.candidates)
                writer.writerow([gene.name, gene.gene_id, gene.symbol, gene.how, candidates])


def resolve_symbols(
    config: SymbolsConfig, names: Sequence[str], gene_ids: Sequence[str], *, place: str
) -> SymbolReport:
    """Name the genes of a file.

    Args:
        config: Table and rules.
        names: [N] as in the file.
        gene_ids: [N] ids beside them, '' where missing; empty where the file has none.
        place: The file, for messages.

    Raises:
        MissingFileError: If there is no such table.
        DataError: If the table is no table of genes, none of the genes is in it, or a gene stays
            unresolved and `unresolved` is error.
    """
    table = read_symbol_table(config.table)
    ids = gene_ids or [""] * len(names)
    found = [
        _resolve(config, table, name, gene_id) for name, gene_id in zip(names, ids, strict=True)
    ]
    report = SymbolReport(tuple(found), config.table)
    if not report.num_resolved:
        tried = [gene for gene in ids if gene] or list(names)
        raise DataError(
            f"a table of genes must know the genes of a file, got none of {shown(tried)} of "
            f"{place} in {table.path}"
        )
    if config.unresolved is Unresolved.ERROR:
        _require_resolved(report, place)
    return report


def _resolve(config: SymbolsConfig, table: SymbolTable, name: str, gene_id: str) -> NamedGene:
    """Find the symbol of one gene: by its id, then by its name."""
    best = NamedGene(name, gene_id, "", How.UNKNOWN)
    texts: tuple[str, ...]
    match config.id:
        case IdKind.AUTO:
            texts = (gene_id, name)
        case IdKind.SYMBOL:
            texts = (name,)
        case _:
            texts = (gene_id or name,)
    for text in filter(None, texts):
        how, candidates = _look_up(config, table, text)
        if how not in (How.UNKNOWN, How.AMBIGUOUS):
            return NamedGene(name, gene_id, candidates[0], how)
        if candidates and not best.candidates:
            best = NamedGene(name, gene_id, "", how, candidates)
    symbol = "" if config.unresolved is Unresolved.DROP else name
    return NamedGene(name, gene_id, symbol, best.how, best.candidates)


def _look_up(config: SymbolsConfig, table: SymbolTable, text: str) -> tuple[How, tuple[str, ...]]:
    """Return how a text leads to symbols, and to which."""
    ensembl, entrez = ENSEMBL_ID.fullmatch(text), ENTREZ_ID.fullmatch(text)
    if ensembl and config.id in (IdKind.AUTO, IdKind.ENSEMBL):
        return _by_id(table.of_ensembl.get(ensembl[1], ()))
    if entrez and config.id in (IdKind.AUTO, IdKind.ENTREZ):
        return _by_id(table.of_entrez.get(entrez[1], ()))
    if config.id in (IdKind.AUTO, IdKind.SYMBOL):
        return _by_name(table, text, may_be_alias=config.aliases)
    return How.UNKNOWN, ()


def _by_id(symbols: tuple[str, ...]) -> tuple[How, tuple[str, ...]]:
    if len(symbols) == 1:
        return How.ID, symbols
    return (How.AMBIGUOUS if symbols else How.UNKNOWN), symbols


def _by_name(table: SymbolTable, text: str, *, may_be_alias: bool) -> tuple[How, tuple[str, ...]]:
    if text in table.approved:
        return How.APPROVED, (text,)
    previous = table.of_previous.get(text, ())
    if previous:
        return (How.PREVIOUS if len(previous) == 1 else How.AMBIGUOUS), previous
    aliases = table.of_alias.get(text.lower(), ())
    if not may_be_alias or not aliases:
        return How.UNKNOWN, aliases
    return (How.ALIAS if len(aliases) == 1 else How.AMBIGUOUS), aliases


def _require_resolved(report: SymbolReport, place: str) -> None:
    open_ones = [gene for gene in report.genes if gene.how in (How.AMBIGUOUS, How.UNKNOWN)]
    if open_ones:
        listed = [
            gene.name + (f" ({' or '.join(gene.candidates)})" if gene.candidates else "")
            for gene in open_ones
        ]
        raise DataError(
            f"every gene must have one approved symbol in {report.table}, got {len(open_ones)} "
            f"without ({shown(listed)}) in {place}; set symbols.unresolved: keep or drop"
        )
