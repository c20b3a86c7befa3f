"""Probes for reward hacking on cells small enough to be counted by hand."""

import numpy as np
import pytest

from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.evaluation.probes import (
    Probe,
    is_housekeeping,
    mean_of,
    pair_overlap,
    probe_answers,
    probe_groups,
    probe_ruler,
)

SYMBOLS = ("RPL3", "ACTB", "ISG15", "MT-CO1", "CD3D", "CXCL10", "IFIT1", "GNLY")
VOCABULARY = Vocabulary(SYMBOLS, SYMBOLS)
RULER = probe_ruler(VOCABULARY, num_genes=4)


@pytest.mark.parametrize(
    "symbol",
    ["RPL3", "RPS27A", "RPL36AL", "RPL22L1", "RPS4Y1", "RPLP0", "RPSA", "MT-ND1", "mt-Co1", "Rpl3"],
)
def test_ribosomal_and_mitochondrial_genes_of_man_and_mouse_are_housekeeping(symbol):
    assert is_housekeeping(symbol)


@pytest.mark.parametrize("symbol", ["RPS6KA1", "RPS6KB1", "RPL", "MTOR", "MT1X", "ISG15", "RPN1"])
def test_kinases_and_namesakes_are_not(symbol):
    assert not is_housekeeping(symbol)


def test_the_ruler_finds_the_genes_of_the_data_set():
    assert RULER.housekeeping_N.tolist() == [0, 1, 3]


def test_pair_overlap_is_the_mean_jaccard_index():
    a, b, c = (np.array(genes, dtype=np.int32) for genes in ((0, 1, 2), (2, 3), (4,)))
    # {0,1,2} and {2,3}: 1 of 4; the two other pairs share nothing
    assert pair_overlap([a, b, c]) == pytest.approx(1 / 12)
    assert pair_overlap([a, a, a]) == 1.0
    empty = np.zeros(0, dtype=np.int32)
    # an empty and a full answer have nothing in common; two empty ones are no pair
    assert pair_overlap([a, empty, empty]) == 0.0
    assert np.isnan(pair_overlap([empty, empty]))
    assert np.isnan(pair_overlap([a]))


def test_copying_the_control_shows_in_genes_and_order(record, answer):
    prompt = record(control=(4, 2, 5, 6, 7))
    # the control is cut to four genes as well: 4 2 5 6
    copied, turned, other = answer(4, 2, 5, 6), answer(6, 5, 2, 4), answer(0, 1, 3, 7)
    values = [probe_answers([[one]], [prompt], RULER) for one in (copied, turned, other)]
    assert [v[Probe.CONTROL_OVERLAP][0] for v in values] == [1.0, 1.0, 0.0]
    # none of the control's genes named: nothing is ordered, which counts as unrelated
    assert [v[Probe.CONTROL_TAU][0] for v in values] == pytest.approx([1.0, -1.0, 0.0])


def test_every_probe_of_one_prompt_by_hand(record, answer):
    prompt = record(control=(4, 2))
    answers = [answer(0, 1, 2, 4, duplicates=1), answer(0, 1, 2, 4, duplicates=1), answer(2, 5)]
    values = {probe: v[0] for probe, v in probe_answers([answers], [prompt], RULER).items()}
    assert values[Probe.WORDS] == pytest.approx((5 + 5 + 2) / 3)
    assert values[Probe.HOUSEKEEPING] == pytest.approx((2 / 4 + 2 / 4 + 0) / 3)
    assert values[Probe.CONTROL_OVERLAP] == pytest.approx((2 / 4 + 2 / 4 + 1 / 2) / 3)
    # control order 4 2: turned over twice; in the third 2 is named and 4 is not
    assert values[Probe.CONTROL_TAU] == pytest.approx(-1.0)
    # the first two are equal, the third shares gene 2 of five with each
    assert values[Probe.PAIR_OVERLAP] == pytest.approx((1 + 1 / 5 + 1 / 5) / 3)
    assert values[Probe.DISTINCT] == pytest.approx(1 / 3)
    assert values[Probe.REPEATED] == pytest.approx((1 / 5 + 1 / 5 + 0) / 3)
    assert values[Probe.UNKNOWN] == 0.0


def test_prompts_without_control_or_answers_have_no_value(record, answer):
    values = probe_answers([[answer(0, 2)], []], [record("a"), record("b")], RULER)
    assert np.isnan(values[Probe.CONTROL_TAU]).all()
    assert np.isnan(values[Probe.WORDS][1])
    assert mean_of(values[Probe.WORDS]) == 2.0
    assert np.isnan(mean_of(values[Probe.CONTROL_OVERLAP]))


def test_empty_answers_say_nothing_about_genes(record, answer):
    values = probe_answers([[answer(), answer()]], [record(control=(4, 2))], RULER)
    assert values[Probe.WORDS][0] == 0.0
    assert values[Probe.DISTINCT][0] == 0.0
    assert np.isnan(values[Probe.HOUSEKEEPING][0])
    assert np.isnan(values[Probe.PAIR_OVERLAP][0])


def test_text_answers_are_measured_by_length_and_difference_alone(record, answer, group):
    ruler = probe_ruler(VOCABULARY, num_genes=4, has_cells=False)
    said = group(record(), ("a b", answer(unknown=2)), ("a", answer(unknown=1)))
    values = probe_groups([said], ruler)
    assert values[Probe.WORDS][0] == 1.5
    assert values[Probe.DISTINCT][0] == 1.0
    assert values[Probe.TOKENS][0] == 1.0
    assert np.isnan(values[Probe.UNKNOWN][0])
