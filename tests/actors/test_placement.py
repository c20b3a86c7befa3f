"""Seats of engines and ranks; the placement groups themselves run in tests/integration."""

import pytest

from actors.learner import LearnerConfig
from actors.placement import PlacementConfig, Seat, check_sharing, plan_seating
from actors.rollout import RolloutConfig
from c2s_rl.errors import ConfigError

COLOCATED = PlacementConfig()
DISAGGREGATED = PlacementConfig(mode="disaggregated")


def test_colocated_on_cpu_everybody_computes_with_all_cores_in_turn():
    seating = plan_seating(COLOCATED, RolloutConfig(), LearnerConfig(num_workers=2), num_cores=8)
    assert seating.bundles == ({"CPU": 2.0}, {"CPU": 1.0})
    assert seating.engines == (Seat(0, 8),)
    assert seating.ranks == (Seat(0, 4), Seat(1, 4))


def test_disaggregated_on_cpu_everybody_has_cores_of_its_own():
    # 8 cores: 4 for one engine, 4 for two ranks
    seating = plan_seating(
        DISAGGREGATED, RolloutConfig(), LearnerConfig(num_workers=2), num_cores=8
    )
    assert seating.bundles == ({"CPU": 1.0},) * 3
    assert seating.engines == (Seat(0, 4),)
    assert seating.ranks == (Seat(1, 2), Seat(2, 2))


def test_disaggregated_on_two_cores_is_a_core_each():
    seating = plan_seating(DISAGGREGATED, RolloutConfig(), LearnerConfig(), num_cores=2)
    assert (seating.engines, seating.ranks) == ((Seat(0, 1),), (Seat(1, 1),))


def test_workers_on_gpus_leave_the_cores_to_those_on_cpu():
    rollout = RolloutConfig(num_gpus=1.0)
    seating = plan_seating(DISAGGREGATED, rollout, LearnerConfig(), num_cores=6)
    assert seating.bundles == ({"CPU": 1.0, "GPU": 1.0}, {"CPU": 1.0})
    assert seating.ranks == (Seat(1, 6),)


def test_too_few_cores_for_workers_of_their_own_are_an_error():
    with pytest.raises(ConfigError, match=r"got 2 cores for rollout 2 x 1 \+ learner 1 x 1"):
        plan_seating(DISAGGREGATED, RolloutConfig(num_workers=2), LearnerConfig(), num_cores=2)


def test_threads_that_were_asked_for_count_against_the_cores():
    rollout = RolloutConfig(num_threads=3)
    seating = plan_seating(DISAGGREGATED, rollout, LearnerConfig(num_threads=1), num_cores=4)
    assert (seating.engines[0].num_threads, seating.ranks[0].num_threads) == (3, 1)
    with pytest.raises(ConfigError, match=r"got 4 cores for rollout 1 x 3 \+ learner 1 x 2"):
        plan_seating(DISAGGREGATED, rollout, LearnerConfig(), num_cores=4)


def test_an_engine_and_a_rank_that_share_a_gpu_reserve_it_whole():
    rollout = RolloutConfig(num_workers=2, num_gpus=0.3)
    learner = LearnerConfig(num_workers=2, num_gpus=0.5)
    seating = plan_seating(COLOCATED, rollout, learner, num_cores=8)
    assert seating.bundles == ({"CPU": 2.0, "GPU": 1.0},) * 2
    assert [seat.bundle for seat in seating.engines + seating.ranks] == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("config", "rollout", "learner", "message"),
    [
        (COLOCATED, {"num_gpus": 0.6}, {"num_gpus": 0.6}, r"at most 1 .* got 0.6 \+ 0.6"),
        (COLOCATED, {"num_gpus": 0.5, "num_workers": 2}, {"num_gpus": 0.5}, "got 2 and 1"),
        (PlacementConfig(sleep=True), {}, {}, "vLLM cannot sleep on a CPU, got rollout.num_gpus=0"),
        (
            PlacementConfig(mode="disaggregated", sleep=True),
            {"num_gpus": 1.0},
            {},
            "needs placement.mode=colocated, .* got disaggregated",
        ),
    ],
)
def test_what_cannot_be_shared_is_refused_before_anything_starts(config, rollout, learner, message):
    with pytest.raises(ValueError, match=message):
        check_sharing(config, RolloutConfig(**rollout), LearnerConfig(**learner))


def test_gpus_of_their_own_may_be_of_any_number():
    rollout, learner = RolloutConfig(num_gpus=1.0, num_workers=3), LearnerConfig(num_gpus=1.0)
    check_sharing(DISAGGREGATED, rollout, learner)
    seating = plan_seating(DISAGGREGATED, rollout, learner, num_cores=8)
    assert [bundle["GPU"] for bundle in seating.bundles] == [1.0] * 4  # 3 engines and a rank
