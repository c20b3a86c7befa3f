"""Figures of a step by hand."""

import numpy as np

from c2s_rl.grpo.roles import RolloutRequest
from c2s_rl.pipeline.align_figures import rollout_figures
from c2s_rl.types import ScoredGroup
from tests.fakes import FakeRollout, make_record


def test_figures_of_abstaining_rewards_leave_them_out():
    rollout = FakeRollout()
    rollout.version, rollout.weight = 0, 1.0
    group = rollout.group(RolloutRequest(make_record("p"), 1))
    scored = ScoredGroup(group, (None, 3.0), {"r": (None, 3.0)}, {"d": (1.0, 2.0)})
    figures = rollout_figures([scored], [(0.0, 0.0)])
    assert figures["reward_mean"] == 3.0
    assert figures["reward/r"] == 3.0
    assert figures["abstained"] == 1.0
    assert figures["diagnostic/d"] == 1.5
    assert figures["zero_variance_groups"] == 1.0
    assert np.isfinite(list(figures.values())).all()


def test_figures_leave_failures_out_and_count_no_failure_as_abstention():
    rollout = FakeRollout(group_size=3)
    rollout.version, rollout.weight = 0, 1.0
    group = rollout.group(RolloutRequest(make_record("p"), 1))
    scored = [
        ScoredGroup(group, (None, 3.0, None), {"r": (None, 3.0, None)}, {"d": (np.nan, 1.0, 2.0)},
                    {"r": ("raised: no", None, None)}),
        ScoredGroup(group, (1.0, 1.0, 1.0), {"r": (1.0, 1.0, 1.0)}, {"e": (4.0, 4.0, 4.0)}),
    ]  # fmt: skip
    figures = rollout_figures(scored, [(0.0,) * 3] * 2)
    assert figures["reward/r"] == 1.5  # (3 + 1 + 1 + 1) / 4
    assert figures["abstained"] == 1.0
    assert figures["diagnostic/d"] == 1.5
    assert figures["diagnostic/e"] == 4.0
