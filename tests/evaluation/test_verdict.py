"""The result in words follows from the intervals."""

import pytest

from c2s_rl.evaluation.bootstrap import Interval
from c2s_rl.evaluation.cell_metrics import METRICS, Metric
from c2s_rl.evaluation.population_metrics import ACTIVITY, metric_rows
from c2s_rl.evaluation.result import MethodKind, Outcome
from c2s_rl.evaluation.verdict import do_overlap, give_verdict, guards

POLICY = MethodKind.POLICY


@pytest.fixture
def methods(method):
    return (
        method("mean cell", MethodKind.NULL, 0.1),
        method("SFT", POLICY, 0.30, duplicate_rate=0.10),
        method("GRPO", POLICY, 0.40, duplicate_rate=0.20),
    )


KEY = "scfid/all genes"
INFO = dict(METRICS) | metric_rows(["all genes"])


def with_scfid(methods, difference, change, half=0.5):
    """Add scFID of 5 for SFT to all methods, and a change of it."""
    value = Interval(5.0, 4.0, 6.0, 8, 2)
    ends = Interval(change, change - half, change + half, 8, 2)
    methods = [m.model_copy(update={"metrics": m.metrics | {KEY: value}}) for m in methods]
    return methods, difference.model_copy(update={"metrics": difference.metrics | {KEY: ends}})


def test_metrics_of_populations_are_watched_too(methods, difference):
    verdict = give_verdict(*with_scfid(methods, difference(program_tau=0.1), 1.0), INFO)
    assert verdict.is_at_a_price
    assert verdict.price.endswith("SFT to GRPO: scFID, all genes 5.000 to 5.000.")
    for change in (-1.0, 0.1):
        verdict = give_verdict(*with_scfid(methods, difference(program_tau=0.1), change), INFO)
        assert not verdict.is_at_a_price
        assert "all-gene r; scFID, all genes." in verdict.price


def test_program_activity_has_no_better_and_is_no_price(methods, difference):
    assert ACTIVITY not in guards(
        difference().model_copy(
            update={"metrics": difference().metrics | {ACTIVITY: Interval(-1, -2, -0.5, 8, 2)}}
        ),
        INFO,
    )


def test_a_clean_gain_is_called_one(methods, difference):
    verdict = give_verdict(methods, difference(program_tau=0.1))
    assert verdict.outcome is Outcome.BETTER
    assert verdict.headline == (
        "GRPO is better than SFT in program tau: 0.400 against 0.300, difference +0.100 (95 % "
        "interval +0.080 to +0.120) on 8 held-out prompts of 2 conditions; their own intervals do "
        "not overlap."
    )
    assert not verdict.is_at_a_price
    assert verdict.price.startswith("None of these became measurably worse: repeated genes")
    assert verdict.scale == "For scale, program tau: mean cell 0.100."


def test_more_repeats_are_the_price_of_a_gain(methods, difference):
    verdict = give_verdict(methods, difference(program_tau=0.1, duplicate_rate=0.1))
    assert verdict.outcome is Outcome.BETTER
    assert verdict.is_at_a_price
    assert verdict.price.replace("\N{NO-BREAK SPACE}", " ") == (
        "The gain has a price, SFT to GRPO: repeated genes 10.0 % to 20.0 %."
    )


def test_less_overlap_is_a_price_and_fewer_repeats_are_not(methods, difference):
    verdict = give_verdict(methods, difference(gene_overlap=-0.1, duplicate_rate=-0.1))
    assert "gene overlap" in verdict.price
    assert "repeated genes" not in verdict.price


def test_an_interval_that_holds_zero_decides_nothing(methods, difference):
    verdict = give_verdict(methods, difference(program_tau=0.01))
    assert verdict.outcome is Outcome.UNDECIDED
    assert verdict.headline.startswith(
        "No difference in program tau between GRPO and SFT is shown: 0.400 against 0.300"
    )


def test_a_loss_is_called_one(methods, difference):
    verdict = give_verdict(methods, difference(program_tau=-0.1, unknown_rate=0.1))
    assert verdict.outcome is Outcome.WORSE
    assert verdict.headline.startswith("GRPO is worse than SFT in program tau")
    assert verdict.price.startswith("Worse beside it")


def test_without_an_interval_nothing_is_claimed(methods, difference):
    alone = Interval(0.1, None, None, num_prompts=2, num_conditions=2)
    gain = difference()
    gain = gain.model_copy(update={"metrics": gain.metrics | {Metric.PROGRAM_TAU: alone}})
    verdict = give_verdict(methods, gain)
    assert verdict.outcome is Outcome.UNDECIDED
    assert "no interval: one prompt a condition" in verdict.headline


def test_one_policy_is_only_described(methods):
    verdict = give_verdict(methods[:2], None)
    assert verdict.outcome is Outcome.NOT_COMPARED
    assert verdict.headline == "No two policies were compared: SFT has a program tau of 0.300."


def test_overlap_of_intervals():
    first = Interval(0.2, 0.1, 0.3, 8, 2)
    assert do_overlap(first, Interval(0.4, 0.3, 0.5, 8, 2)) is True
    assert do_overlap(first, Interval(0.4, 0.31, 0.5, 8, 2)) is False
    assert do_overlap(first, Interval(0.4, None, None, 2, 2)) is None
