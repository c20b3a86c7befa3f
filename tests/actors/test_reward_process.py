"""A reward worker and the real process of its plug-in, without Ray: every way it can fail."""

import pickle
import time

import psutil
import pytest

from actors.reward import RewardHost
from c2s_rl.errors import ConfigError, StageError
from rewards.base import FailureKind, RewardScope
from rewards.composite import RewardSpec
from rewards.pool_config import RewardPoolConfig
from tests.reward_cases import make_group, moody, setup_of

GOOD = ["A", "B B", "A B A", "B"]
WORDS = (1.0, 2.0, 3.0, 1.0)
BAD = 2  # the place of the bad completion in a group that has one


@pytest.fixture
def open_host():
    """Starts workers and ends them after the test."""
    hosts = []

    def start(spec, scope=RewardScope.GROUP, **config):
        host = RewardHost(setup_of(spec, scope), RewardPoolConfig(**config))
        hosts.append(host)
        host.ready()
        return host

    yield start
    for host in hosts:
        host.close()


def score(host, *groups):
    blobs = [pickle.dumps(group) for group in groups]
    return host.score(blobs, [len(group.completions_G) for group in groups])


def with_bad(texts=GOOD):
    return make_group([*texts[:BAD], "BAD", *texts[BAD + 1 :]])


