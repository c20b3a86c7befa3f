"""Tasks about pairs of genes that interact: does A interact with B, and with which does A.

    gene_interaction  two genes -> 'Yes' or 'No'; each pair of the file has a 'No' of its own
    gene_partners     a gene -> the genes that it interacts with

Interaction has no direction here: (A, B) and (B, A) are one pair, on one side of the held-out line.
Partners of a side are those of its pairs, so a held-out partner is in no list that trains. A 'No'
keeps one gene of the pair and draws the other as often as it stands in the file, so that the answer
cannot be told from how well known a gene is. Source: C2S-Scale, section 4.6 (CellPhoneDB, BioGRID).
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from c2s_rl.cells.programs import GeneProgram, match_program
from c2s_rl.cells.rank import stable_hash
from c2s_rl.cells.renames import shipped_renames
from c2s_rl.cells.vocabulary import Vocabulary, shown
from c2s_rl.config import expand_variables
from c2s_rl.data.corpus_config import CorpusConfig
from c2s_rl.data.downstream_sections import GeneInteractionConfig
from c2s_rl.data.drafts import Draft, Drafted, Material
from c2s_rl.data.text_table import DELIMITERS, TextColumns, read_pairs
from c2s_rl.errors import ConfigError, DataError, MissingFileError
from c2s_rl.types import Split, Task

COLUMNS = TextColumns("gene_a", "gene_b", "a file of gene interactions")
YES, NO = "Yes", "No"
MOST_TRIES = 100
"""Draws of a gene that interacts with nothing kept, before all genes are gone through."""

Pair = tuple[str, str]
"""Two different symbols as in cell sentences, sorted."""

log = logging.getLogger(__name__)


def draft_interactions(material: Material, task: Task, config: CorpusConfig) -> Drafted:
    """Make the prompts of one of the two tasks.

    Left out and counted: 'interactions_not_in_vocabulary', 'interactions_with_itself' and
    'interactions_repeated' (rows), 'interactions_without_negative' (pairs), 'partners_over_cap'
    (genes of lists).

    Raises:
        MissingFileError: If there is no such file.
        DataError: If a row is no pair, or no pair is of two genes of the vocabulary.
    """
    settings = config.gene_interactions
    if settings is None:
        raise ConfigError(f"{task} needs section gene_interactions, got None")
    dropped: Counter[str] = Counter()
    file = interactions_file(settings.path)
    pairs = read_interactions(file, material.vocabulary, dropped)
    test = _held_out(pairs, settings.test_fraction, config.seed)
    if task is Task.GENE_INTERACTION:
        return Drafted(_questions(pairs, test, config.seed, dropped), dropped)
    return Drafted(
        _lists(pairs, test, material.vocabulary, settings, config.seed, file.stem, dropped), dropped
    )


def interactions_file(path: Path) -> Path:
    """Return the file of interactions, variables replaced.

    Raises:
        MissingFileError: If there is no such file.
    """
    file = Path(expand_variables(str(path)))
    if not file.is_file():
        raise MissingFileError(f"gene_interactions.path must be a file that exists, got {file}")
    return file


def read_interactions(
    file: Path, vocabulary: Vocabulary, dropped: Counter[str]
) -> tuple[Pair, ...]:
    """Read the pairs of genes that the vocabulary has, under either name, sorted, each once.

    The first row of a text table is a header where the vocabulary knows neither of its words.

    Raises:
        DataError: If a row is no pair, or no pair is known.
    """
    rows = [(number, a.strip(), b.strip()) for number, (a, b) in read_pairs(file, COLUMNS)]
    blank = [number for number, a, b in rows if not a or not b]
    if blank:
        raise DataError(f"a row must name two genes, got one in row {blank[0]} of {file}")
    symbols = tuple(dict.fromkeys(symbol for _, *pair in rows for symbol in pair))
    if not symbols:
        raise DataError(f"{COLUMNS.what} must hold at least one pair, got none in {file}")
    genes = match_program(GeneProgram(file.stem, symbols, str(file)), vocabulary, shipped_renames())
    known = {s: genes.renamed.get(s, s) for s in symbols}
    for symbol in (*genes.absent, *genes.ambiguous):
        del known[symbol]
    if file.suffix in DELIMITERS and rows[0][1] not in known and rows[0][2] not in known:
        log.info("the first row of %s is taken for a header: %s, %s", file, *rows[0][1:])
        rows = rows[1:]
    pairs: set[Pair] = set()
    for _, a, b in rows:
        if a not in known or b not in known:
            dropped["interactions_not_in_vocabulary"] += 1
        elif known[a] == known[b]:
            dropped["interactions_with_itself"] += 1
        elif (pair := _sorted(known[a], known[b])) in pairs:
            dropped["interactions_repeated"] += 1
        else:
            pairs.add(pair)
    if not pairs:
        raise DataError(
            f"an interaction must be of two different genes of the vocabulary, got none in "
            f"{len(rows)} rows of {file} ({shown(symbols)}); check gene_case and the organism"
        )
    log.info("%s: %d pairs, %d of %d genes are known", file, len(pairs), len(known), len(symbols))
    return tuple(sorted(pairs))


def _sorted(a: str, b: str) -> Pair:
    return (a, b) if a < b else (b, a)


def _held_out(pairs: Sequence[Pair], fraction: float, seed: int) -> frozenset[Pair]:
    """Draw the pairs of the test side: the nearest whole number to the fraction, at least one."""
    if not fraction:
        return frozenset()
    if len(pairs) < 2:
        raise DataError(
            f"gene_interactions.test_fraction must divide 2 pairs or more, got {len(pairs)}"
        )
    num_test = min(max(1, round(fraction * len(pairs))), len(pairs) - 1)
    order = sorted(pairs, key=lambda pair: stable_hash(f"interaction|{'|'.join(pair)}", seed))
    return frozenset(order[:num_test])


def _questions(
    pairs: Sequence[Pair], test: frozenset[Pair], seed: int, dropped: Counter[str]
) -> list[Draft]:
    """Ask about every pair, and about one that is not in the file for each."""
    taken = set(pairs)  # negatives join it: none is asked about twice, or on both sides
    genes = sorted({gene for pair in pairs for gene in pair})
    drafts: list[Draft] = []
    for pair in pairs:
        generator = np.random.default_rng(stable_hash(f"no interaction|{'|'.join(pair)}", seed))
        negative = _negative(pair, pairs, genes, taken, generator)
        if negative is None:
            dropped["interactions_without_negative"] += 1
            continue
        taken.add(negative)
        side = Split.TEST if pair in test else Split.TRAIN
        drafts += [_question(pair, YES, side, seed), _question(negative, NO, side, seed)]
    return drafts


def _negative(
    pair: Pair,
    pairs: Sequence[Pair],
    genes: Sequence[str],
    taken: set[Pair],
    generator: np.random.Generator,
) -> Pair | None:
    """Draw a pair that is not taken, with a gene of `pair`; None where there is none left."""
    first = int(generator.integers(2))
    for kept in (pair[first], pair[1 - first]):
        places = generator.integers(len(pairs), size=MOST_TRIES).tolist()
        ends = generator.integers(2, size=MOST_TRIES).tolist()
        drawn = [pairs[place][end] for place, end in zip(places, ends, strict=True)]
        for other in (*drawn, *genes):
            candidate = _sorted(kept, other)
            if other != kept and candidate not in taken:
                return candidate
    return None


def _question(pair: Pair, answer: str, side: Split, seed: int) -> Draft:
    # Which gene is named first is drawn too: the alphabet must not tell.
    is_turned = stable_hash(f"order|{'|'.join(pair)}", seed) % 2 == 1
    gene, other = pair[::-1] if is_turned else pair
    return Draft(
        prompt_id=f"{Task.GENE_INTERACTION}/{pair[0]}/{pair[1]}",
        task=Task.GENE_INTERACTION,
        condition=answer,
        split=side,
        words={"gene": gene, "other_gene": other},
        answer=answer,
    )


def _lists(
    pairs: Sequence[Pair],
    test: frozenset[Pair],
    vocabulary: Vocabulary,
    settings: GeneInteractionConfig,
    seed: int,
    name: str,
    dropped: Counter[str],
) -> list[Draft]:
    """List the partners of every gene, on each side those of its pairs, in drawn order."""
    partners: defaultdict[tuple[str, Split], list[str]] = defaultdict(list)
    for pair in pairs:
        side = Split.TEST if pair in test else Split.TRAIN
        for gene, other in (pair, pair[::-1]):
            partners[gene, side].append(other)
    drafts: list[Draft] = []
    for (gene, side), others in sorted(partners.items()):
        generator = np.random.default_rng(stable_hash(f"partners|{gene}|{side}", seed))
        order = generator.permutation(len(others))[: settings.max_partners].tolist()
        dropped["partners_over_cap"] += len(others) - len(order)
        listed = [others[place] for place in order]
        drafts.append(
            Draft(
                prompt_id=f"{Task.GENE_PARTNERS}/{gene}/{side}",
                task=Task.GENE_PARTNERS,
                condition=name,
                split=side,
                words={"gene": gene, "num_genes": str(len(listed))},
                answer=" ".join(listed),
                target_genes=tuple(vocabulary.indices(listed).tolist()),
            )
        )
    return drafts
