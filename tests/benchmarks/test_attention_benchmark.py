"""The benchmark runs; its figures are read by people, not tested."""

import json

import pytest
import torch

from tests.benchmarks import attention


def test_all_sides_compute_the_same_loss(capsys):
    # in this process: starting three takes longer than what they do
    for side in attention.SIDES:
        attention.measure(side, attention.QUICK_SHAPES[0], torch.get_num_threads())
    losses = [json.loads(line)["loss"] for line in capsys.readouterr().out.splitlines()]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-3)


def test_cost_ratio_by_hand():
    # D = 256: 12 D^2 = 786432 a token (x 3), 2 D = 512 a pair (x 3.5). P = 2, C = 1, G = 2:
    # padded 6 tokens, 2 x 6 pairs; shared 4 tokens, 3 + 4 + 2 pairs
    padded = 3 * 786432 * 6 + 3.5 * 512 * 12
    shared = 3 * 786432 * 4 + 3.5 * 512 * 9
    assert attention.cost_ratio(2, 1, 2) == pytest.approx(padded / shared)
