"""Training curves draw what metrics.jsonl has."""

import re

from c2s_rl.evaluation.training_plot import training_curves

NAN = float("nan")


def steps(num, **figures):
    return [{"step": float(step)} | figures for step in range(num)]


def test_every_known_series_gets_its_panel():
    figures = {
        "reward_mean": 0.5,
        "reward_std": 0.1,
        "kl": 0.01,
        "length_mean": 100.0,
        "duplicate_rate": 0.1,
        "unknown_rate": 0.2,
        "tokens_per_s": 400.0,
        "reward/tau": 0.5,
        "reward/validity": 0.7,
    }
    picture = training_curves(steps(3, **figures))
    titles = [
        "Reward",
        "Drift from the starting model",
        "Length of answers",
        "Words that earn nothing",
        "Speed of sampling",
        "Single rewards",
    ]
    for title in titles:
        assert f">{title}</text>" in picture.svg
    assert ">validity</text>" in picture.svg
    assert ">cut off</text>" not in picture.svg  # truncated_rate was not recorded
    assert "Not recorded" not in picture.caption


def test_missing_panels_are_named_in_the_caption():
    picture = training_curves(steps(2, reward_mean=0.5, kl=NAN))
    assert ">Reward</text>" in picture.svg
    assert picture.caption.endswith(
        "Not recorded by this run: drift from the starting model, length of answers, words that "
        "earn nothing, speed of sampling."
    )


def test_a_single_reward_is_not_drawn_twice():
    picture = training_curves(steps(2, reward_mean=0.5, **{"reward/tau": 0.5}))
    assert "Single rewards" not in picture.svg


def test_nothing_known_gives_no_picture():
    assert training_curves([]) is None
    assert training_curves(steps(3, something=1.0)) is None


def test_missing_steps_do_not_stop_the_curve():
    metrics = steps(30, reward_mean=0.5)
    metrics[7] = {"step": 7.0}
    metrics[8]["reward_mean"] = NAN
    assert ">Reward</text>" in training_curves(metrics).svg


def test_the_same_metrics_give_the_same_bytes():
    first, second = (training_curves(steps(25, reward_mean=0.5)) for _ in range(2))
    assert first.svg == second.svg


def test_svg_refers_to_nothing_outside():
    svg = training_curves(steps(3, reward_mean=0.5)).svg
    assert svg.startswith("<svg")
    assert "http" not in svg
    assert not re.search(r'id="(figure|axes)_1"', svg)
    # Every reference is to a name that is there.
    names = set(re.findall(r'id="([^"]+)"', svg))
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg)) <= names
