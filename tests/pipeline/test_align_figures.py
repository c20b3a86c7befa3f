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
