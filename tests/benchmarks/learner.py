"""Learner: forward and backward of one group, against padded rows in plain PyTorch.

    python -m tests.benchmarks.learner [--quick]

All sides take the same GRPO loss (one update, no reference) of the same random group through the
same GPT-NeoX, float32, all cores, and must find the same gradient.
c2s_rl: the learner's own path, one packed row with the prompt once, fused head.
padded: rows of prompt + completion through the model as transformers ships it (sdpa), logits of all
positions, log-softmax and gather.
padded_kept: the same, but the prompt's positions are not projected (`logits_to_keep`).
The padded sides try micro-batches of 1 row, 4 rows and all that fit the learner's token budget, and
are timed with their fastest. Required against padded: 0.9 of the ratio of tokens,
G (P + C) / (P + G C). Both project the same tokens in padded_kept, so 0.9 of the ratio of matrix
operations is what can be asked there: body x G (P + C) + head x G C over body x (P + G C) + head x
G C, with the parameters of body and head.
The first pass warms up; the median of the next ones counts. Peak memory is the process's high-water
mark over the timed passes, less what it held before them.
"""

import argparse
import json
import re
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from actors.engine_env import common_env, num_cores
from tests.benchmarks.harness import Figures, Result, in_turns, report

MODULE = "tests.benchmarks.learner"
SIDES = ("c2s_rl", "padded", "padded_kept")
ROUNDS = 2
PASSES = 2
MICRO_BATCH_TOKENS = 8192  # the learner's default
STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Case:
    """One group and the model it goes through."""

    prompt: int
    completion: int
    group: int
    vocabulary: int
    hidden: int = 256
    layers: int = 4

    @classmethod
    def parse(cls, text: str) -> "Case":
        """Read 'PxCxGxV', with hidden size and layers behind them where they are not the usual."""
        return cls(*map(int, text.split("x")))

    @property
    def option(self) -> str:
        """What `parse` reads."""
        parts = (self.prompt, self.completion, self.group, self.vocabulary, self.hidden)
        return "x".join(map(str, (*parts, self.layers)))

    @property
    def tokens_ratio(self) -> float:
        """Tokens of padded rows over tokens of the packed one."""
        prompt, completion, group = self.prompt, self.completion, self.group
        return group * (prompt + completion) / (prompt + group * completion)

    @property
    def operations_ratio(self) -> float:
        """The same in matrix operations, where both project the completions only."""
        body, head = 12 * self.layers * self.hidden**2, self.vocabulary * self.hidden
        completions = self.group * self.completion
        padded = body * self.group * (self.prompt + self.completion) + head * completions
        return padded / (body * (self.prompt + completions) + head * completions)

    def __str__(self) -> str:
        return (
            f"P={self.prompt} C={self.completion} G={self.group}, GPT-NeoX {self.hidden} x "
            f"{self.layers} layers, {self.vocabulary} tokens, float32, {num_cores()} cores"
        )


# P = C, 4 C and 16 C.
CASES = tuple(
    Case(prompt, 64, 16, vocabulary) for vocabulary in (1_000, 50_000) for prompt in (64, 256, 1024)
)
QUICK = (Case(32, 8, 4, 1000, hidden=64, layers=1),)


@dataclass(frozen=True)
class Data:
    """A group of random tokens."""

    prompt_P: torch.Tensor
    completions_G_C: torch.Tensor
    advantages_G: torch.Tensor


def make_model(case: Case) -> GPTNeoXForCausalLM:
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=case.vocabulary,
        hidden_size=case.hidden,
        num_hidden_layers=case.layers,
        num_attention_heads=4,
        intermediate_size=4 * case.hidden,
        max_position_embeddings=4096,
    )
    return GPTNeoXForCausalLM._from_config(config, attn_implementation="sdpa").eval()


def make_data(case: Case) -> Data:
    draw = torch.Generator().manual_seed(1)
    return Data(
        torch.randint(case.vocabulary, (case.prompt,), generator=draw),
        torch.randint(case.vocabulary, (case.group, case.completion), generator=draw),
        torch.randn(case.group, generator=draw),
    )


def prepare_padded(
    case: Case, data: Data, model: GPTNeoXForCausalLM, *, rows: int, is_kept: bool
) -> Callable[[], None]:
    """The reference: `rows` rows a micro-batch, logits of all positions or of completions only."""
    prompts_G_P = data.prompt_P.expand(case.group, -1)
    ids_G_L = torch.cat([prompts_G_P, data.completions_G_C], dim=1)
    kept = case.completion + 1 if is_kept else 0  # 0 keeps all

    def work() -> None:
        model.zero_grad()
        for start in range(0, case.group, rows):
            part = slice(start, start + rows)
            logits_B_L_V = model(
                input_ids=ids_G_L[part], use_cache=False, logits_to_keep=kept
            ).logits
            first = logits_B_L_V.shape[1] - case.completion - 1
            logprobs_B_L_V = torch.log_softmax(logits_B_L_V, dim=-1)
            targets_B_C_1 = data.completions_G_C[part].unsqueeze(2)
            logprobs_B_C = logprobs_B_L_V[:, first:-1].gather(2, targets_B_C_1).squeeze(2)
            ratio_B_C = torch.exp(logprobs_B_C - logprobs_B_C.detach())
            clipped_B_C = ratio_B_C.clamp(0.8, 1.2)
            advantages_B_1 = data.advantages_G[part].unsqueeze(1)
            objective_B_C = torch.minimum(ratio_B_C * advantages_B_1, clipped_B_C * advantages_B_1)
            (-objective_B_C.mean(dim=1).sum() / case.group).backward()

    return work


