"""What holding completions to the gene trie costs, in the sampler and in the learner.

    python -m tests.benchmarks.trie [--rounds 3]

The trie holds the human gene symbols of HGNC (about 44,600; made-up ones where the file is not
there) in the 49,152 tokens of SmolLM2. Measured, each in its own process:
- the logits processor of one engine step: 64 rows, their walks and their masks, at random logits;
- the replay of one completion's masks from its tokens, a token;
- vLLM sampling 64 completions of a small Llama with and without the trie, a token. The peer is the
  same engine without it; the two take turns.
"""

import argparse
import gzip
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.benchmarks.harness import PROJECT, Figures, Result, in_turns, report

MODULE = "tests.benchmarks.trie"
SIDES = ("processor", "replay", "engine on", "engine off")
GENES = Path("genes") / "hgnc_slim.tsv.gz"
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
NUM_ROWS, MAX_TOKENS, ENGINE_TOKENS = 64, 256, 128
NUM_THREADS = 2
# Required: milliseconds a step, microseconds a token, share of the time without the trie.
STEP_MS, REPLAY_US, ENGINE_RATIO = 1.0, 5.0, 1.10


def gene_symbols(num_genes: int | None) -> tuple[str, ...]:
    """The first so many human symbols; made-up ones if the table is not there."""
    folder = Path(os.environ.get("C2S_RL_DATA", PROJECT.parent / "shared" / "data"))
    if not (folder / GENES).is_file():
        rng = np.random.default_rng(0)
        letters = np.array(list("ABCDEFGHIJKLMNOPRSTZ1234567890"))
        words = ("".join(rng.choice(letters, rng.integers(3, 9))) for _ in range(42_000))
        return tuple(dict.fromkeys(words))[:num_genes]
    with gzip.open(folder / GENES, "rt", encoding="utf-8") as file:
        symbols = dict.fromkeys(line.split("\t")[0] for line in list(file)[1:])
    return tuple(s for s in symbols if s.split() == [s])[:num_genes]


def load_tokenizer(num_genes: int | None):
    """SmolLM2's; a small one of our own for a quick run."""
    if num_genes is not None:
        from c2s_rl.models.tokenizer import train_bpe

        return train_bpe(["HLA-A CD3D"], vocabulary_size=270, max_length=1024)
    from transformers import AutoTokenizer

    from c2s_rl.models.base_model import find_smollm2

    gguf = find_smollm2()
    tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    tokenizer.model_max_length = 1024
    return tokenizer


def make_trie(num_genes: int | None):
    from c2s_rl.cells.vocabulary import Vocabulary
    from c2s_rl.decoding.constraint import GeneConstraint, GeneMode, gene_trie_for

    symbols = gene_symbols(num_genes)
    constraint = GeneConstraint(mode=GeneMode.ON)
    return gene_trie_for(load_tokenizer(num_genes), Vocabulary(symbols, symbols), constraint)


def sample_token(walk, eos_id: int, rng: np.random.Generator) -> int:
    """Take one of the allowed tokens, the end only where nothing else is left."""
    allowed = walk.allowed()
    token = int(allowed[int(rng.random() * len(allowed))])
    if token == eos_id:
        token = int(allowed[0])
    walk.advance(token)
    return token


def measure_processor(num_genes: int | None) -> Figures:
    """Median milliseconds of what the processor does in an engine step."""
    import torch

    from c2s_rl.decoding.gene_mask import keep_allowed

    trie = make_trie(num_genes)
    rng = np.random.default_rng(0)
    walks = [trie.walk(MAX_TOKENS) for _ in range(NUM_ROWS)]
    scouts = [trie.walk(MAX_TOKENS) for _ in range(NUM_ROWS)]  # choose the tokens, not timed
    logits = torch.randn(NUM_ROWS, 49152)
    rows = list(range(NUM_ROWS))
    seconds = []
    for _ in range(MAX_TOKENS - 1 if num_genes is None else 20):
        start = time.perf_counter()
        keep_allowed(logits, rows, walks)
        middle = time.perf_counter()
        tokens = [sample_token(scout, trie.eos_id, rng) for scout in scouts if not scout.is_done]
        if len(tokens) < NUM_ROWS:
            break
        logits.normal_()
        again = time.perf_counter()
        for walk, token in zip(walks, tokens, strict=True):
            walk.advance(token)
        seconds.append(middle - start + time.perf_counter() - again)
    return {"ms": 1e3 * statistics.median(seconds), "genes": len(trie.symbols)}


def measure_replay(num_genes: int | None) -> Figures:
    """Microseconds a token to recompute the masks of 64 completions."""
    trie = make_trie(num_genes)
    rng = np.random.default_rng(0)
    completions = []
    for _ in range(NUM_ROWS):
        walk, tokens = trie.walk(MAX_TOKENS), []
        while not walk.is_done:
            tokens.append(sample_token(walk, trie.eos_id, rng))
        completions.append(tokens)
    trie.replay(completions[0], max_tokens=MAX_TOKENS)  # compiles
    start = time.perf_counter()
    for tokens in completions:
        trie.replay(tokens, max_tokens=MAX_TOKENS)
    seconds = time.perf_counter() - start
    return {
        "us": 1e6 * seconds / sum(map(len, completions)),
        "genes": len(trie.symbols),
        "columns": len(trie.columns_U),
    }


