"""Busy seconds by phase, by a clock that is set by hand."""

from c2s_rl.pipeline.timeline import Timeline


class Clock:
    def __init__(self):
        self.time = 100.0

    def __call__(self):
        return self.time


def test_phases_side_by_side_and_rests_add_up():
    clock = Clock()
    timeline = Timeline(clock)
    #  time    0 1 2 3 4 5 6 7 8 9 10
    #  rollout   |-------|              1..5
    #  reward        |-----|            3..6
    #  learn             |---|          5..7
    for time, action, phase in (
        (1, timeline.enter, "rollout"),
        (3, timeline.enter, "reward"),
        (5, timeline.leave, "rollout"),
        (5, timeline.enter, "learn"),
        (6, timeline.leave, "reward"),
        (7, timeline.leave, "learn"),
    ):
        clock.time = 100.0 + time
        action(phase)
    clock.time = 110.0
    assert timeline.lap() == {
        "seconds_step": 10.0,
        "seconds_rollout": 4.0,
        "seconds_reward": 3.0,
        "seconds_learn": 2.0,
        "seconds_rollout_alone": 2.0,  # 1..3
        "seconds_reward_alone": 0.0,
        "seconds_learn_alone": 1.0,  # 6..7
        "seconds_overlap": 3.0,  # 4 + 3 + 2 busy seconds in the 6 from 1 to 7
        "seconds_idle": 4.0,  # 0..1 and 7..10
    }


def test_calls_of_one_phase_side_by_side_count_once():
    clock = Clock()
    timeline = Timeline(clock)
    with timeline.phase("reward"):
        clock.time += 1.0
        with timeline.phase("reward"):
            clock.time += 1.0
    assert timeline.lap()["seconds_reward"] == 2.0


def test_a_step_waits_for_rewards_while_nothing_else_is_under_way():
    clock = Clock()
    timeline = Timeline(clock)
    with timeline.phase("reward"):
        with timeline.phase("rollout"):
            clock.time += 9.0
        clock.time += 1.0
    lap = timeline.lap()
    assert (lap["seconds_reward"], lap["seconds_reward_alone"]) == (10.0, 1.0)


def test_a_phase_that_is_under_way_is_split_between_laps():
    clock = Clock()
    timeline = Timeline(clock)
    timeline.enter("rollout")
    clock.time += 3.0
    assert timeline.lap()["seconds_rollout"] == 3.0
    clock.time += 1.0
    timeline.leave("rollout")
    assert timeline.lap()["seconds_rollout"] == 1.0
    assert timeline.lap()["seconds_rollout"] == 0.0