def prepare_c2s_rl(case: Case, data: Data, model: GPTNeoXForCausalLM) -> Callable[[], None]:
    """What a learner rank does with one micro-batch of a step."""
    from c2s_rl.grpo.batch import Row
    from c2s_rl.grpo.loss import StepTotals
    from c2s_rl.grpo.loss_config import LossConfig
    from c2s_rl.grpo.micro_step import MicroBatch, micro_loss
    from c2s_rl.grpo.packing import PackedPart
    from c2s_rl.models.head_chunks import FusedOptions
    from c2s_rl.models.scorer import PackedScorer

    scorer = PackedScorer(model, FusedOptions())
    prompt = tuple(data.prompt_P.tolist())
    # the sampler's log-probabilities are only compared with, never learned from
    sampled = (0.0,) * case.completion
    rows = tuple(
        Row(prompt, tuple(tokens), sampled, advantage)
        for tokens, advantage in zip(
            data.completions_G_C.tolist(), data.advantages_G.tolist(), strict=True
        )
    )
    totals = StepTotals(case.group, case.group * case.completion, case.completion)

    def work() -> None:
        model.zero_grad()
        micro = MicroBatch.of(
            [PackedPart(prompt, rows)], pad_id=0, support=None, device=torch.device("cpu")
        )
        micro_loss(LossConfig(beta=0.0), scorer, micro, totals).loss.backward()

    return work


def fastest_padded(case: Case, data: Data, model: GPTNeoXForCausalLM, *, is_kept: bool) -> int:
    """Rows of the micro-batch that takes least time."""
    most = min(case.group, max(1, MICRO_BATCH_TOKENS // (case.prompt + case.completion)))
    seconds = {}
    for rows in sorted({1, min(4, most), most}):
        work = prepare_padded(case, data, model, rows=rows, is_kept=is_kept)
        start = time.perf_counter()
        work()
        seconds[rows] = time.perf_counter() - start
    return min(seconds, key=seconds.__getitem__)


def measure(side: str, case: Case) -> Figures:
    """Time one side in this process."""
    torch.set_num_threads(num_cores())
    model, data = make_model(case), make_data(case)
    rows = case.group
    if side == "c2s_rl":
        work = prepare_c2s_rl(case, data, model)
    else:
        is_kept = side == "padded_kept"
        rows = fastest_padded(case, data, model, is_kept=is_kept)
        work = prepare_padded(case, data, model, rows=rows, is_kept=is_kept)
    work()
    model.zero_grad()
    CLEAR_REFS.write_text("5", encoding="ascii")  # sets the high-water mark back to what is held
    before = _status_mib("VmRSS")
    seconds = []
    for _ in range(PASSES):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    gradient = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None])
    return {
        "seconds": statistics.median(seconds),
        "peak_mib": _status_mib("VmHWM") - before,
        "rows": float(rows),
        "gradient": gradient.norm().item(),
    }


def _status_mib(name: str) -> float:
    found = re.search(rf"^{name}:\s+(\d+) kB", STATUS.read_text(encoding="ascii"), re.MULTILINE)
    if found is None:
        raise ValueError(f"{STATUS} must hold {name}, got none")
    return int(found.group(1)) / 1024


def compare(case: Case, *, rounds: int) -> list[Result]:
    """Time ratios of one case against both forms of the reference.

    Raises:
        ValueError: If the sides find other gradients.
    """
    figures = in_turns(
        MODULE, SIDES, rounds=rounds, options=["--case", case.option], env=common_env(num_cores())
    )
    ours = figures["c2s_rl"]
    lines = []
    for side, what, ratio in (
        ("padded", "padded rows, all logits", case.tokens_ratio),
        ("padded_kept", "padded rows, completions' logits", case.operations_ratio),
    ):
        theirs = figures[side]
        if abs(theirs["gradient"] - ours["gradient"]) > 1e-3 * theirs["gradient"]:
            raise ValueError(
                f"both sides must find the same gradient, got norms {ours['gradient']} "
                f"and {theirs['gradient']} ({side}) for {case}"
            )
        lines.append(
            Result(
                what="learner forward+backward",
                against=what,
                workload=f"{case}: {ours['seconds']:.3f} s, {ours['peak_mib']:.0f} MiB against "
                f"{theirs['seconds']:.3f} s, {theirs['peak_mib']:.0f} MiB "
                f"({theirs['rows']:.0f} rows a micro-batch)",
                ratio=theirs["seconds"] / ours["seconds"],
                bound=0.9 * ratio,
            )
        )
    return lines


def results(*, quick: bool) -> list[Result]:
    """All cases; `quick` runs a tiny one, to see that it runs."""
    cases, rounds = (QUICK, 1) if quick else (CASES, ROUNDS)
    return [line for case in cases for line in compare(case, rounds=rounds)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", choices=SIDES, help="measure one side in this process")
    parser.add_argument("--case", type=Case.parse, default=QUICK[0], help="PxCxGxV")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.side:
        print(json.dumps(measure(options.side, options.case)))
    else:
        report(results(quick=options.quick))


if __name__ == "__main__":
    main()
