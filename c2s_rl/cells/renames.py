"""Renamed gene symbols: one gene under its present and its former names, in either direction.

HGNC renames genes (DDX58 is RIGI now), so a program from one year misses genes of a data set from
another. The shipped table (`gene_sets/hgnc_renamed.tsv.gz`, CC0) gives each former symbol the
approved ones that had it. A name that was given to several genes, or that is itself an approved
symbol today, is never guessed. Aliases (names that were never official) are left out: many belong
to several genes. Ids (Entrez, Ensembl) are left out too; see `c2s_rl/data/side_tables.py`.
"""

import gzip
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

TABLE = Path(__file__).parent / "gene_sets" / "hgnc_renamed.tsv.gz"


@dataclass(frozen=True, eq=False)
class Renames:
    """Which symbols name the same gene."""

    approved_of: Mapping[str, tuple[str, ...]]
    """Former symbol to the approved symbols that had it; itself among them where it is one."""
    former_of: Mapping[str, tuple[str, ...]] = field(init=False)
    """Approved symbol to the former symbols that were its own alone."""

    def __post_init__(self) -> None:
        """Turn the table round, without the ambiguous names."""
        former: defaultdict[str, list[str]] = defaultdict(list)
        for name, approved in self.approved_of.items():
            if len(approved) == 1:
                former[approved[0]].append(name)
        turned = {symbol: tuple(names) for symbol, names in former.items()}
        object.__setattr__(self, "former_of", turned)

    def other_names(self, symbol: str) -> tuple[str, ...]:
        """Return the other symbols that can only mean the same gene, the approved one first.

        Empty for an ambiguous symbol, and for one that was never renamed.
        """
        approved = self.approved_of.get(symbol, (symbol,))
        if symbol in approved:  # in use today, so it stands for no other gene
            approved = (symbol,)
        if len(approved) > 1:
            return ()
        names = (*approved, *self.former_of.get(approved[0], ()))
        return tuple(name for name in names if name != symbol)

    def possible_genes(self, symbol: str) -> tuple[str, ...]:
        """Return the approved symbols that a former symbol may mean, where there are several."""
        approved = self.approved_of.get(symbol, ())
        return approved if len(approved) > 1 and symbol not in approved else ()


@cache
def shipped_renames() -> Renames:
    """Read the shipped table, once a process."""
    with gzip.open(TABLE, "rt", encoding="utf-8") as file:
        next(file)  # the names of the two columns
        rows = (line.rstrip("\n").split("\t") for line in file)
        return Renames({former: tuple(approved.split("|")) for former, approved in rows})
