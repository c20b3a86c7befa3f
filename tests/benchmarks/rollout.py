"""Rollout: this package's vLLM worker against Hugging Face `generate`, tokens a second.

    python -m tests.benchmarks.rollout [--quick]

All sample G completions of C tokens for each prompt from the same weights at temperature 1, in
float32, with a KV cache, on all cores. c2s_rl: the product's rollout worker (a Ray actor) with
`RolloutConfig` as it comes, every prompt in one call, asked for what a step needs: tokens,
log-probabilities, text and parsed cells. transformers: one prompt a call with
num_return_sequences=G, asked for tokens only; its own default cache, which grows by copying, and
`static`, which is allocated once and is faster on a CPU.
The first prompt warms up each side, the others are timed.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

from actors.engine_env import common_env, num_cores
from actors.launch import rollout_pool
from actors.rollout import RolloutConfig
from actors.session import RayConfig, ray_session
from c2s_rl.data.prompt_set import read_prompts
from c2s_rl.decoding.constraint import GeneConstraint, GeneMode
from c2s_rl.grpo.roles import RolloutRequest
from c2s_rl.grpo.sampling import SamplingConfig
from tests.benchmarks.harness import Result, in_turns, report
from tests.benchmarks.workload import BASE, CORPUS, TINY, Shape, read_shape, write_workload

MODULE = "tests.benchmarks.rollout"
SIDES = ("c2s_rl", "transformers", "transformers_static")
BOUND = 2.5
SHAPE = Shape(prompt_tokens=1024, completion_tokens=256, group_size=32, num_prompts=3)
QUICK = Shape(prompt_tokens=64, completion_tokens=16, group_size=4, num_prompts=2, model=TINY)


def run_c2s_rl(folder: Path, shape: Shape) -> tuple[int, float]:
    """Generate with the worker of the product; return tokens and seconds."""
    config = RolloutConfig()
    prompts = read_prompts(folder / CORPUS)
    sampling = SamplingConfig(
        group_size=shape.group_size,
        max_tokens=shape.completion_tokens,
        # the peer has no gene-constrained decoding: both sample from the whole vocabulary
        genes=GeneConstraint(mode=GeneMode.OFF),
    )
    requests = [RolloutRequest(r, seed=100 * i) for i, r in enumerate(prompts.records)]
    with (
        ray_session(RayConfig(address="local"), num_cpus=config.num_cpus),
        rollout_pool(folder / BASE, prompts.vocabulary, sampling, config) as pool,
    ):
        pool.generate(requests[:1])
        start = time.perf_counter()
        groups = pool.generate(requests[1:])
        seconds = time.perf_counter() - start
    return sum(len(c.token_ids_T) for group in groups for c in group.completions_G), seconds


def run_transformers(folder: Path, shape: Shape, *, cache: str | None) -> tuple[int, float]:
    """Generate with transformers and one of its caches; return tokens and seconds."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(num_cores())
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(folder / BASE, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(
        folder / BASE, dtype=torch.float32, local_files_only=True
    ).eval()

    def generate(prompt: str, max_tokens: int) -> int:
        inputs = tokenizer(prompt, return_tensors="pt")
        with torch.inference_mode():
            output = model.generate(
                **inputs,
                do_sample=True,
                temperature=1.0,
                top_k=0,
                max_new_tokens=max_tokens,
                num_return_sequences=shape.group_size,
                pad_token_id=tokenizer.pad_token_id,
                cache_implementation=cache,
            )
        return output[:, inputs["input_ids"].shape[1] :].numel()

    prompts = [record.prompt for record in read_prompts(folder / CORPUS).records]
    warm_up, *timed = prompts
    generate(warm_up, shape.completion_tokens)
    start = time.perf_counter()
    num_tokens = sum(generate(prompt, shape.completion_tokens) for prompt in timed)
    return num_tokens, time.perf_counter() - start


def run_side(side: str, folder: Path) -> None:
    """Measure one side in this process and print one JSON object."""
    shape = read_shape(folder)
    if side == "c2s_rl":
        num_tokens, seconds = run_c2s_rl(folder, shape)
    else:
        cache = "static" if side == "transformers_static" else None
        num_tokens, seconds = run_transformers(folder, shape, cache=cache)
    expected = (shape.num_prompts - 1) * shape.group_size * shape.completion_tokens
    if num_tokens != expected:
        raise ValueError(f"{side} must generate {expected} tokens, got {num_tokens}")
    print(json.dumps({"tokens_per_s": num_tokens / seconds}))


def results(*, quick: bool) -> list[Result]:
    """A line for each cache; `quick` runs a tiny shape, to see that it runs."""
    shape = QUICK if quick else SHAPE
    with tempfile.TemporaryDirectory() as folder:
        write_workload(Path(folder), shape)
        figures = in_turns(
            MODULE,
            SIDES,
            rounds=1 if quick else 2,
            options=["--folder", folder],
            env=common_env(num_cores()),
        )
    ours = figures["c2s_rl"]["tokens_per_s"]
    return [
        Result(
            what="rollout tokens/s",
            against=against,
            workload=f"{shape}, one of them to warm up: {ours:.0f} against {theirs:.0f} tokens/s",
            ratio=ours / theirs,
            bound=BOUND,
        )
        for side, against in (
            ("transformers", "transformers generate"),
            ("transformers_static", "transformers generate, static cache"),
        )
        if (theirs := figures[side]["tokens_per_s"])
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", choices=SIDES, help="measure one side in this process")
    parser.add_argument("--folder", type=Path, help="workload of --side")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.side:
        run_side(options.side, options.folder)
    else:
        report(results(quick=options.quick))


if __name__ == "__main__":
    main()
