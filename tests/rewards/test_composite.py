"""Weights, schedules, clipping and aggregation with numbers by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from c2s_rl.errors import ConfigError, RewardError
from rewards.base import CheckedResult, FailureKind, RewardFailure, RewardResult, RewardScope
from rewards.composite import Aggregation, Combiner, CompositeConfig, CompositeReward, RewardSpec
from tests.reward_fixtures import VOCABULARY, AsyncWordCount, WordCount, make_group, make_record

HERE = __name__
NORMALISED = CompositeConfig(aggregation=Aggregation.NORMALISE_THEN_SUM)
FAILED = RewardFailure(FailureKind.NOT_FINITE, "got nan")


def specs(**changes):
    """Rewards a and b; a keyword gives one its settings."""
    return [RewardSpec(name=name, **changes.get(name, {})) for name in ("a", "b")]


def combine(a_G, b_G, *, config=None, version=0, failures=None, **changes):
    """One group with scores by rewards a and b; failures are a's."""
    groups = [make_group([" G0"] * len(a_G), version=version)]
    results = {
        "a": CheckedResult(tuple(a_G), {}, failures or {}),
        "b": CheckedResult(tuple(b_G)),
    }
    return Combiner(specs(**changes), config).combine(groups, results)[0]


def test_total_is_the_weighted_sum():
    scored = combine([1.0, 2.0], [10.0, 20.0], a={"weight": 2.0}, b={"weight": -0.5})
    assert scored.rewards_G == (2.0 - 5.0, 4.0 - 10.0)
    assert scored.components == {"a": (1.0, 2.0), "b": (10.0, 20.0)}


def test_an_abstention_leaves_the_reward_out_of_one_sum():
    scored = combine([1.0, None, None], [10.0, 20.0, None])
    assert scored.rewards_G == (11.0, 20.0, None)


def test_a_failure_takes_the_total_and_says_why():
    scored = combine([1.0, None], [10.0, 20.0], failures={1: FAILED})
    assert scored.rewards_G == (11.0, None)
    assert scored.failures == {"a": (None, "not_finite: got nan")}


def test_a_reward_of_weight_zero_is_only_logged():
    scored = combine([1.0, None], [10.0, 20.0], failures={1: FAILED}, a={"weight": 0.0})
    assert scored.rewards_G == (10.0, 20.0)
    assert scored.components["a"] == (1.0, None)
    assert scored.failures == {"a": (None, "not_finite: got nan")}


def test_groups_get_their_own_part_of_a_result():
    groups = [make_group([" G0"] * 2), make_group([]), make_group([" G1"])]
    results = {
        "a": CheckedResult((1.0, 2.0, None), {"x": (7.0, 8.0, 9.0)}, {2: FAILED}),
        "b": CheckedResult((0.0, 0.0, 0.0)),
    }
    first, empty, last = Combiner(specs()).combine(groups, results)
    assert first.rewards_G == (1.0, 2.0)
    assert first.failures == {}
    assert empty.rewards_G == ()
    assert last.rewards_G == (None,)
    assert last.diagnostics == {"a/x": (9.0,)}
    assert last.failures == {"a": ("not_finite: got nan",)}


def test_normalising_first_makes_weights_decide_and_not_the_spread():
    # a is 1000 times wider than b. mean 1000, sample std 1000: (-1, 0, 1), less eps
    scored = combine([0.0, 1000.0, 2000.0], [2.0, 1.0, 0.0], config=NORMALISED)
    eps = 1e-4
    expected = -1000 / (1000 + eps) + 1 / (1 + eps)
    assert scored.rewards_G[0] == pytest.approx(expected, abs=1e-12)
    assert scored.rewards_G[1] == 0.0
    assert scored.rewards_G[2] == pytest.approx(-expected, abs=1e-12)
    # the sum of raw scores would follow a alone
    assert combine([0.0, 1000.0, 2000.0], [2.0, 1.0, 0.0]).rewards_G == (2.0, 1001.0, 2000.0)


def test_normalising_leaves_out_abstentions_and_failures():
    # of a only 1 and 3 are compared: mean 2, std sqrt(2); the failed 99 takes no part in b either
    scored = combine(
        [1.0, 3.0, None, None], [5.0, 5.0, 5.0, 99.0], config=NORMALISED, failures={3: FAILED}
    )
    z = 1 / (math.sqrt(2) + 1e-4)
    assert scored.rewards_G == (pytest.approx(-z), pytest.approx(z), 0.0, None)


