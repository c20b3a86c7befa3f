"""Reward workers on a real Ray: a plug-in that hangs, dies or leaks costs its completion only."""

import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
import ray

from actors.reward_pools import RewardStart, reward_pools
from actors.session import RayConfig, ray_session
from c2s_rl.errors import ConfigError, StageError
from c2s_rl.evaluation.material import RewardMaterial
from rewards.composite import RewardSpec
from rewards.pool_config import RewardPoolConfig
from tests.reward_cases import VOCABULARY, make_group, moody

pytestmark = pytest.mark.integration

NUM, BAD = 64, 37
TEXTS = ["A" + " B" * (i % 5) for i in range(NUM)]
WORDS = tuple(1.0 + i % 5 for i in range(NUM))


@pytest.fixture(scope="module")
def session():
    with ray_session(RayConfig(), num_cpus=4):
        yield


@pytest.fixture
def open_pools(session):
    """Starts the workers of some rewards and ends them after the test."""
    contexts = []

    def start(*specs, **config):
        default = RewardPoolConfig(num_cpus=0.2, **config)
        context = reward_pools(RewardStart(specs, VOCABULARY, RewardMaterial(), default))
        contexts.append(context)
        pools = context.__enter__()
        pools.ready()
        return pools

    yield start
    for context in contexts:
        context.__exit__(None, None, None)


def pids_of(pools):
    (pool,) = pools._pools
    return ray.get([worker.pid.remote() for worker in pool.workers])


@pytest.mark.parametrize(
    ("trouble", "kind"), [("hang", "deadline"), ("exit", "crashed"), ("leak", "memory")]
)
def test_one_bad_of_64_costs_its_own_score_and_at_most_the_deadline(open_pools, trouble, kind):
    deadline_s = 6.0
    pools = open_pools(
        moody(trouble=trouble), num_workers=2, deadline_s=deadline_s, memory_gib=0.75
    )
    before = pids_of(pools)
    texts = [*TEXTS[:BAD], "BAD", *TEXTS[BAD + 1 :]]
    began = time.monotonic()
    (scored,) = pools.score([make_group(texts)])
    seconds = time.monotonic() - began
    assert scored.rewards_G == (*WORDS[:BAD], None, *WORDS[BAD + 1 :])
    assert scored.failures["words"][BAD].startswith(f"{kind}: ")
    assert sum(message is not None for message in scored.failures["words"]) == 1
    # two processes were replaced beside it, each in a second or two
    assert seconds < deadline_s + 10.0
    after = pids_of(pools)
    ended = set(before) - set(after)
    assert len(ended) == 1
    assert not any(map(psutil.pid_exists, ended))
    assert len(set(after)) == 2
    assert all(map(psutil.pid_exists, after))
    # the pool is back to full size: both workers score
    again = pools.score([make_group(TEXTS, prompt=f"p{i}") for i in range(2)])
    assert [s.rewards_G for s in again] == [WORDS] * 2
    figures = pools.figures()
    assert figures[f"reward_worker/words/failures/{kind}"] == 1.0
    assert figures["reward_worker/words/restarts"] == 2.0
    assert figures["reward_worker/words/completions"] == 3.0 * NUM


def test_a_crash_of_one_reward_costs_no_other_its_scores(open_pools):
    pools = open_pools(
        moody(trouble="exit", label="bad"),
        RewardSpec(name="validity", options={"num_genes": 2}),
    )
    (scored,) = pools.score([make_group(["A B", "BAD", "A"])])
    assert scored.components["validity"] == (1.0, 0.0, 0.5)
    assert scored.components["bad"] == (2.0, None, 1.0)
    assert scored.rewards_G == (3.0, None, 1.5)
    assert list(scored.failures) == ["bad"]


def test_groups_that_wait_are_scored_in_one_call_with_the_same_bits(open_pools):
    spec = RewardSpec(name="validity", options={"num_genes": 7})
    groups = [make_group(TEXTS[i : i + 8], prompt=f"p{i}") for i in range(40)]
    results, calls = [], []
    for max_groups in (1, 8):
        pools = open_pools(spec, max_groups=max_groups)
        with ThreadPoolExecutor(pools.max_calls) as threads:
            results.append(list(threads.map(lambda g: pools.score([g])[0].rewards_G, groups)))  # noqa: B023
        calls.append(pools.figures()["reward_worker/validity/calls"])
    assert results[0] == results[1]
    assert calls[0] == 40.0
    assert calls[1] < 40.0


def test_conditions_are_scored_whole(open_pools):
    pools = open_pools(moody("MoodyPopulation"))
    assert pools.is_per_condition
    groups = [make_group(["A", "B"], condition=c) for c in ("x", "y", "x")]
    scored = pools.score(groups)
    # words of the condition: two groups of two in x, one in y
    assert [s.rewards_G for s in scored] == [(4.0, 4.0), (2.0, 2.0), (4.0, 4.0)]


def test_a_worker_that_is_lost_is_replaced(open_pools):
    pools = open_pools(moody())
    (pool,) = pools._pools
    (process,) = pids_of(pools)
    ray.kill(pool.workers[0])
    (scored,) = pools.score([make_group(TEXTS)])
    assert scored.rewards_G == WORDS
    # the plug-in's process does not outlive the worker that watched it
    deadline = time.monotonic() + 10
    while psutil.pid_exists(process):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_rewards_may_have_workers_of_their_own(open_pools):
    own = RewardPoolConfig(num_workers=2, num_cpus=0.1)
    pools = open_pools(moody(workers=own), moody(label="other"))
    assert [len(pool.workers) for pool in pools._pools] == [2, 1]


def test_a_plugin_that_cannot_be_loaded_and_resources_that_nobody_has_are_errors(open_pools):
    with pytest.raises(ConfigError, match="got OSError: no weights in reward 'words'"):
        open_pools(moody("Unbuildable"))
    with pytest.raises(ConfigError, match="what the cluster has, got 1 'fpga' of 0"):
        open_pools(moody(), resources={"fpga": 1.0})


def test_what_is_under_way_when_the_workers_end_fails_and_does_not_wait(open_pools):
    pools = open_pools(moody(trouble="hang"))
    (pool,) = pools._pools
    futures = [pool.submit([make_group(["BAD", "A"])]) for _ in range(20)]
    time.sleep(1.0)
    pool.close()
    for future in futures:
        with pytest.raises(StageError):
            future.result(timeout=20)
    with pytest.raises(StageError, match="must be open to score, got a closed pool"):
        pool.submit([make_group(["A"])])
