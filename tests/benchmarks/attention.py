"""Forward and backward of the backbone: shared prompts against padded rows, same model, same run.

    python -m tests.benchmarks.attention [--rounds 3] [--shape 1024x256x16] [--threads 2] [--quick]

Workload: a GPT-NeoX backbone (hidden 256, 4 heads, 4 layers, feed-forward 1,024, vocabulary 1,000:
3.4M parameters), float32, one group of G completions of equal length. Shared: one packed row
through `shared_prompt_hidden`. Padded: [G, P + C] rows through the same model with transformers'
sdpa attention, which sees that nothing is padded and takes its causal path; the whole group at
once, or row by row (`padded_rows`). The faster of the two counts for time, the whole group for
memory. The loss is the hidden states of the predicting tokens times fixed random numbers; no
language-model head on any side. Each side runs in its own process; the sides take turns; the first
pass warms up and sets the peak memory, the median of the next ones counts. Wall time, or CPU time
with one thread, which other work on the machine disturbs less.

The bound is 0.9 of the ratio of multiplications, not of tokens, G (P + C) / (P + G C): with a
shared prompt too, every completion token attends to all of it. With D hidden, 12 D^2 weights a
layer and 2 D a visible pair, backward counted as 2 x and 2.5 x forward:

    cost = 3 * 12 D^2 * tokens + 3.5 * 2 D * pairs
    padded: tokens = G (P + C), pairs = G (P + C)(P + C + 1) / 2
    shared: tokens = P + G C,   pairs = P (P + 1) / 2 + G C P + G C (C + 1) / 2
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from c2s_rl.grpo.batch import Row
from c2s_rl.grpo.packing import PackedPart, pack_rows
from c2s_rl.models.shared_prompt import shared_prompt_hidden, use_shared_prompts
from tests.benchmarks.harness import Result, in_turns, peak_megabytes, report

SIDES = ("shared", "padded", "padded_rows")
SHAPES = ("256x256x16", "1024x256x16", "4096x256x8")  # P x C x G: P = C, 4 C, 16 C
QUICK_SHAPES = ("16x8x4",)  # too small to say anything but that it runs
HIDDEN = 256
PASSES = 2


def make_model() -> GPTNeoXForCausalLM:
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=1000,
        hidden_size=HIDDEN,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=1024,
        max_position_embeddings=8192,
    )
    return GPTNeoXForCausalLM._from_config(config, attn_implementation="sdpa").eval()


def make_part(prompt: int, completion: int, group: int) -> PackedPart:
    generator = torch.Generator().manual_seed(1)
    prompt_ids = tuple(torch.randint(1000, (prompt,), generator=generator).tolist())
    rows = torch.randint(1000, (group, completion), generator=generator).tolist()
    zeros = (0.0,) * completion
    return PackedPart(prompt_ids, tuple(Row(prompt_ids, tuple(r), zeros, 0.0) for r in rows))


def prepare_shared(part: PackedPart, weights_N_D: torch.Tensor) -> Callable[[], float]:
    model = make_model()
    use_shared_prompts(model)
    batch = pack_rows([part], pad_id=0)

    def work() -> float:
        model.zero_grad()
        hidden = shared_prompt_hidden(
            model, batch.input_ids_1_L, batch.position_ids_1_L, batch.layout
        )
        loss = (hidden[0, batch.predict_N] * weights_N_D).sum()
        loss.backward()
        return loss.item()

    return work


def prepare_padded(
    part: PackedPart, weights_N_D: torch.Tensor, *, num_rows: int
) -> Callable[[], float]:
    """Padded rows, `num_rows` a pass."""
    model = make_model()
    ids_B_L = torch.tensor([row.prompt_ids + row.completion_ids for row in part.rows])
    weights_B_T_D = weights_N_D.view(len(part.rows), -1, weights_N_D.shape[-1])
    first = len(part.prompt_ids) - 1

    def work() -> float:
        model.zero_grad()
        total = 0.0
        for start in range(0, len(ids_B_L), num_rows):
            ids = ids_B_L[start : start + num_rows]
            hidden = model.gpt_neox(
                input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False
            ).last_hidden_state
            loss = (hidden[:, first:-1] * weights_B_T_D[start : start + num_rows]).sum()
            loss.backward()
            total += loss.item()
        return total

    return work


def measure(side: str, shape: str, threads: int) -> None:
    """Time one side in this process and print one JSON object."""
    torch.set_num_threads(threads)
    clock = time.process_time if threads == 1 else time.perf_counter
    prompt, completion, group = sizes_of(shape)
    part = make_part(prompt, completion, group)
    weights_N_D = torch.randn(
        group * completion, HIDDEN, generator=torch.Generator().manual_seed(2)
    ) / (group * completion)
    if side == "shared":
        work = prepare_shared(part, weights_N_D)
    else:
        rows = group if side == "padded" else 1
        work = prepare_padded(part, weights_N_D, num_rows=rows)
    before = peak_megabytes()
    loss = work()
    peak = peak_megabytes()
    seconds = []
    for _ in range(PASSES):
        start = clock()
        work()
        seconds.append(clock() - start)
    figures = {
        "seconds": statistics.median(seconds),
        "peak_mib": peak - before,
        "loss": loss,
    }
    print(json.dumps(figures))


def sizes_of(shape: str) -> tuple[int, int, int]:
    prompt, completion, group = map(int, shape.split("x"))
    return prompt, completion, group


def cost(num_tokens: int, num_pairs: float) -> float:
    """Multiplications of one layer, forward and backward; see the top of this file."""
    return 3 * 12 * HIDDEN**2 * num_tokens + 3.5 * 2 * HIDDEN * num_pairs


def cost_ratio(prompt: int, completion: int, group: int) -> float:
    def triangle(n: int) -> float:
        return n * (n + 1) / 2

    length, answers = prompt + completion, group * completion
    shared_pairs = triangle(prompt) + answers * prompt + group * triangle(completion)
    padded = cost(group * length, group * triangle(length))
    return padded / cost(prompt + answers, shared_pairs)


def compare(shape: str, *, rounds: int, threads: int) -> tuple[Result, Result]:
    """Time ratio and memory share of one shape; prints the figures they come from."""
    options = ["--shape", shape, "--threads", str(threads)]
    env = {"OMP_NUM_THREADS": str(threads)}
    module = "tests.benchmarks.attention"
    sides = in_turns(module, SIDES, rounds=rounds, options=options, env=env)
    losses = [figures["loss"] for figures in sides.values()]
    if max(losses) - min(losses) > 1e-3 * abs(losses[0]) + 1e-6:
        raise ValueError(f"all sides must compute the same loss, got {losses}")
    for side, figures in sides.items():
        print(f"  {side}: {1e3 * figures['seconds']:.0f} ms, {figures['peak_mib']:.0f} MiB")
    prompt, completion, group = sizes_of(shape)
    tokens_ratio = group * (prompt + completion) / (prompt + group * completion)
    workload = (
        f"P={prompt} C={completion} G={group}, {tokens_ratio:.2f}x the tokens, "
        f"3.4M GPT-NeoX, float32, {threads} threads"
    )
    fastest = min(sides["padded"]["seconds"], sides["padded_rows"]["seconds"])
    time_ratio = Result(
        "backbone forward+backward, shared prompt",
        "padded rows (sdpa), the faster way",
        workload,
        ratio=fastest / sides["shared"]["seconds"],
        bound=0.9 * cost_ratio(prompt, completion, group),
    )
    memory_share = Result(
        "backbone peak memory, shared prompt",
        "padded rows (sdpa), whole group",
        workload,
        ratio=sides["shared"]["peak_mib"] / max(sides["padded"]["peak_mib"], 1e-9),
        bound=1 / (0.9 * tokens_ratio),
        is_upper=True,
    )
    return time_ratio, memory_share


def results(*, quick: bool) -> list[Result]:
    """All shapes; `quick` runs a tiny one, to see that it runs."""
    rounds, shapes = (1, QUICK_SHAPES) if quick else (3, SHAPES)
    return [line for shape in shapes for line in compare(shape, rounds=rounds, threads=2)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", choices=SIDES, help="measure one side in this process")
    parser.add_argument("--shape", action="append", help="prompt x completion x group size")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.side:
        measure(options.side, options.shape[0], options.threads)
        return
    for shape in options.shape or (QUICK_SHAPES if options.quick else SHAPES):
        report(compare(shape, rounds=options.rounds, threads=options.threads))


if __name__ == "__main__":
    main()
