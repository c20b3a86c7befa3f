"""Tasks about named gene sets: a name in and its genes out, and the reverse; no cells.

A set has no order, so genes are written in one drawn by (seed, set, draw): no rank can be learnt
that is not there. Both directions of a set stand on the same side of the held-out line. Left out:
near copies of a set in another collection, which are other sets here.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from c2s_rl.cells.programs import SHIPPED, match_program, read_gmt
from c2s_rl.cells.rank import stable_hash
from c2s_rl.cells.renames import shipped_renames
from c2s_rl.cells.vocabulary import Vocabulary, shown
from c2s_rl.config import expand_variables
from c2s_rl.data.corpus_config import CorpusConfig
from c2s_rl.data.corpus_sections import GeneSetConfig, NameForm
from c2s_rl.data.drafts import Draft, Drafted, Material
from c2s_rl.errors import ConfigError, DataError
from c2s_rl.types import Split, Task

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NamedSet:
    """A gene set as prompts write it."""

    set_name: str
    """As in the file; unique over all files."""
    collection: str
    """Name of the file, without suffix."""
    symbols: tuple[str, ...]
    """Its genes, spelled as in cell sentences where the vocabulary has them."""


def draft_gene_sets(material: Material, task: Task, config: CorpusConfig) -> Drafted:
    """Make the prompts of every set, in one direction.

    Left out and counted: 'genes_not_in_vocabulary', 'gene_sets_too_small' (sets), and
    'genes_over_cap' (of each prompt).

    Raises:
        MissingFileError: If a GMT file is not there.
        DataError: If a set's name is in two files, or no set has enough known genes.
    """
    settings = config.gene_sets
    if settings is None:
        raise ConfigError(f"{task} needs section gene_sets, got None")
    dropped: Counter[str] = Counter()
    sets = _read_sets(settings, material.vocabulary, dropped)
    test = _held_out([s.set_name for s in sets], settings.test_fraction, config.seed)
    drafts: list[Draft] = []
    for one in sets:
        side = Split.TEST if one.set_name in test else Split.TRAIN
        for draw in range(settings.draws):
            generator = np.random.default_rng(
                stable_hash(f"gene set|{one.set_name}|{draw}", config.seed)
            )
            order = generator.permutation(len(one.symbols))[: settings.max_genes].tolist()
            dropped["genes_over_cap"] += len(one.symbols) - len(order)
            symbols = tuple(one.symbols[i] for i in order)
            drafts.append(_draft(task, one, draw, symbols, side, settings, material.vocabulary))
    return Drafted(drafts, dropped)


def readable(name: str, form: NameForm) -> str:
    """Write a set's name as prompts say it: 'HALLMARK_DNA_REPAIR' -> 'hallmark dna repair'."""
    return " ".join(name.lower().split("_")) if form is NameForm.WORDS else name


def gene_set_files(settings: GeneSetConfig) -> tuple[Path, ...]:
    """List the GMT files of a config, variables replaced; the shipped ones without any."""
    return tuple(Path(expand_variables(str(path))) for path in settings.paths) or SHIPPED


def _read_sets(
    settings: GeneSetConfig, vocabulary: Vocabulary, dropped: Counter[str]
) -> list[NamedSet]:
    """Read all sets with enough genes, sorted by name."""
    renames = shipped_renames()
    files = gene_set_files(settings)
    found: dict[str, NamedSet] = {}
    too_small: list[str] = []
    first_file: dict[str, Path] = {}
    for file in files:
        for name, program in read_gmt(file).items():
            if name in first_file:
                raise DataError(
                    f"gene-set names must be unique, got {name!r} in {first_file[name]} and {file}"
                )
            first_file[name] = file
            genes = match_program(program, vocabulary, renames)
            known = [genes.renamed.get(s, s) for s in program.symbols]
            symbols = tuple(dict.fromkeys(s for s in known if _is_kept(s, vocabulary, settings)))
            dropped["genes_not_in_vocabulary"] += len(program.symbols) - len(symbols)
            if len(symbols) < settings.min_genes:
                too_small.append(name)
                continue
            found[name] = NamedSet(name, file.stem, symbols)
    dropped["gene_sets_too_small"] += len(too_small)
    if not found:
        raise DataError(
            f"a gene set must have min_genes = {settings.min_genes} genes of the vocabulary, got "
            f"none of {len(too_small)} that has in {', '.join(str(file) for file in files)}; "
            "check gene_case and the organism"
        )
    if too_small:
        log.info("gene sets of fewer than %d known genes: %s", settings.min_genes, shown(too_small))
    return [found[name] for name in sorted(found)]


def _is_kept(symbol: str, vocabulary: Vocabulary, settings: GeneSetConfig) -> bool:
    return not settings.only_vocabulary or vocabulary.index_of(symbol) is not None


def _held_out(names: Sequence[str], fraction: float, seed: int) -> frozenset[str]:
    """Draw the sets of the test side: the nearest whole number to the fraction, at least one.

    Raises:
        DataError: If there are fewer than two sets to divide.
    """
    if not fraction:
        return frozenset()
    if len(names) < 2:
        raise DataError(
            f"gene_sets.test_fraction must divide 2 sets or more, got {len(names)} with {fraction}"
        )
    num_test = min(max(1, round(fraction * len(names))), len(names) - 1)
    order = sorted(names, key=lambda name: stable_hash(f"gene set|{name}", seed))
    return frozenset(order[:num_test])


def _draft(
    task: Task,
    one: NamedSet,
    draw: int,
    symbols: tuple[str, ...],
    side: Split,
    settings: GeneSetConfig,
    vocabulary: Vocabulary,
) -> Draft:
    name, genes = readable(one.set_name, settings.names), " ".join(symbols)
    is_naming = task is Task.GENE_SET_NAMING
    indices = [vocabulary.index_of(symbol) for symbol in symbols]
    words = {"genes": genes} if is_naming else {"gene_set": name}
    return Draft(
        prompt_id=f"{task}/{one.set_name}/{draw}",
        task=task,
        condition=one.collection,
        split=side,
        words={**words, "num_genes": str(len(symbols))},
        answer=name if is_naming else genes,
        target_genes=() if is_naming else tuple(i for i in indices if i is not None),
    )
