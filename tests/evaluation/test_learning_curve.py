"""Points of the curve on disk, and which is the best."""

import pytest

from c2s_rl.errors import DataError
from c2s_rl.evaluation.bootstrap import Interval
from c2s_rl.evaluation.learning_curve import (
    CurvePoint,
    ProbeValue,
    is_better,
    is_higher_better,
    metric_label,
    read_best,
    read_curve,
    write_curve,
)
from c2s_rl.evaluation.probes import Probe


def point(step, tau):
    return CurvePoint(
        step=step,
        metrics={} if tau is None else {"program_tau": Interval(tau, tau - 0.1, tau + 0.1, 4, 2)},
        per_condition={},
        probes={Probe.WORDS: ProbeValue(answers=80.0, real=None)},
        num_prompts=4,
        num_answers=8,
        num_failed=0,
        seconds=1.0,
    )


def test_points_come_back_as_written_and_a_cut_line_is_dropped(tmp_path):
    path = tmp_path / "held_out.jsonl"
    points = (point(0, 0.1), point(10, None))
    write_curve(path, points)
    path.write_text(path.read_text() + '{"step": 20, "met')
    assert read_curve(path) == points
    assert read_curve(tmp_path / "none.jsonl") == ()


def test_a_broken_line_is_named(tmp_path):
    path = tmp_path / "held_out.jsonl"
    path.write_text('{"step": "x"}\n')
    with pytest.raises(DataError, match=r"must be an evaluation during training.*step.*line 1"):
        read_curve(path)


def test_a_broken_best_is_named(tmp_path):
    (tmp_path / "best.json").write_text("{}")
    with pytest.raises(DataError, match=r"must name the best step.*metric"):
        read_best(tmp_path)
    assert read_best(tmp_path / "none") is None


def test_rewards_and_metrics_know_their_better_side():
    assert is_better("program_tau", 0.2, than=0.1)
    assert is_better("duplicate_rate", 0.1, than=0.2)
    assert is_better("reward/kendall", 0.2, than=0.1)
    assert not is_better("reward", 0.2, than=0.2)
    with pytest.raises(ValueError, match="must have a better direction, got 'num_words'"):
        is_higher_better("num_words")
    assert [metric_label(m) for m in ("reward", "reward/tau", "program_tau")] == [
        "reward",
        "reward tau",
        "program tau",
    ]