def test_equal_scores_normalise_to_zero_and_one_score_too():
    assert combine([0.1] * 3, [0.2] * 3, config=NORMALISED).rewards_G == (0.0, 0.0, 0.0)
    assert combine([5.0], [7.0], config=NORMALISED).rewards_G == (0.0,)


def test_normalising_is_the_formula_of_gdpo_where_scores_are_missing():
    # as TRL 1.16 computes it: nan-aware mean and sample std, eps 1e-4, nan left out of the sum
    a, b = [0.3, -1.2, None, 2.0], [4.0, 4.5, 1.0, 4.0]
    scores_K_G = np.array([a, b], dtype=np.float64)
    scaled_K_G = (scores_K_G - np.nanmean(scores_K_G, 1, keepdims=True)) / (
        np.nanstd(scores_K_G, 1, ddof=1, keepdims=True) + 1e-4
    )
    scored = combine(a, b, config=NORMALISED, a={"weight": 2.0}, b={"weight": 0.5})
    expected = np.nansum(scaled_K_G * [[2.0], [0.5]], axis=0)
    assert scored.rewards_G == pytest.approx(expected.tolist(), abs=1e-12)


@pytest.mark.parametrize(
    ("kind", "weights"),
    [
        # from 1 at step 2 to 5 at step 6
        ("linear", {0: 1, 2: 1, 3: 2, 4: 3, 6: 5, 99: 5}),
        # (1 - cos(pi / 4)) / 2 of the way at step 3
        ("cosine", {2: 1, 3: 1 + 4 * (1 - math.sqrt(0.5)) / 2, 4: 3, 6: 5}),
        ("step", {0: 1, 5: 1, 6: 5, 7: 5}),
    ],
)
def test_a_schedule_leads_to_the_weight(kind, weights):
    schedule = {"kind": kind, "start": 1, "from_step": 2, "to_step": 6}
    spec = RewardSpec(name="a", weight=5, schedule=schedule)
    assert {v: spec.weight_at(v) for v in weights} == pytest.approx(weights)


def test_the_schedule_follows_the_oldest_completion_of_a_group():
    schedule = {"kind": "linear", "to_step": 10}
    scored = combine([1.0, 1.0], [0.0, 0.0], version=5, a={"schedule": schedule})
    assert scored.rewards_G == (0.5, 0.5)
    assert scored.diagnostics == {"a/weight": (0.5, 0.5)}


def test_clipping_bounds_the_sum_and_is_counted_while_the_score_is_logged():
    scored = combine([-3.0, 0.5, None], [0.0, 0.0, 1.0], a={"clip": {"low": -1.0, "high": 1.0}})
    assert scored.rewards_G == (-1.0, 0.5, 1.0)
    assert scored.components["a"] == (-3.0, 0.5, None)
    assert scored.diagnostics == {"a/clipped": (1.0, 0.0, 0.0)}


def test_a_score_beyond_all_measure_is_a_failure():
    scored = combine([1e300, 1.0], [0.0, 0.0])
    assert scored.rewards_G == (None, 1.0)
    assert scored.failures["a"][0] == "not_finite: a score must be within +-1e+100, got 1e+300"
    # bounded, it is a score like any other
    assert combine([1e300], [0.0], a={"clip": {"high": 2.0}}).rewards_G == (2.0,)


scores = st.none() | st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=200)
@given(st.data())
def test_a_total_is_finite_or_none(data):
    num = data.draw(st.integers(0, 5))
    columns = [data.draw(st.lists(scores, min_size=num, max_size=num)) for _ in "ab"]
    config = data.draw(st.sampled_from([None, NORMALISED]))
    weight = st.floats(-1e9, 1e9).filter(bool)
    changes = {name: {"weight": data.draw(weight)} for name in "ab"}
    failed = data.draw(st.sets(st.integers(0, max(0, num - 1)), max_size=num))
    failures = {i: FAILED for i in failed if i < num}
    columns[0] = [None if i in failures else s for i, s in enumerate(columns[0])]
    scored = combine(*columns, config=config, failures=failures, **changes)
    for i, total in enumerate(scored.rewards_G):
        assert total is None or math.isfinite(total)
        given_any = any(column[i] is not None for column in columns)
        has_failed = any(words[i] for words in scored.failures.values())
        assert (total is None) == (has_failed or not given_any)


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"clip": {}}, "clip needs low or high, got neither"),
        ({"clip": {"low": 1, "high": 1}}, "clip.high must be greater than low=1.0, got 1.0"),
        (
            {"schedule": {"kind": "linear", "from_step": 3, "to_step": 3}},
            "greater than from_step=3",
        ),
        ({"weight": math.inf}, "less than or equal to"),
        ({"label": "total"}, "must not be 'total'"),
        ({"calibrate": {"min_gap": 0}}, "greater than 0"),
    ],
)
def test_a_wrong_setting_is_said(settings_, message):
    with pytest.raises(ValidationError, match=message):
        RewardSpec(name="a", **settings_)


