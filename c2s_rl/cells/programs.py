"""Gene programs: named sets of genes that rewards and metrics look at, read from GMT files.

Four MSigDB sets ship with the package (CC BY 4.0, see gene_sets/NOTICE.md). Symbols stay as they
are in the set; one that a data set writes under another of the gene's names is found by
`renames.py`, and what was found, renamed, ambiguous or absent is reported.

GMT: one set a line, tab-separated: name, description (often an address), then the symbols.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from c2s_rl.cells.renames import Renames, shipped_renames
from c2s_rl.cells.vocabulary import Vocabulary, shown, unknown_name
from c2s_rl.config import expand_variables
from c2s_rl.errors import ConfigError, DataError, MissingFileError
from c2s_rl.types import IntArray

SHIPPED = tuple(
    Path(__file__).parent / "gene_sets" / name for name in ("hallmark.gmt", "reactome.gmt")
)
LIST_SUFFIX = ".txt"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class GeneProgram:
    """A named set of genes."""

    name: str
    symbols: tuple[str, ...]
    """In the order of the file, each once."""
    source: str
    """The set's own description: for MSigDB, the address of its card."""


def read_gmt(path: Path) -> dict[str, GeneProgram]:
    """Read every set of a GMT file.

    Raises:
        MissingFileError: If there is no such file.
        DataError: If a line has no genes or a set's name repeats.
    """
    if not path.is_file():
        raise MissingFileError(f"a gene-set file must exist, got {path}")
    programs: dict[str, GeneProgram] = {}
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        name, *rest = (part.strip() for part in line.split("\t"))
        symbols = tuple(dict.fromkeys(symbol for symbol in rest[1:] if symbol))
        if not symbols:
            raise DataError(
                "a GMT line must hold name, description and genes separated by tabs, "
                f"got {line[:60]!r} in {path} line {number}"
            )
        if name in programs:
            raise DataError(f"gene-set names must be unique, got {name!r} twice in {path}")
        programs[name] = GeneProgram(name=name, symbols=symbols, source=rest[0])
    return programs


@dataclass(frozen=True, eq=False)
class ProgramGenes:
    """Where the genes of a program stand in a vocabulary."""

    program: GeneProgram
    indices: IntArray
    """[N] sorted vocabulary indices, each once."""
    renamed: Mapping[str, str]
    """Symbol of the set to another name of the same gene, under which the vocabulary has it."""
    ambiguous: tuple[str, ...]
    """Symbols of the set that could mean more than one gene of the vocabulary; left out."""
    absent: tuple[str, ...]
    """Symbols of the set whose gene the vocabulary has under no known name."""

    @property
    def coverage(self) -> float:
        """Share of the set's symbols that were found, under either name."""
        missing = len(self.ambiguous) + len(self.absent)
        return 1 - missing / len(self.program.symbols)


def program_path(name_or_path: str) -> str:
    """Return the file of a gene program as it is named, with variables; '' for a shipped set."""
    return _split(name_or_path)[0]


def _split(name_or_path: str) -> tuple[str, str | None]:
    """Return the file of a program, '' for a shipped set, and the set in it, None for a list."""
    if name_or_path.endswith(LIST_SUFFIX):
        return name_or_path, None
    path_text, _, name = name_or_path.rpartition(":")
    return path_text, name


def load_program(name_or_path: str) -> GeneProgram:
    """Load a gene program: a shipped set, a set of a GMT file, or a plain list of symbols.

    Args:
        name_or_path: For example 'hallmark_apoptosis', '${C2S_RL_DATA}/sets.gmt:MY_SET', or
            'genes.txt' with one symbol a line.

    Raises:
        ConfigError: If the name is neither a shipped set nor 'file.gmt:SET_NAME', the file has
            no such set, or an environment variable of the path is not set.
        MissingFileError: If the file is not there.
        DataError: If the file is not GMT, or a list without symbols.
    """
    path_text, name = _split(name_or_path)
    if name is None:
        return _read_list(Path(expand_variables(path_text)))
    if path_text:
        path = Path(expand_variables(path_text))
        programs = read_gmt(path)
        if name not in programs:
            known = sorted(programs)
            raise ConfigError(unknown_name("the gene program", name, known, str(path)))
        return programs[name]
    shipped = {key.lower(): program for path in SHIPPED for key, program in read_gmt(path).items()}
    if name.lower() not in shipped:
        raise ConfigError(
            f"a gene program must be one of {shown(sorted(shipped))} or 'file.gmt:SET_NAME', "
            f"got {name_or_path!r}"
        )
    return shipped[name.lower()]


