"""Which rank forwards which micro-batch when."""

from hypothesis import given
from hypothesis import strategies as st

from c2s_rl.grpo.batch import Row
from c2s_rl.grpo.passes import PassPlanner


def group(name, prompt_length, completion_lengths):
    """Rows that can be told apart: the group's number is their first prompt token."""
    prompt = (name,) + (0,) * (prompt_length - 1)
    return [Row(prompt, (i + 1,) * n, (0.0,) * n, 0.0) for i, n in enumerate(completion_lengths)]


def names(passes):
    """[passes][ranks] numbers of the groups in each micro-batch."""
    return [[[part.prompt_ids[0] for part in parts] for parts in p] for p in passes]


def test_groups_go_round_and_a_pass_waits_for_every_rank():
    # Budget 10, each group 2 + 3 + 3 = 8: a second group of a rank closes its first micro-batch.
    planner = PassPlanner(num_ranks=2, max_tokens=10)
    assert names(planner.add(group(0, 2, [3, 3]))) == []
    assert names(planner.add(group(1, 2, [3, 3]))) == []
    assert names(planner.add(group(2, 2, [3, 3]))) == []  # rank 0 could start, rank 1 could not
    assert names(planner.add(group(3, 2, [3, 3]))) == [[[0], [1]]]
    assert names(planner.flush()) == [[[2], [3]]]


def test_a_rank_without_work_gets_fillers():
    planner = PassPlanner(num_ranks=3, max_tokens=100)
    planner.add(group(0, 1, [1]))
    assert names(planner.flush()) == [[[0], [], []]]


def test_an_empty_step_still_makes_one_pass_on_every_rank():
    # the optimiser averages gradients between ranks in the last backward pass
    assert names(PassPlanner(num_ranks=2, max_tokens=10).flush()) == [[[], []]]


shapes = st.lists(
    st.tuples(st.integers(1, 20), st.lists(st.integers(1, 20), min_size=1, max_size=5)), max_size=15
)


@given(shapes, st.integers(1, 4), st.integers(1, 80))
def test_every_completion_is_forwarded_once_by_the_rank_of_its_group(shapes, num_ranks, budget):
    groups = [group(i, p, lengths) for i, (p, lengths) in enumerate(shapes)]
    planner = PassPlanner(num_ranks, budget)
    passes = [p for rows in groups for p in planner.add(rows)] + planner.flush()
    assert all(len(p) == num_ranks for p in passes)
    for rank in range(num_ranks):
        rows = [row for p in passes for part in p[rank] for row in part.rows]
        assert rows == [row for rows in groups[rank::num_ranks] for row in rows]


@given(shapes, st.integers(1, 4), st.integers(1, 80), st.integers(0, 2**32))
def test_passes_depend_on_the_order_of_groups_and_not_on_when_they_come(
    shapes, num_ranks, budget, seed
):
    # Whatever has been given out after each group is a beginning of what is given out in the end.
    groups = [group(i, p, lengths) for i, (p, lengths) in enumerate(shapes)]
    whole = PassPlanner(num_ranks, budget)
    expected = [p for rows in groups for p in whole.add(rows)] + whole.flush()
    stop = seed % (len(groups) + 1)
    part = PassPlanner(num_ranks, budget)
    given_out = [p for rows in groups[:stop] for p in part.add(rows)]
    assert given_out == expected[: len(given_out)]
