"""BERTScore of a step's completions: c2s-rl against bert-score 0.3.13, same encoder, same run.

    python -m tests.benchmarks.bertscore [--quick]

Workload: 16 prompts x 16 completions and a reference each, drawn from the sentences of
configs/data/scqa_pbmc.jsonl (gene names, so some 1.9 tokens a word), one to ten sentences long;
MiniLM, layer 5 of 6; three steps, each with completions and references of its own, so that what
c2s_rl remembers of references gives it nothing here. The package gets the reference of each
completion repeated, as it needs; its scorer and our encoder are built once and scored once before.
Each side runs in its own process on one thread, which is what a reward worker has; the sides take
turns, and the ratio is of the median CPU times. F1 must agree: to 1e-5 in float32, to 1e-3 in
bfloat16 (ours only: the package has no such option).
"""

import argparse
import json
import random
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from c2s_rl.errors import MissingFileError
from c2s_rl.models.text_encoder import MINILM, resolve_encoder
from tests.benchmarks.harness import PROJECT, Result, in_turns, report
from tests.benchmarks.peers import load_bert_scorer

MODULE = "tests.benchmarks.bertscore"
QUESTIONS = PROJECT / "configs" / "data" / "scqa_pbmc.jsonl"
SIDES = ("float32", "bfloat16", "bert_score")
BOUNDS = {"float32": 1.3, "bfloat16": 2.0}
TOLERANCES = {"float32": 1e-5, "bfloat16": 1e-3}
LAYER = 5
MAX_SENTENCES = 10
THREADS = 1
Texts = tuple[list[str], list[str]]


def workload(num_prompts: int, group_size: int, *, seed: int) -> Texts:
    """Completions, and the reference of each."""
    lines = QUESTIONS.read_text(encoding="utf-8").splitlines()
    sentences = sorted({json.loads(line)["answer"] for line in lines})
    draw = random.Random(seed)

    def text() -> str:
        return " ".join(draw.sample(sentences, draw.randint(1, MAX_SENTENCES)))

    completions, references = [], []
    for _ in range(num_prompts):
        reference = text()
        completions += [text() for _ in range(group_size)]
        references += [reference] * group_size
    return completions, references


def prepare_ours(dtype: str) -> Callable[[Texts], np.ndarray]:
    from c2s_rl.evaluation.bertscore import BertScorer
    from c2s_rl.models.encoder_dtype import EncoderDtype
    from c2s_rl.models.encoding_cache import EncodingCache
    from c2s_rl.models.text_encoder import TextEncoder, TextEncoderConfig

    config = TextEncoderConfig(encoder=MINILM, layer=LAYER, dtype=EncoderDtype(dtype))
    scorer = BertScorer(TextEncoder(config), EncodingCache())
    return lambda texts: scorer.score(*texts).f1_B


def prepare_peer() -> Callable[[Texts], np.ndarray]:
    scorer = load_bert_scorer(resolve_encoder(MINILM), LAYER)
    return lambda texts: scorer.score(*texts)[2].numpy()


def run_side(side: str, num_prompts: int, group_size: int, num_steps: int) -> None:
    """Time one side in this process; prints its CPU time and a checksum of its scores."""
    score = prepare_peer() if side == "bert_score" else prepare_ours(side)
    score(workload(2, 2, seed=0))
    steps = [workload(num_prompts, group_size, seed=1 + step) for step in range(num_steps)]
    start = time.process_time()
    scores = np.concatenate([score(texts) for texts in steps])
    seconds = time.process_time() - start
    figures = {"seconds": seconds / num_steps}
    # Every score travels, so that the sides are compared one by one and not by their mean.
    print(json.dumps(figures | {f"f1_{i}": float(f1) for i, f1 in enumerate(scores)}))


def compare(num_prompts: int, group_size: int, num_steps: int, *, rounds: int) -> list[Result]:
    """Run all sides in turns.

    Raises:
        MissingFileError: If the encoder's package is not installed.
        ValueError: If a score differs from the package's by more than its tolerance.
    """
    folder = Path(resolve_encoder(MINILM))
    if not folder.is_dir():
        raise MissingFileError(f"the encoder must be a folder, got {folder}")
    sizes = ("prompts", num_prompts), ("group", group_size), ("steps", num_steps)
    options = [word for name, value in sizes for word in (f"--{name}", str(value))]
    env = {name: str(THREADS) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    env |= {"TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_VERBOSITY": "error"}
    figures = in_turns(MODULE, SIDES, rounds=rounds, options=options, env=env)
    peer = figures["bert_score"]
    results = []
    for side in ("float32", "bfloat16"):
        ours = figures[side]
        error = max(abs(ours[key] - peer[key]) for key in peer if key.startswith("f1_"))
        if error > TOLERANCES[side]:
            raise ValueError(
                f"F1 in {side} must be within {TOLERANCES[side]} of bert-score's, got {error:.2e}"
            )
        results.append(
            Result(
                what=f"BERTScore in {side}, CPU time",
                against="bert-score (float32)",
                workload=f"{num_prompts} prompts x {group_size} completions, MiniLM layer {LAYER}, "
                f"{THREADS} thread: {ours['seconds']:.2f} against {peer['seconds']:.2f} s a step, "
                f"largest |dF1| {error:.1e}",
                ratio=peer["seconds"] / ours["seconds"],
                bound=BOUNDS[side],
            )
        )
    return results


def results(*, quick: bool) -> list[Result]:
    """Two lines; `quick` takes a few texts, to see that it runs."""
    return compare(2, 3, 1, rounds=1) if quick else compare(16, 16, 3, rounds=3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", choices=SIDES, help="time one side in this process")
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--group", type=int, default=16)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.side:
        run_side(options.side, options.prompts, options.group, options.steps)
    else:
        report(results(quick=options.quick))


if __name__ == "__main__":
    main()
