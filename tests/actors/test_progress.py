"""Progress in the log of a job, where there is no terminal."""

import io

from rich.console import Console

from actors.progress import AlignProgress, CountProgress, SftProgress
from c2s_rl.pipeline.align import StepReport
from c2s_rl.pipeline.pretrain import PretrainConfig
from c2s_rl.pipeline.tokens import TokenProgress

FIGURES = {
    "reward_mean": 0.5,
    "kl": 0.01,
    "length_mean": 99.6,
    "duplicate_rate": 0.1,
    "unknown_rate": 0.05,
    "tokens_per_s": 1234.0,
}


def test_a_log_gets_some_lines_with_reward_kl_and_validity():
    stream = io.StringIO()
    with AlignProgress(Console(file=stream), 40) as progress:
        for step in range(40):
            progress.update(StepReport(step, 40, FIGURES))
    lines = stream.getvalue().splitlines()
    assert len(lines) == 20
    # valid = 1 - 0.1 - 0.05
    assert lines[-1] == (
        "GRPO 40/40  reward 0.500  KL 0.0100  length 100  "
        "valid 85.0% (repeated 10.0%, unknown 5.0%)  1234 tokens/s"
    )


def test_pretraining_shows_tokens_then_losses_under_its_own_name():
    stream = io.StringIO()
    with SftProgress(Console(file=stream), PretrainConfig(num_steps=200)) as progress:
        for done in range(1, 41):
            progress.tokenised(TokenProgress("tokenising", done, 40))
        progress.update({"step": 200, "loss": 1.5, "lr": 1e-5, "tokens_per_s": 1234.0})
        progress.update({"step": 200, "eval_loss": 1.25, "eval_loss/cell_generation": 1.25})
    lines = stream.getvalue().splitlines()
    assert lines[:2] == ["tokenising tokens 2/40", "tokenising tokens 4/40"]
    assert lines[20:] == [
        "pretraining 200/200  loss 1.5  lr 1e-05  tokens/s 1234",
        "pretraining 200/200  held-out loss 1.25",
    ]


def test_counted_work_is_told_in_few_lines():
    stream = io.StringIO()
    with CountProgress(Console(file=stream), "embed") as progress:
        progress.update(0, 1000)
        for done in range(1, 1001):
            progress.update(done, 1000)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 21  # at the start and at every twentieth of the work
    assert (lines[0], lines[-1]) == ("embed 0/1000", "embed 1000/1000")
