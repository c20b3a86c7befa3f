"""The benchmarks that need Ray and vLLM run; their figures are read by people, not tested."""

import pytest

from tests.benchmarks import end_to_end, harness
from tests.benchmarks.workload import write_workload

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("side", ["c2s_rl", "trl_static"])
def test_both_sides_take_grpo_steps_of_full_length(tmp_path, side):
    # each side checks the lengths of its completions
    ((_, shape),) = end_to_end.QUICK
    write_workload(tmp_path, shape)
    figures = harness.run_side(end_to_end.MODULE, side, ["--folder", str(tmp_path)])
    assert figures["samples_per_s"] > 0
