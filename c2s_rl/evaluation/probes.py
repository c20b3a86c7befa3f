"""Probes for reward hacking: what a policy may do to a reward without learning any biology.

A reward on some genes can be won by longer answers, by genes that stand on top of every cell, by
copying the control cell, or by writing one answer again and again. Each probe is one number a
prompt, cheap enough for every training step, and has a value for real cells: a policy that moves
away from real cells while its reward rises deserves a look. Probes say nothing about right or
wrong; that is the metrics' business (`cell_metrics.py`). When a probe has drifted is decided in
`probe_drift.py`.

Shape suffixes: B answers to one prompt, P prompts, N genes, U different genes in some answers.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.evaluation.rank import DoubleArray, TauVariant, program_tau
from c2s_rl.types import Group, IntArray, ParsedCell, PromptRecord

# The top of a sentence, where rank rewards and embeddings look first.
HEAD = 50

# Symbols as facts: ribosomal proteins (HGNC gene group "Ribosomal proteins": RPL*, RPS*, RPLP0-2,
# RPSA; not the S6 kinases, RPS6K*) and genes of the mitochondrial genome (HGNC: MT-*). Mouse
# spellings differ in case only.
_FAMILIES = re.compile(r"RP[LS]\d+[ALXY]{0,2}\d?|RPLP[0-2]|RPSA|MT-.+", re.IGNORECASE)
# Reference genes of qPCR: ACTB, B2M, GAPDH and UBC are among geNorm's ten
# (doi:10.1186/gb-2002-3-7-research0034).
_REFERENCE = frozenset(("ACTB", "B2M", "GAPDH", "PPIA", "UBC"))
# What else stands on top of nearly every cell of droplet data.
_TRANSLATION = frozenset(("EEF1A1", "EEF1B2", "EEF1D", "EEF2", "FAU", "NACA", "TPT1", "UBA52"))
_ABUNDANT = frozenset(("ACTG1", "FTH1", "FTL", "MALAT1", "PFN1", "PTMA", "TMSB10", "TMSB4X"))
_SINGLE = _REFERENCE | _TRANSLATION | _ABUNDANT


class Probe(StrEnum):
    """Names of the probes, in the order of the tables."""

    WORDS = "words"
    TOKENS = "tokens"
    HOUSEKEEPING = "housekeeping"
    CONTROL_OVERLAP = "control_overlap"
    CONTROL_TAU = "control_tau"
    PAIR_OVERLAP = "pair_overlap"
    DISTINCT = "distinct"
    REPEATED = "repeated"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class ProbeInfo:
    """How a probe is called and read."""

    label: str
    """Short name for table rows and axes."""
    meaning: str
    """One line for a biologist."""
    suspicion: str
    """What a policy may be doing when the probe moves away from real cells."""
    is_share: bool = True
    """Printed in percent."""


PROBES: Mapping[Probe, ProbeInfo] = {
    Probe.WORDS: ProbeInfo(
        "length, words", "Words in an answer.", "wins by length", is_share=False
    ),
    Probe.TOKENS: ProbeInfo(
        "length, tokens", "Tokens of the language model in an answer.", "wins by length",
        is_share=False,
    ),
    Probe.HOUSEKEEPING: ProbeInfo(
        "housekeeping genes",
        f"Share of an answer's first {HEAD} genes that are ribosomal, mitochondrial or expressed "
        "by nearly every cell.",
        "trades genes that every cell has against those of this condition",
    ),
    Probe.CONTROL_OVERLAP: ProbeInfo(
        "genes from the control",
        "Share of an answer's genes that the prompt's control cell has among as many top genes.",
        "copies the control cell, or avoids it",
    ),
    Probe.CONTROL_TAU: ProbeInfo(
        "order of the control",
        "Kendall's tau of the control cell's top genes, in the answer against the control: "
        "1 = copied in order.",
        "copies the order of the control cell, or turns it over",
        is_share=False,
    ),
    Probe.PAIR_OVERLAP: ProbeInfo(
        "alike answers",
        "Genes that two answers to one prompt have in common, of all that either has.",
        "writes one answer again and again, or answers at random",
    ),
    Probe.DISTINCT: ProbeInfo(
        "different answers",
        "Share of the answers to one prompt that no other one repeats word for word.",
        "writes one answer again and again",
    ),
    Probe.REPEATED: ProbeInfo(
        "repeated genes", "Share of words that repeat a gene already named.", "repeats genes"
    ),
    Probe.UNKNOWN: ProbeInfo(
        "unknown words",
        "Share of words that are no gene symbol of the data set.",
        "invents words",
    ),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class ProbeRuler:
    """What all probes of a run are measured with."""

    housekeeping_N: IntArray
    """[N] vocabulary indices of housekeeping genes, ascending."""
    num_genes: int
    """Genes that a sentence is asked for; the control cell is cut to it."""
    num_vocabulary: int
    """Genes of the data set."""
    has_cells: bool = True
    """Answers are cell sentences; of text answers only length and difference are measured."""


def is_housekeeping(symbol: str) -> bool:
    """Whether a gene is expressed by nearly every cell, by its symbol in any case."""
    return symbol.upper() in _SINGLE or _FAMILIES.fullmatch(symbol) is not None


def probe_ruler(vocabulary: Vocabulary, num_genes: int, *, has_cells: bool = True) -> ProbeRuler:
    """Find the housekeeping genes of a data set.

    Args:
        vocabulary: Its symbols, in upper or lower case.
        num_genes: Genes that a sentence is asked for.
        has_cells: Whether answers are cell sentences.
    """
    found = [n for n, symbol in enumerate(vocabulary.symbols) if is_housekeeping(symbol)]
    return ProbeRuler(np.array(found, dtype=np.int32), num_genes, len(vocabulary), has_cells)


def probe_groups(groups_P: Sequence[Group], ruler: ProbeRuler) -> dict[Probe, DoubleArray]:
    """Measure sampled answers.

    Returns:
        Probe to [P] means over a prompt's answers; nan where the prompt has no value.
    """
    values = probe_answers([g.cells_G for g in groups_P], [g.record for g in groups_P], ruler)
    tokens_P = [float(np.mean([len(c.token_ids_T) for c in g.completions_G])) for g in groups_P]
    return values | {Probe.TOKENS: np.array(tokens_P)}


def probe_answers(
    answers_P: Sequence[Sequence[ParsedCell]],
    records_P: Sequence[PromptRecord],
    ruler: ProbeRuler,
) -> dict[Probe, DoubleArray]:
    """Measure answers of any origin, for example real cells.

    Args:
        answers_P: [P] answers to each prompt; a prompt without any has no value.
        records_P: [P] the prompts.
        ruler: What to measure with.

    Returns:
        Probe to [P] means over a prompt's answers; nan where the prompt has no value. Without
        TOKENS, for an answer does not know how it was spelt.
    """
    values: dict[Probe, DoubleArray] = {
        probe: np.full(len(answers_P), np.nan) for probe in Probe if probe is not Probe.TOKENS
    }
    for p, (answers, record) in enumerate(zip(answers_P, records_P, strict=True)):
        if answers:
            for probe, value in _probe(answers, record, ruler).items():
                values[probe][p] = value
    return values


def mean_of(values_P: DoubleArray) -> float:
    """Mean over the prompts that have a value; nan where none has."""
    present = values_P[~np.isnan(values_P)]
    return float(present.mean()) if len(present) else float("nan")


def pair_overlap(cells_B: Sequence[IntArray]) -> float:
    """Mean Jaccard index |A and B| / |A or B| over all pairs of gene sets.

    Args:
        cells_B: [B] genes of each answer, no repeats.

    Returns:
        From 0 (no gene in common) to 1 (the same genes); nan for fewer than two answers or where
        all are empty. A pair of two empty answers is left out.
    """
    genes = np.concatenate(cells_B) if cells_B else np.zeros(0, dtype=np.int32)
    if len(cells_B) < 2 or not len(genes):
        return float("nan")
    known_U, place = np.unique(genes, return_inverse=True)
    row = np.repeat(np.arange(len(cells_B)), [len(cell) for cell in cells_B])
    has_B_U = np.zeros((len(cells_B), len(known_U)), dtype=np.float64)
    has_B_U[row, place] = 1.0
    both_B_B = has_B_U @ has_B_U.T
    size_B = np.diag(both_B_B)
    either_B_B = size_B[:, None] + size_B[None, :] - both_B_B
    first, second = np.triu_indices(len(cells_B), k=1)
    either = either_B_B[first, second]
    return float((both_B_B[first, second][either > 0] / either[either > 0]).mean())


def _probe(
    answers_B: Sequence[ParsedCell], record: PromptRecord, ruler: ProbeRuler
) -> dict[Probe, float]:
    values = {
        Probe.WORDS: float(np.mean([a.num_words for a in answers_B])),
        Probe.DISTINCT: _distinct(answers_B),
    }
    if not ruler.has_cells:
        return values
    cells_B = [a.genes_K for a in answers_B]
    named_B = [cell for cell in cells_B if len(cell)]
    values |= {
        Probe.PAIR_OVERLAP: pair_overlap(cells_B),
        Probe.REPEATED: _mean([a.num_duplicates / max(a.num_words, 1) for a in answers_B]),
        Probe.UNKNOWN: _mean([len(a.unknown) / max(a.num_words, 1) for a in answers_B]),
        Probe.HOUSEKEEPING: _mean(
            [float(np.isin(cell[:HEAD], ruler.housekeeping_N).mean()) for cell in named_B]
        ),
    }
    control_K = record.context_genes_K[: ruler.num_genes]
    if len(control_K) < 2:
        return values
    overlaps = [float(np.isin(cell, control_K).mean()) for cell in named_B]
    taus_B = program_tau(
        cells_B,
        control_K,
        control_K,
        num_vocabulary=ruler.num_vocabulary,
        variant=TauVariant.B,
    )
    # an answer without any gene of the control orders none of them: unrelated
    taus = np.nan_to_num(taus_B, nan=0.0)
    return values | {Probe.CONTROL_OVERLAP: _mean(overlaps), Probe.CONTROL_TAU: float(taus.mean())}


def _distinct(answers_B: Sequence[ParsedCell]) -> float:
    """Share of answers whose genes and unknown words no other answer has in the same order."""
    texts = [(a.genes_K.tobytes(), a.unknown, a.num_words) for a in answers_B]
    return _mean([float(texts.count(text) == 1) for text in texts])


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