def find_program(
    program: GeneProgram, vocabulary: Vocabulary, renames: Renames | None = None
) -> ProgramGenes:
    """Find the program's genes in a vocabulary, also under their former or present names.

    Args:
        program: The set.
        vocabulary: Symbols of the data.
        renames: Names of the same gene; None takes the shipped table.

    Raises:
        DataError: If none of the program's genes is in the vocabulary.
    """
    found = match_program(program, vocabulary, renames or shipped_renames())
    if not len(found.indices):
        raise DataError(
            f"a gene program must share genes with the vocabulary, got none of the "
            f"{len(program.symbols)} of {program.name} ({shown(program.symbols)}) "
            f"among {len(vocabulary)} symbols; check gene_case and the organism"
        )
    return found


def match_program(program: GeneProgram, vocabulary: Vocabulary, renames: Renames) -> ProgramGenes:
    """Find the program's genes in a vocabulary; none is no error.

    A symbol of the vocabulary is taken as it is. One that is not there is looked up under the
    gene's other names, and taken when exactly one of them is there.
    """
    indices: set[int] = set()
    renamed: dict[str, str] = {}
    ambiguous: list[str] = []
    absent: list[str] = []
    for symbol in program.symbols:
        if vocabulary.index_of(symbol) is None:
            names = _names_in(vocabulary, renames, symbol)
            if len(names) != 1:
                (ambiguous if names else absent).append(symbol)
                continue
            renamed[symbol] = names[0]
        indices.update(vocabulary.indices([renamed.get(symbol, symbol)]).tolist())
    found = np.array(sorted(indices), dtype=np.int32)
    return ProgramGenes(program, found, renamed, tuple(ambiguous), tuple(absent))


def program_indices(program: GeneProgram, vocabulary: Vocabulary) -> IntArray:
    """Return the program's genes that are in the vocabulary, as sorted indices; log the coverage.

    Raises:
        DataError: If none of the program's genes is in the vocabulary.
    """
    genes = find_program(program, vocabulary)
    logger.info(
        "%s: %d of %d genes are in the vocabulary (%d under another name: %s; ambiguous: %s; "
        "absent: %s)",
        program.name,
        len(genes.indices),
        len(program.symbols),
        len(genes.renamed),
        shown([f"{old} as {new}" for old, new in genes.renamed.items()]) or "none",
        shown(genes.ambiguous) or "none",
        shown(genes.absent) or "none",
    )
    return genes.indices


def _names_in(vocabulary: Vocabulary, renames: Renames, symbol: str) -> list[str]:
    """Return the names of the vocabulary that a symbol, itself absent, may stand for."""
    names = renames.other_names(symbol)
    if not names:
        # An ambiguous name is reported as such where one of its genes is there; never taken.
        genes = [s for s in renames.possible_genes(symbol) if vocabulary.index_of(s) is not None]
        return [*genes, symbol] if genes else []
    return [name for name in names if vocabulary.index_of(name) is not None]


def _read_list(path: Path) -> GeneProgram:
    if not path.is_file():
        raise MissingFileError(f"a gene list must exist, got {path}")
    symbols = tuple(dict.fromkeys(path.read_text(encoding="utf-8").split()))
    if not symbols:
        raise DataError(f"a gene list must hold symbols, one a line, got none in {path}")
    return GeneProgram(name=path.stem, symbols=symbols, source=str(path))
