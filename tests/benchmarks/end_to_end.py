"""GRPO end to end: completions a second of a whole step, against TRL's GRPOTrainer.

    python -m tests.benchmarks.end_to_end [--quick]

A step is: sample G completions of C tokens for each prompt, score them with Kendall's tau on the
interferon-alpha program, one AdamW update at beta=5e-3 with a frozen reference, weights back to the
sampler. Same model, prompts, group size, lengths and reward code; float32; all cores.
c2s_rl: the stage `align` as a user starts it (a Ray actor each for vLLM, the reward and the
DeepSpeed learner) with its defaults; gene-constrained decoding is off, for the peer has none.
c2s_rl_trie: the same with it on, as it is by default for cell sentences.
trl: GRPOTrainer without vLLM (its vLLM modes do not run on CPU), with what makes it fastest here:
no gradient checkpointing (its default is on), no bf16, TRL_ROWS rows a micro-batch, all completions
of a step generated in one batch. It is measured with the cache it generates with by default, and
with a static one (`cache_implementation`), which is much faster here.
The learner's forward passes over a completion, all sides: one of the reference, one of the policy;
no old-policy pass. Median of the timed steps, from one step's end to the next; loading and
checkpoints are left out.
"""

import argparse
import json
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path

from actors.engine_env import common_env, num_cores
from c2s_rl.data.prompt_set import PromptSet, read_prompts
from tests.benchmarks.harness import Result, in_turns, report
from tests.benchmarks.workload import BASE, CORPUS, TINY, Shape, read_shape, write_workload

MODULE = "tests.benchmarks.end_to_end"
SIDES = ("c2s_rl", "c2s_rl_trie", "trl", "trl_static")
# Required ratio and shape.
CASES = (
    (4.0, Shape(prompt_tokens=1024, completion_tokens=256, group_size=16, num_prompts=4)),
    (2.5, Shape(prompt_tokens=256, completion_tokens=256, group_size=16, num_prompts=4)),
)
QUICK = (
    (1.0, Shape(prompt_tokens=64, completion_tokens=8, group_size=4, num_prompts=2, model=TINY)),
)
# Our first two steps also compare engine and learner, so they are no measure of those after them.
NUM_WARM_UP = {"c2s_rl": 2, "trl": 1}
NUM_TIMED = 2
# Rows of TRL's forward passes; 2 to 16 at P=1024 take the same time within 5 %.
TRL_ROWS = 8
BETA = 5e-3
LR = 1e-6
REWARD = {"name": "kendall", "options": {"program": "hallmark_interferon_alpha_response"}}


# Whole steps with gene-constrained decoding may take this much longer than without.
TRIE_TIME = 1.10


