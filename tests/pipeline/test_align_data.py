"""Prompts and seeds as functions of the position."""

from c2s_rl.pipeline.align_data import PromptStream, rollout_seed
from tests.fakes import make_record

RECORDS = [make_record(f"p{i}") for i in range(5)]


def test_every_epoch_shows_each_prompt_once():
    stream = PromptStream(RECORDS, per_step=3, seed=0)
    drawn = [stream.at(position).prompt_id for position in range(15)]
    epochs = [drawn[i : i + 5] for i in range(0, 15, 5)]
    assert all(sorted(epoch) == ["p0", "p1", "p2", "p3", "p4"] for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_a_position_holds_the_same_prompt_however_it_is_come_to():
    stream = PromptStream(RECORDS, per_step=3, seed=0)
    forward = [stream.at(position).prompt_id for position in range(15)]
    assert [stream.at(position).prompt_id for position in reversed(range(15))] == forward[::-1]
    assert PromptStream(RECORDS, per_step=3, seed=0).at(13).prompt_id == forward[13]


def test_further_prompts_of_a_step_are_not_in_it():
    stream = PromptStream(RECORDS, per_step=3, seed=0)
    for step in range(5):
        planned = {stream.at(position).prompt_id for position in range(3 * step, 3 * step + 3)}
        extra = [stream.extra(step, number).prompt_id for number in range(5 - len(planned))]
        assert planned | set(extra) == {"p0", "p1", "p2", "p3", "p4"}
        assert planned.isdisjoint(extra)


def test_further_prompts_repeat_only_where_there_are_no_others():
    stream = PromptStream(RECORDS[:2], per_step=3, seed=0)
    assert {stream.extra(0, number).prompt_id for number in range(2)} == {"p0", "p1"}


def test_seeds_differ_between_prompts_steps_attempts_and_runs():
    seeds = {
        rollout_seed(run_seed, s, i, attempt=attempt)
        for run_seed in (0, 1)
        for s in range(20)
        for i in range(20)
        for attempt in range(2)
    }
    assert len(seeds) == 1600
    assert max(seeds) < 2**62
