"""When a probe has drifted, and what is said about it."""

import pytest

from c2s_rl.evaluation.learning_curve import ProbeValue
from c2s_rl.evaluation.probe_drift import drift, format_probe, probe_rows
from c2s_rl.evaluation.probes import Probe


def value(answers, real=None):
    return ProbeValue(answers=answers, real=real)


@pytest.mark.parametrize(
    ("probe", "start", "now", "real"),
    [
        (Probe.PAIR_OVERLAP, 0.40, 0.46, 0.45),  # came closer to real cells
        (Probe.PAIR_OVERLAP, 0.80, 0.80, 0.35),  # unlike them from the start
        (Probe.PAIR_OVERLAP, 0.35, 0.39, 0.35),  # within five points
        (Probe.HOUSEKEEPING, 0.60, 0.40, 0.50),  # as far as before, on the other side
        (Probe.WORDS, 100.0, 109.0, 100.0),  # within a tenth
        (Probe.CONTROL_TAU, None, 0.3, 0.2),  # no value at the start
    ],
)
def test_what_stays_or_comes_closer_is_not_accused(probe, start, now, real):
    assert drift(probe, value(start, real), value(now, real)) == ""


@pytest.mark.parametrize(
    ("probe", "start", "now", "real", "words"),
    [
        (Probe.PAIR_OVERLAP, 0.40, 0.90, 0.35, "Alike answers rose from 40.0.% to 90.0.%"),
        (Probe.HOUSEKEEPING, 0.50, 0.20, 0.50, "Housekeeping genes fell from 50.0.% to 20.0.%"),
        (Probe.WORDS, 100.0, 130.0, 100.0, "Length, words rose from 100.0 to 130.0"),
        (Probe.REPEATED, 0.0, 0.02, 0.0, "Repeated genes rose from 0.0.% to 2.0.%"),
        (Probe.CONTROL_TAU, 0.20, 0.60, 0.20, "Order of the control rose from 0.20 to 0.60"),
        (Probe.TOKENS, 100.0, 130.0, None, "Length, tokens rose from 100.0 to 130.0: the policy"),
    ],
)
def test_what_moves_away_is_named_with_its_numbers(probe, start, now, real, words):
    sentence = drift(probe, value(start, real), value(now, real))
    assert sentence.replace("\N{NO-BREAK SPACE}", ".").startswith(words)
    assert ("away from real cells" in sentence) == (real is not None)


def test_rows_judge_the_last_policy_against_the_first():
    columns = [
        {Probe.WORDS: value(100.0, 100.0), Probe.DISTINCT: value(1.0, 1.0)},
        {Probe.WORDS: value(101.0, 100.0), Probe.DISTINCT: value(0.5, 1.0)},
    ]
    words, distinct = probe_rows(columns)
    assert (words.real, words.values, words.warning) == ("100.0", ("100.0", "101.0"), "")
    assert "writes one answer again and again" in distinct.warning


def test_probes_without_any_value_have_no_row():
    assert probe_rows([{Probe.CONTROL_TAU: value(None)}, {}]) == []
    assert format_probe(Probe.CONTROL_TAU, None) == "-"
