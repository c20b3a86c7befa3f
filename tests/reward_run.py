"""A run's corpus and completions on disk, scored by Kendall's tau and validity."""

import numpy as np

from c2s_rl.cells.programs import load_program
from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.data.completions import write_completions
from c2s_rl.data.prompt_set import PromptManifest, read_prompts, write_prompts
from c2s_rl.grpo.advantage import AdvantageScale, step_advantages
from rewards.composite import Aggregation, CompositeConfig, CompositeReward, RewardSpec
from tests.reward_fixtures import make_group, make_record

PROGRAM = "hallmark_interferon_alpha_response"
SYMBOLS = (*load_program(PROGRAM).symbols[:6], "X1", "X2")
VOCABULARY = Vocabulary(SYMBOLS, SYMBOLS)
SPECS = (
    RewardSpec(name="kendall", weight=1 / 3, options={"program": PROGRAM}),
    RewardSpec(
        name="validity",
        weight=2.0,
        schedule={"kind": "cosine", "to_step": 7},
        clip={"high": 0.8},
        options={"num_genes": 5},
    ),
)
NORMALISED = CompositeConfig(aggregation=Aggregation.NORMALISE_THEN_SUM)


def make_prompts(folder):
    """Three prompts on disk, read back."""
    records = [make_record(f"p{i}", condition=f"c{i % 2}") for i in range(3)]
    manifest = PromptManifest(
        organism="x", num_genes=8, seed=0, counts=(), dropped={}, num_short_targets=0,
        cells_manifest_sha256="", config={}, phrasings={}, symbols=SYMBOLS, original=SYMBOLS,
    )  # fmt: skip
    folder.mkdir(parents=True)
    write_prompts(folder, records, manifest)
    return read_prompts(folder)


def train(folder, prompts, config=None):
    """Write three steps as a run does, with answers at random; some empty, long or not genes."""
    rng = np.random.default_rng(0)
    reward = CompositeReward(SPECS, VOCABULARY, config=config)
    words = [*SYMBOLS, "NOGENE", "🧬"]
    for step in range(3):
        texts = [
            [" ".join(rng.choice(words, rng.integers(0, 9))) for _ in range(4)] for _ in range(3)
        ]
        texts[0][0], texts[1][1] = "", "Z" * 2**20
        groups = [
            make_group(t, r, version=step, symbols=VOCABULARY)
            for t, r in zip(texts, prompts.records, strict=True)
        ]
        scored = reward.score(groups)
        advantages = step_advantages([s.rewards_G for s in scored], scale=AdvantageScale.GROUP)
        write_completions(folder / f"step-{step:05d}.parquet", scored, advantages)
