"""Gene programs: named sets of genes that rewards and metrics look at, read from GMT files.

Three MSigDB Hallmark sets ship with the package (CC BY 4.0, see gene_sets/NOTICE.md). Symbols
stay as they are in the set; renamed ones are not looked up, so the coverage is logged.

GMT: one set a line, tab-separated: name, description (often an address), then the symbols.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from c2s_rl.cells.vocabulary import Vocabulary, shown, unknown_name
from c2s_rl.config import expand_variables
from c2s_rl.errors import ConfigError, DataError, MissingFileError
from c2s_rl.types import IntArray

SHIPPED = Path(__file__).parent / "gene_sets" / "hallmark.gmt"

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


def load_program(name_or_path: str) -> GeneProgram:
    """Load a gene program by the name of a shipped set or by 'file.gmt:SET_NAME'.

    Args:
        name_or_path: For example 'hallmark_apoptosis' or '${C2S_RL_DATA}/sets.gmt:MY_SET'.

    Raises:
        ConfigError: If the name is neither a shipped set nor 'file.gmt:SET_NAME', the file has
            no such set, or an environment variable of the path is not set.
        MissingFileError: If the file is not there.
        DataError: If the file is not GMT.
    """
    path_text, _, name = name_or_path.rpartition(":")
    if path_text:
        path = Path(expand_variables(path_text))
        programs = read_gmt(path)
        if name not in programs:
            known = sorted(programs)
            raise ConfigError(unknown_name("the gene program", name, known, str(path)))
        return programs[name]
    shipped = {key.lower(): program for key, program in read_gmt(SHIPPED).items()}
    if name.lower() not in shipped:
        raise ConfigError(
            f"a gene program must be one of {shown(sorted(shipped))} or 'file.gmt:SET_NAME', "
            f"got {name_or_path!r}"
        )
    return shipped[name.lower()]


def program_indices(program: GeneProgram, vocabulary: Vocabulary) -> IntArray:
    """Return the program's genes that are in the vocabulary, as sorted indices.

    Raises:
        DataError: If none of the program's genes is in the vocabulary.
    """
    found = [vocabulary.index_of(symbol) for symbol in program.symbols]
    known = sorted(index for index in found if index is not None)
    if not known:
        raise DataError(
            f"a gene program must share genes with the vocabulary, got none of the "
            f"{len(program.symbols)} of {program.name} ({shown(program.symbols)}) "
            f"among {len(vocabulary)} symbols; check gene_case and the organism"
        )
    logger.info(
        "%s: %d of %d genes are in the vocabulary", program.name, len(known), len(program.symbols)
    )
    return np.array(known, dtype=np.int32)
