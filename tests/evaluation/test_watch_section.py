"""The report's part on held-out prompts during training and on probes."""

import pytest

from c2s_rl.evaluation.bootstrap import Interval
from c2s_rl.evaluation.learning_curve import Best, CurvePoint, ProbeValue
from c2s_rl.evaluation.probes import Probe
from c2s_rl.evaluation.watch_section import watch_section

PROBES = {
    "SFT": {Probe.PAIR_OVERLAP: ProbeValue(answers=0.4, real=0.35)},
    "GRPO": {Probe.PAIR_OVERLAP: ProbeValue(answers=0.9, real=0.35)},
}


def interval(mean):
    return Interval(mean, mean - 0.02, mean + 0.02, 8, 2)


def point(step, tau):
    return CurvePoint(
        step=step,
        metrics={"program_tau": interval(tau), "reward": interval(2 * tau)},
        per_condition={"B <b>": {"program_tau": interval(tau)}, "T": {}},
        probes={Probe.PAIR_OVERLAP: ProbeValue(answers=0.4 + tau, real=0.35)},
        num_prompts=8,
        num_answers=32,
        num_failed=0,
        seconds=1.0,
    )


POINTS = [point(0, 0.2), point(10, 0.4), point(20, 0.3)]
BEST = Best(metric="program_tau", point=POINTS[1])


def test_start_best_and_last_stand_beside_each_other():
    section = watch_section(POINTS, BEST, PROBES)
    assert section.steps == ("step 0 (start)", "step 10 (best)", "step 20 (last)")
    rows = {row.condition: [value for value, _ in row.cells] for row in section.step_rows}
    assert rows["All conditions"] == ["0.200", "0.400", "0.300"]
    assert rows["B <b>"] == ["0.200", "0.400", "0.300"]
    assert rows["T"] == ["-", "-", "-"]
    assert ">best: step 10</text>" in section.picture.svg
    assert ">real cells</text>" in section.picture.svg


def test_a_step_that_is_best_and_last_is_shown_once():
    section = watch_section(POINTS[:2], BEST, PROBES)
    assert section.steps == ("step 0 (start)", "step 10 (best, last)")


@pytest.mark.parametrize(
    ("num_shared", "words"),
    [(0, "its prompts had no part in picking"), (5, "5 prompts of the result above are of the")],
)
def test_the_choice_is_said_to_be_too_good_and_what_follows(num_shared, words):
    sentence = watch_section(POINTS, BEST, PROBES, num_shared=num_shared).best
    assert "0.400 after step 10, against 0.200 after step 0 and 0.300 after step 20" in sentence
    assert "One of 3 evaluations was picked" in sentence
    assert words in sentence


def test_without_evaluations_there_are_probes_alone():
    section = watch_section([], None, PROBES)
    assert section.picture is None
    assert section.step_rows == ()
    (warning,) = section.warnings
    assert warning.startswith("Alike answers rose from 40.0")