def test_weights_that_are_all_zero_are_an_error():
    with pytest.raises(ConfigError, match="must have a weight other than 0, got none"):
        Combiner([RewardSpec(name="a", weight=0.0)])


def test_a_missing_result_is_an_error():
    with pytest.raises(ValueError, match=r"must have 1 scores, got \{'a': 1\}"):
        Combiner(specs()).combine([make_group([" G0"])], {"a": CheckedResult((1.0,))})


class Moody(WordCount):
    """Gives words, nan for 'nan' and raises at 'raise'."""

    def score(self, batch):
        texts = [sample.text for sample in batch.samples()]
        if any("raise" in text for text in texts):
            raise ZeroDivisionError("moody")
        return RewardResult(tuple(math.nan if "nan" in t else float(len(t.split())) for t in texts))


def moody(texts_of_groups, **options):
    composite = CompositeReward([RewardSpec(name=f"{HERE}:Moody", label="words")], VOCABULARY)
    return composite.score([make_group(texts) for texts in texts_of_groups], **options)


def test_a_failing_plugin_stops_where_failures_are_not_kept():
    with pytest.raises(RewardError, match=r"finite numbers, got nan.*1 of 2 completions failed"):
        moody([["a b", "nan"]])


def test_good_completions_beside_failing_ones_keep_their_scores():
    fine, bad, raised = moody([["a b"], ["nan", "a"], ["raise", "a"]], keeps_failures=True)
    assert fine.rewards_G == (2.0,)
    assert bad.rewards_G == (None, 1.0)
    assert raised.rewards_G == (None, None)
    assert raised.failures["words"][1].startswith("raised: a reward must not raise, got ZeroDiv")


@pytest.mark.parametrize("plugin", [WordCount, AsyncWordCount])
def test_sync_and_async_plugins_score_alike(plugin):
    spec = RewardSpec(name=f"{plugin.__module__}:{plugin.__name__}")
    texts = ["", "one", "🧬 " * 3, "x" * 2**20, "G0 " * 10_000]
    (scored,) = CompositeReward([spec], VOCABULARY).score([make_group(texts)])
    assert scored.rewards_G == (0.0, 1.0, 3.0, 1.0, 10_000.0)


class ConditionSize(WordCount):
    """Scores how many completions its condition has."""

    scope = RewardScope.CONDITION

    def score(self, batch):
        assert len({group.record.condition for group in batch.groups}) == 1
        num = float(len(batch))
        name = batch.groups[0].record.condition
        return RewardResult((num,) * len(batch), {name: (num,) * len(batch)})


def test_conditions_are_scored_whole_and_figures_of_one_are_nan_in_others():
    spec = RewardSpec(name=f"{HERE}:ConditionSize", label="n")
    records = [make_record("p0", condition="x"), make_record("p1", condition="y")]
    groups = [make_group(["a"], records[0]), make_group(["b"] * 2, records[1])]
    groups.append(make_group(["c"] * 3, records[0]))
    scored = CompositeReward([spec], VOCABULARY).score(groups)
    assert [one.rewards_G for one in scored] == [(4.0,), (2.0, 2.0), (4.0, 4.0, 4.0)]
    assert math.isnan(scored[0].diagnostics["n/y"][0])
    assert scored[1].diagnostics["n/y"] == (2.0, 2.0)


@pytest.mark.parametrize("sizes", [(), (1,), (10_000,)])
def test_any_number_of_completions_is_scored(sizes):
    composite = CompositeReward([RewardSpec(name="validity", options={"num_genes": 1})], VOCABULARY)
    scored = composite.score([make_group([" G0"] * size) for size in sizes])
    assert [one.rewards_G for one in scored] == [(1.0,) * size for size in sizes]
