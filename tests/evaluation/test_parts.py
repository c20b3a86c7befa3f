"""The two parts of the held-out prompts."""

import pytest

from c2s_rl.evaluation.parts import VALIDATION_SHARE, HeldOutPart, part_of


def test_prompts_that_show_one_control_are_in_one_part(record):
    parts = {
        context: {part_of(record(f"{context}/{i}", context_id=context, target_id=f"t{i}"), 7)
                  for i in range(8)}
        for context in ("c1", "c2", "c3", "c4", "c5", "c6", "c7", "c8")
    }  # fmt: skip
    assert all(len(found) == 1 for found in parts.values())
    assert set.union(*parts.values()) == set(HeldOutPart)


def test_prompts_without_control_are_divided_by_target(record):
    same = {part_of(record(f"p{i}", target_id="t"), 7) for i in range(8)}
    assert len(same) == 1


def test_the_share_is_kept_and_the_seed_matters(record):
    records = [record(f"p{i}") for i in range(4000)]
    chosen = [[part_of(r, seed) is HeldOutPart.VALIDATION for r in records] for seed in (0, 1)]
    # 4000 coins of a quarter: one standard deviation is 0.7 %
    assert sum(chosen[0]) / 4000 == pytest.approx(VALIDATION_SHARE, abs=0.03)
    assert chosen[0] != chosen[1]