def run_c2s_rl(folder: Path, shape: Shape, *, genes: str) -> tuple[list[float], float]:
    """Run the stage `align`; return the clock at each step's end and the seconds of learning."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from actors.jobs import run_stage
    from actors.run_config import RunConfig

    num_steps = NUM_WARM_UP["c2s_rl"] + NUM_TIMED
    with tempfile.TemporaryDirectory() as runs:
        run = RunConfig.model_validate(
            {
                "name": "benchmark",
                "runs_dir": runs,
                "align": {
                    "task": "cell_generation",
                    "num_steps": num_steps,
                    "prompts_per_step": shape.num_prompts,
                    "save_every": num_steps,
                    "sampling": {
                        "group_size": shape.group_size,
                        "max_tokens": shape.completion_tokens,
                        "genes": {"mode": genes},
                    },
                    "loss": {"beta": BETA},
                },
                "rewards": [REWARD],
                "learner": {"lr": LR},
                "ray": {"address": "local"},
            }
        )
        run.folder.mkdir()
        for name in (CORPUS, BASE):
            (run.folder / name).symlink_to(folder / name)
        run_stage(run, "align")
        events = EventAccumulator(str(run.folder / "align" / "tensorboard")).Reload()
        lengths = [event.value for event in events.Scalars("length_mean")]
        if set(lengths) != {shape.completion_tokens}:
            raise ValueError(
                f"completions must have {shape.completion_tokens} tokens, got {lengths}"
            )
        ends = [event.wall_time for event in events.Scalars("loss")]
        learning = [event.value for event in events.Scalars("seconds_learn")][-NUM_TIMED:]
        return ends, statistics.median(learning)


def run_trl(folder: Path, shape: Shape, *, cache: str | None) -> list[float]:
    """Train with GRPOTrainer, generating with one of transformers' caches; return the clock at the
    end of each step.
    """
    import torch
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    torch.set_num_threads(num_cores())
    prompts = read_prompts(folder / CORPUS)
    score = TrlReward(prompts)
    rows = min(TRL_ROWS, shape.num_completions)
    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_args: object, **_kwargs: object) -> None:
            ends.append(time.time())

    with tempfile.TemporaryDirectory() as output:
        config = GRPOConfig(
            output_dir=output,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            max_steps=NUM_WARM_UP["trl"] + NUM_TIMED,
            cache_implementation=cache,
            per_device_train_batch_size=rows,
            gradient_accumulation_steps=shape.num_completions // rows,
            num_generations=shape.group_size,
            max_completion_length=shape.completion_tokens,
            beta=BETA,
            learning_rate=LR,
            lr_scheduler_type="constant",
            loss_type="grpo",
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            model_init_kwargs={"dtype": "float32", "attn_implementation": "sdpa"},
        )
        trainer = GRPOTrainer(
            model=str(folder / BASE),
            reward_funcs=score,
            args=config,
            train_dataset=Dataset.from_list(
                [{"prompt": r.prompt, "index": i} for i, r in enumerate(prompts.records)]
            ),
            callbacks=[Clock()],
        )
        trainer.train()
    if score.lengths != {shape.completion_tokens}:
        raise ValueError(
            f"completions must have {shape.completion_tokens} tokens, got {score.lengths}"
        )
    return ends


class TrlReward:
    """Kendall's tau as TRL calls rewards: the same code that our reward actor runs."""

    __name__ = "kendall"  # TRL logs rewards by it

    def __init__(self, prompts: PromptSet) -> None:
        from rewards.composite import CompositeReward, RewardSpec

        self.lengths: set[int] = set()
        self._prompts = prompts
        self._reward = CompositeReward([RewardSpec.model_validate(REWARD)], prompts.vocabulary)

    def __call__(
        self,
        *,
        completions: list[str],
        completion_ids: list[list[int]],
        index: list[int],
        **_columns: object,
    ) -> list[float | None]:
        from c2s_rl.cells.parse import parse_cell
        from c2s_rl.types import Completion, Group

        self.lengths |= {len(ids) for ids in completion_ids}
        groups = [
            Group(
                record=self._prompts.records[i],
                prompt_token_ids=(),
                completions_G=(Completion(text, tuple(ids), (), 0, is_truncated=True),),
                cells_G=(parse_cell(text, self._prompts.vocabulary, is_truncated=True),),
            )
            for text, ids, i in zip(completions, completion_ids, index, strict=True)
        ]
        return [scored.rewards_G[0] for scored in self._reward.score(groups)]


def run_side(side: str, folder: Path) -> None:
    """Measure one side in this process and print one JSON object."""
    shape = read_shape(folder)
    figures: dict[str, float] = {}
    if side.startswith("c2s_rl"):
        genes = "on" if side == "c2s_rl_trie" else "off"
        ends, figures["learn_s"] = run_c2s_rl(folder, shape, genes=genes)
    else:
        ends = run_trl(folder, shape, cache="static" if side == "trl_static" else None)
    seconds = [after - before for before, after in pairwise(ends)][-NUM_TIMED:]
    figures["samples_per_s"] = shape.num_completions / statistics.median(seconds)
    print(json.dumps(figures))


def compare(shape: Shape, bound: float) -> list[Result]:
    """Run the sides in turns; a line for each cache of the peer, without and with the gene trie."""
    with tempfile.TemporaryDirectory() as folder:
        write_workload(Path(folder), shape)
        figures = in_turns(
            MODULE, SIDES, rounds=1, options=["--folder", folder], env=common_env(num_cores())
        )
    ours = figures["c2s_rl"]["samples_per_s"]
    against_peer = [
        Result(
            what=f"GRPO samples/s, end to end{what}",
            against=against,
            workload=f"{shape}, beta={BETA}, tau reward: {mine:.2f} against {theirs:.2f} samples/s",
            ratio=mine / theirs,
            bound=bound,
        )
        for side, what in (("c2s_rl", ""), ("c2s_rl_trie", " with the gene trie (our default)"))
        for peer, against in (
            ("trl", "TRL GRPOTrainer"),
            ("trl_static", "TRL GRPOTrainer, static cache"),
        )
        if (mine := figures[side]["samples_per_s"]) and (theirs := figures[peer]["samples_per_s"])
    ]
    with_trie = figures["c2s_rl_trie"]
    return [
        *against_peer,
        Result(
            what="time of a whole step, gene trie on",
            against="off",
            workload=str(shape),
            ratio=ours / with_trie["samples_per_s"],
            bound=TRIE_TIME,
            is_upper=True,
        ),
        Result(
            what="time of learning, gene trie on",
            against="off",
            workload=str(shape),
            ratio=with_trie["learn_s"] / figures["c2s_rl"]["learn_s"],
            bound=1.0,
            is_upper=True,
        ),
    ]


def results(*, quick: bool) -> list[Result]:
    """Both shapes; `quick` runs a tiny one, to see that it runs."""
    cases = QUICK if quick else CASES
    return [line for bound, shape in cases for line in compare(shape, bound)]


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