def family_is_gone(pids, *, within_s=5.0):
    deadline = time.monotonic() + within_s
    while any(map(psutil.pid_exists, pids)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.parametrize(
    ("trouble", "kind", "message"),
    [
        ("raise", "raised", "must not raise, got ZeroDivisionError"),
        ("none", "wrong_length", "must return a RewardResult, got None"),
        ("nan", "not_finite", "finite numbers, got nan"),
        ("text", "not_a_number", "finite numbers, got '2.0'"),
        ("exit", "crashed", "got its end with exit code 7 in reward 'words'"),
        ("sys_exit", "crashed", "got its end with exit code 3"),
        ("segfault", "crashed", "got its death by SIGSEGV"),
    ],
)
def test_a_failure_is_typed_and_costs_only_its_completion(open_host, trouble, kind, message):
    host = open_host(moody(trouble=trouble))
    answer = score(host, with_bad())
    assert answer.result.scores == (1.0, 2.0, None, 1.0)
    assert list(answer.result.failures) == [BAD]
    failure = answer.result.failures[BAD]
    assert failure.kind == FailureKind(kind)
    assert message in failure.message
    assert (answer.num_restarts > 0) == (kind == "crashed")
    # and the worker is as good as before
    assert score(host, make_group(GOOD)).result.scores == WORDS


def test_a_crash_costs_no_other_group_its_scores(open_host):
    host = open_host(moody(trouble="exit"))
    answer = score(host, make_group(GOOD), with_bad(), make_group(GOOD))
    assert answer.result.scores == (*WORDS, 1.0, 2.0, None, 1.0, *WORDS)
    assert list(answer.result.failures) == [4 + BAD]


def test_a_hang_is_dead_within_the_deadline_with_all_its_children(open_host):
    host = open_host(moody(trouble="hang_with_children"), deadline_s=4.0)
    pids = [host.pid()]
    began = time.monotonic()
    answer = score(host, with_bad())
    seconds = time.monotonic() - began
    assert answer.result.scores == (1.0, 2.0, None, 1.0)
    assert answer.result.failures[BAD].kind is FailureKind.DEADLINE
    # 2 s for the group and 0.5 s for the one, beside two new processes
    assert 2.5 < seconds < 2.5 + 12.0
    assert answer.num_restarts == 2
    assert family_is_gone(pids)
    assert [p for p in psutil.process_iter() if _is_sleeper(p)] == []


def _is_sleeper(process):
    try:
        return process.cmdline() == ["sleep", "600"]
    except psutil.Error:
        return False


def test_a_child_that_holds_the_pipe_of_a_dead_process_is_ended(open_host):
    host = open_host(moody(trouble="crash_with_children"), deadline_s=60.0)
    began = time.monotonic()
    answer = score(host, with_bad())
    assert answer.result.failures[BAD].kind is FailureKind.CRASHED
    assert answer.result.scores[0] == 1.0
    assert time.monotonic() - began < 15.0


def test_a_leak_is_ended_at_its_limit(open_host):
    host = open_host(moody(trouble="leak"), memory_gib=0.75)
    answer = score(host, with_bad())
    assert answer.result.scores == (1.0, 2.0, None, 1.0)
    failure = answer.result.failures[BAD]
    assert failure.kind is FailureKind.MEMORY
    assert "at most memory_gib=0.75, got 0." in failure.message


def test_what_a_plugin_prints_and_does_to_its_process_breaks_nothing(open_host):
    host = open_host(moody("Noisy"))
    assert score(host, make_group(GOOD)).result.scores == WORDS
    assert score(host, make_group(GOOD)).result.scores == WORDS


def test_an_async_plugin_is_awaited_and_its_hangs_have_the_deadline(open_host):
    host = open_host(moody("AsyncMoody"), deadline_s=2.0)
    assert score(host, make_group(GOOD)).result.scores == WORDS
    stuck = score(host, make_group(["A", "STUCK", "B"]))
    assert stuck.result.scores == (1.0, None, 1.0)
    assert stuck.result.failures[1].kind is FailureKind.DEADLINE


def test_a_crash_that_passes_costs_nothing(open_host, tmp_path):
    host = open_host(moody("Once", file=str(tmp_path / "seen")))
    answer = score(host, make_group(["A"]), make_group(["B"]))
    assert answer.result.scores == (1.0, 1.0)
    assert answer.num_restarts == 1


def test_look_ups_in_a_plugins_caches_are_counted(open_host):
    host = open_host(moody("Cached"))
    first, second = (
        score(host, make_group(["A", "B", "A B"])),
        score(host, make_group(["A", "B B"])),
    )
    assert (first.cache_hits, first.cache_misses) == (0, 3)
    assert (second.cache_hits, second.cache_misses) == (1, 1)


def test_a_condition_is_scored_without_what_crashes_it(open_host):
    host = open_host(moody("MoodyPopulation", trouble="exit"), RewardScope.CONDITION)
    answer = score(host, make_group(GOOD), with_bad())
    # words of the seven that are left: 7 of the first group, 4 of the second
    assert answer.result.scores == (11.0,) * 4 + (11.0, 11.0, None, 11.0)
    assert answer.result.failures[4 + BAD].kind is FailureKind.CRASHED


def test_groups_scored_together_have_the_same_bits_as_alone(open_host):
    host = open_host(RewardSpec(name="validity", options={"num_genes": 3}))
    groups = [make_group([*GOOD[i:], *GOOD[:i]], prompt=f"p{i}") for i in range(4)]
    together = score(host, *groups).result
    assert score(host, *groups).result == together  # the first call is checked, this one is not
    alone = [score(host, group).result for group in groups]
    assert together.scores == tuple(s for result in alone for s in result.scores)


def test_a_reward_that_depends_on_its_company_is_given_groups_alone(open_host):
    host = open_host(moody("Crowd"))
    groups = [make_group(["A", "B"])] * 3
    first = score(host, *groups)
    assert first.result.scores == (0.5,) * 6  # 1 / completions of the call
    assert "alike alone and beside others, got 0.5 and 0.16666666666666666" in first.warning
    assert "workers.max_groups: 1" in first.warning
    again = score(host, *groups)
    assert again.result.scores == (0.5,) * 6
    assert again.warning == ""


@pytest.mark.parametrize("num", [0, 1, 10_000])
def test_any_number_of_completions_is_scored(open_host, num):
    host = open_host(moody())
    assert score(host, make_group(["A B"] * num)).result.scores == (2.0,) * num


def test_emoji_and_megabytes_arrive_whole(open_host):
    host = open_host(moody())
    texts = ["🧬 é 基因 \x00 \ud800", "A " * 500_000, ""]
    result = score(host, make_group(texts)).result
    assert result.scores == (5.0, 500_000.0, 0.0)
    assert result.diagnostics["length"] == (10.0, 1_000_000.0, 0.0)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            moody("Unbuildable"),
            "must not raise when it is built, got OSError: no weights in.*words",
        ),
        (moody("Absent"), "tests.moody_rewards:Absent"),
        (moody(troubel="nan"), "did you mean 'trouble'"),
    ],
)
def test_a_plugin_that_cannot_be_loaded_is_an_error_at_the_start(open_host, spec, message):
    with pytest.raises(ConfigError, match=message):
        open_host(spec)


def test_a_plugin_that_takes_too_long_to_load_is_an_error_at_the_start(open_host):
    with pytest.raises(StageError, match=r"got no answer in 0.01 s.*while loading its plug-in"):
        open_host(moody(), start_deadline_s=0.01)