def write_policy(folder: Path, num_genes: int | None) -> None:
    """A Llama of 3 million parameters with the 49k vocabulary and random weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = load_tokenizer(num_genes)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49152, hidden_size=64, num_hidden_layers=4, num_attention_heads=2,
        num_key_value_heads=2, intermediate_size=256, max_position_embeddings=1024,
        tie_word_embeddings=True, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def measure_engine(num_genes: int | None, *, is_on: bool, max_tokens: int) -> Figures:
    """Microseconds a sampled token of the real engine, warm."""
    from actors.engine_env import rollout_env

    os.environ |= rollout_env(NUM_THREADS, is_cpu=True, kv_cache_gib=1)
    from actors.engine_weights import EngineSync
    from actors.rollout import RolloutConfig, VLLMRolloutWorker
    from c2s_rl.cells.vocabulary import Vocabulary
    from c2s_rl.decoding.constraint import GeneConstraint, GeneMode
    from c2s_rl.grpo.roles import RolloutRequest
    from c2s_rl.grpo.sampling import SamplingConfig
    from c2s_rl.types import PromptRecord, Split, Task

    symbols = gene_symbols(num_genes)
    genes = GeneConstraint(mode=GeneMode.ON if is_on else GeneMode.OFF)
    sampling = SamplingConfig(group_size=16, max_tokens=max_tokens, genes=genes)
    none = np.zeros(0, dtype=np.int32)
    requests = [
        RolloutRequest(
            PromptRecord(
                str(i), " ".join(symbols[i : i + 40]), " x", Task.CELL_GENERATION, "c", "", "",
                Split.TRAIN, none, none,
            ),
            seed=i,
        )
        for i in range(NUM_ROWS // 16)
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        write_policy(Path(folder), num_genes)
        worker = VLLMRolloutWorker(
            Path(folder),
            Vocabulary(symbols, symbols),
            sampling,
            RolloutConfig(kv_cache_gib=1),
            EngineSync(),
        )
        worker.generate(requests)
        start = time.perf_counter()
        groups = worker.generate(requests)
        seconds = time.perf_counter() - start
    num_tokens = sum(len(c.token_ids_T) for g in groups for c in g.completions_G)
    num_wrong = sum(len(c.unknown) + c.num_duplicates for g in groups for c in g.cells_G)
    return {"us": 1e6 * seconds / num_tokens, "tokens": num_tokens, "wrong_words": num_wrong}


def results(*, quick: bool, rounds: int = 3) -> list[Result]:
    """Measure all sides; `quick` uses few genes and short completions, to see that it runs."""
    options = ["--genes", "300", "--tokens", "40"] if quick else []
    rounds = 1 if quick else rounds
    own = in_turns(MODULE, SIDES[:2], rounds=rounds, options=options, env=ONE_THREAD)
    engine = in_turns(MODULE, SIDES[2:], rounds=rounds, options=options)
    if engine["engine on"]["wrong_words"]:
        raise ValueError(f"the trie must let no wrong word through, got {engine['engine on']}")
    genes = f"{own['processor']['genes']:.0f} genes, 49,152 tokens"
    on, off = engine["engine on"], engine["engine off"]
    return [
        Result(
            "gene mask, ms an engine step", "1 ms", f"{NUM_ROWS} rows, {genes}, 1 thread",
            own["processor"]["ms"] / STEP_MS, 1.0, is_upper=True,
        ),
        Result(
            "gene mask replay, us a token", "5 us",
            f"{genes}, U={own['replay']['columns']:.0f}, 1 thread",
            own["replay"]["us"] / REPLAY_US, 1.0, is_upper=True,
        ),
        Result(
            "sampling with the trie, time a token", "without it",
            f"vLLM, 3M Llama, {NUM_ROWS} rows, {genes}, {NUM_THREADS} threads: "
            f"{1e6 / on['us']:.0f} and {1e6 / off['us']:.0f} tokens/s",
            on["us"] / off["us"], ENGINE_RATIO, is_upper=True,
        ),
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--genes", type=int, help="a quick run: so many genes, a small tokenizer")
    parser.add_argument("--tokens", type=int, default=ENGINE_TOKENS, help="of a sampled completion")
    parser.add_argument("--side", choices=SIDES, help="measure one side in this process")
    options = parser.parse_args()
    if options.side is None:
        report(results(quick=False, rounds=options.rounds))
    elif options.side == "processor":
        print(json.dumps(measure_processor(options.genes)))
    elif options.side == "replay":
        print(json.dumps(measure_replay(options.genes)))
    else:
        is_on = options.side == "engine on"
        figures = measure_engine(options.genes, is_on=is_on, max_tokens=options.tokens)
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
