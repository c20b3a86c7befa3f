"""The LM head of the learner: peak memory and time of log-probabilities, loss and gradients.

    python -m tests.benchmarks.head [--quick] [--rounds 3]

Against TRL 1.16's own loss path (its fused head, its trainer's method) and against full logits as
the plain learner makes them. `model_*` sides run a one-layer model over prompt and completion and
are measured for memory; `head_*` sides run the head alone on given hidden states and are measured
for CPU time of one thread. Memory is the process's highest resident size during the second of two
equal steps less the size before it, weights not counted; both include the gradients. All sides take
the same numbers and must find the same loss and the same gradient. TRL computes the entropy of each
token as well, so `model_fused_entropy` does too.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from c2s_rl.models.logprobs import FusedOptions, RestrictedColumns
from c2s_rl.models.scoring_head import ScoringHead, replace_head
from tests.benchmarks.harness import Figures, Result, in_turns, report

MODULE = "tests.benchmarks.head"
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
TEMPERATURE = 0.7


@dataclass(frozen=True)
class Shape:
    """What a step is made of."""

    vocabulary: int
    rows: int
    completion: int = 256
    # short, in favour of TRL, whose fused head scores the prompt too on a CPU
    prompt: int = 16
    hidden: int = 256
    columns: int = 3000

    def __str__(self) -> str:
        return (
            f"vocabulary {self.vocabulary}, hidden {self.hidden}, {self.rows} completions of "
            f"{self.completion} tokens, prompts of {self.prompt}, float32, CPU, 1 thread"
        )

    def options(self) -> list[str]:
        return [word for name, value in asdict(self).items() for word in (f"--{name}", str(value))]


@dataclass(frozen=True)
class Inputs:
    """The same for every side."""

    tokens_B_L: torch.Tensor
    advantages_N: torch.Tensor
    hidden_N_D: torch.Tensor
    columns: RestrictedColumns


def make_inputs(shape: Shape) -> Inputs:
    """Tokens of `columns` ids only, so that the restricted side can score them."""
    rng = np.random.default_rng(0)
    columns = np.sort(rng.choice(shape.vocabulary, shape.columns, replace=False))
    places = rng.integers(len(columns), size=(shape.rows, shape.prompt + shape.completion))
    targets_N = places[:, shape.prompt :].flatten()
    is_allowed = rng.random((len(targets_N), len(columns))) < 0.5
    is_allowed[np.arange(len(targets_N)), targets_N] = True
    bits = np.packbits(is_allowed, axis=1, bitorder="little")
    hidden = rng.standard_normal((len(targets_N), shape.hidden), dtype=np.float32)
    advantages = rng.standard_normal(len(targets_N), dtype=np.float32)
    return Inputs(
        torch.from_numpy(columns[places]),
        torch.from_numpy(advantages),
        torch.from_numpy(hidden).requires_grad_(),
        RestrictedColumns(torch.from_numpy(columns), torch.from_numpy(bits)),
    )


Sides = dict[str, Callable[[], torch.Tensor]]


def model_sides(shape: Shape, inputs: Inputs) -> tuple[Sides, torch.Tensor]:
    """Losses of a small model, and the weight whose gradient is compared."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=shape.vocabulary,
            hidden_size=shape.hidden,
            num_hidden_layers=1,
            num_attention_heads=4,
            intermediate_size=2 * shape.hidden,
            tie_word_embeddings=True,
        )
    )
    tokens_B_L, length = inputs.tokens_B_L, shape.completion
    targets_N = tokens_B_L[:, -length:].flatten()

    def fused(*, with_entropy: bool) -> torch.Tensor:
        hidden = model.model(tokens_B_L).last_hidden_state[:, -length - 1 : -1]
        return form_loss(
            replace_head(model), hidden.flatten(0, 1), targets_N, inputs, with_entropy=with_entropy
        )

    def full() -> torch.Tensor:
        logits = model(tokens_B_L, logits_to_keep=length + 1).logits[:, :-1].flatten(0, 1)
        return surrogate(score_plainly(logits, targets_N), inputs.advantages_N)

    def trl() -> torch.Tensor:
        return surrogate(trl_logprobs(model, tokens_B_L, length).flatten(), inputs.advantages_N)

    sides = {
        "model_fused": lambda: fused(with_entropy=False),
        "model_fused_entropy": lambda: fused(with_entropy=True),
        "model_full": full,
        "model_trl": trl,
    }
    return sides, model.model.embed_tokens.weight


def head_sides(shape: Shape, inputs: Inputs) -> tuple[Sides, torch.Tensor]:
    """The same for the head alone."""
    torch.manual_seed(0)
    head = ScoringHead(torch.nn.Linear(shape.hidden, shape.vocabulary, bias=False), softcap=None)
    hidden_N_D = inputs.hidden_N_D
    targets_N = inputs.tokens_B_L[:, -shape.completion :].flatten()

    def recomputing() -> torch.Tensor:
        scored = head.logprobs(hidden_N_D, targets_N, options=FusedOptions(TEMPERATURE))
        return surrogate(scored.logprobs_N, inputs.advantages_N)

    sides = {
        "head_fused": lambda: form_loss(head, hidden_N_D, targets_N, inputs),
        "head_restricted": lambda: form_loss(
            head, hidden_N_D, targets_N, inputs, columns=inputs.columns
        ),
        "head_recomputing": recomputing,
        "head_full": lambda: surrogate(
            score_plainly(head(hidden_N_D), targets_N), inputs.advantages_N
        ),
    }
    return sides, head.weight


def form_loss(
    head: ScoringHead,
    hidden_N_D: torch.Tensor,
    targets_N: torch.Tensor,
    inputs: Inputs,
    *,
    columns: RestrictedColumns | None = None,
    with_entropy: bool = False,
) -> torch.Tensor:
    """Our way: loss and gradients in one pass."""
    return head.token_loss(
        hidden_N_D,
        targets_N,
        lambda logprobs_n, _, rows: surrogate(logprobs_n, inputs.advantages_N[rows]),
        options=FusedOptions(TEMPERATURE, with_entropy=with_entropy),
        columns=columns,
    ).loss


def surrogate(logprobs_n: torch.Tensor, advantages_n: torch.Tensor) -> torch.Tensor:
    """The on-policy objective: the ratio is 1 and carries the gradient."""
    return -(torch.exp(logprobs_n - logprobs_n.detach()) * advantages_n).sum()


def score_plainly(logits_N_V: torch.Tensor, targets_N: torch.Tensor) -> torch.Tensor:
    """Score as the learner does that holds all logits."""
    scaled_N_V = logits_N_V.float() / TEMPERATURE
    chosen_N = scaled_N_V.gather(1, targets_N.unsqueeze(1)).squeeze(1)
    return chosen_N - torch.logsumexp(scaled_N_V, dim=1)


def trl_logprobs(model: LlamaForCausalLM, tokens_B_L: torch.Tensor, length: int) -> torch.Tensor:
    """Run the method of TRL's trainer itself, on a model with TRL's fused head."""
    from trl import GRPOTrainer
    from trl.trainer.utils import add_fused_lm_head

    if "forward" not in vars(model):
        add_fused_lm_head(model, temperature=TEMPERATURE, outputs=("log_probs", "entropy"))
    trainer = object.__new__(GRPOTrainer)
    trainer.__dict__ |= {
        "accelerator": SimpleNamespace(autocast=nullcontext, is_main_process=True),
        "args": SimpleNamespace(report_to=[]),
        "state": SimpleNamespace(global_step=0),
    }
    logprobs_B_T, _, _ = trainer._get_per_token_logps_and_entropies(
        model, tokens_B_L, torch.ones_like(tokens_B_L), length, compute_entropy=True
    )
    return logprobs_B_T


def measure(side: str, shape: Shape) -> Figures:
    """Take two steps; the second is measured."""
    inputs = make_inputs(shape)
    sides, weight = (model_sides if side.startswith("model") else head_sides)(shape, inputs)
    for _ in range(2):
        inputs.hidden_N_D.grad = weight.grad = None
        # Writing 5 sets the recorded peak (VmHWM) back to the present size.
        Path("/proc/self/clear_refs").write_text("5")
        before = status_mib("VmRSS")
        start = time.process_time()
        sides[side]().backward()
        seconds = time.process_time() - start
        peak = status_mib("VmHWM")
    return {
        "seconds": seconds,
        "mebibytes": peak - before,
        "gradient_norm": float(weight.grad.norm()),
    }


def status_mib(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(key))


def compare(shape: Shape, sides: Sequence[str], rounds: int) -> dict[str, Figures]:
    """Measure sides that must agree about the gradient; in this process for 0 rounds."""
    if rounds == 0:
        figures = {side: measure(side, shape) for side in sides}
    else:
        figures = in_turns(MODULE, sides, rounds=rounds, options=shape.options(), env=ONE_THREAD)
    for side, measured in figures.items():
        print(f"{side}: " + ", ".join(f"{key} {value:.4g}" for key, value in measured.items()))
    norms = [figures[side]["gradient_norm"] for side in sides if side != "head_restricted"]
    if max(norms) > 1.001 * min(norms):
        raise ValueError(f"all sides must find the same gradient, got norms {norms}")
    return figures


def results(*, quick: bool, rounds: int = 3) -> list[Result]:
    """Memory against TRL and full logits, time against full logits and without columns.

    Args:
        quick: Tiny shapes in this process, which only show that all sides run and agree.
        rounds: How often each side's process runs; the wide vocabulary runs once.
    """
    usual = Shape(50_304, rows=16)
    wide = Shape(256_000, rows=8)
    if quick:
        rounds = 0
        usual = Shape(500, rows=2, completion=8, prompt=4, hidden=16, columns=40)
        wide = Shape(1000, rows=2, completion=8, prompt=4, hidden=16, columns=40)
    peers = compare(
        usual, ["model_fused", "model_fused_entropy", "model_trl", "model_full"], rounds
    )
    giants = compare(wide, ["model_fused", "model_full"], min(rounds, 1))
    heads = compare(
        usual, ["head_fused", "head_restricted", "head_recomputing", "head_full"], rounds
    )

    def share(figures: dict[str, Figures], ours: str, theirs: str) -> float:
        return figures[ours]["mebibytes"] / max(1e-9, figures[theirs]["mebibytes"])

    def speed(figures: dict[str, Figures], ours: str, theirs: str) -> float:
        return figures[theirs]["seconds"] / figures[ours]["seconds"]

    support = f"{usual}, {usual.columns} columns, half of them allowed at a place"
    return [
        Result("learner peak memory", "TRL 1.16", f"{usual}, with entropy",
               share(peers, "model_fused_entropy", "model_trl"), 0.5, is_upper=True),
        Result("learner peak memory", "full logits", str(usual),
               share(peers, "model_fused", "model_full"), 0.25, is_upper=True),
        Result("learner peak memory, wide vocabulary", "full logits", str(wide),
               share(giants, "model_fused", "model_full"), 0.25, is_upper=True),
        Result("learner speed", "TRL 1.16", f"{usual}, with entropy",
               speed(peers, "model_fused_entropy", "model_trl"), 1.0),
        Result("head speed", "full logits", str(usual),
               speed(heads, "head_fused", "head_full"), 1.0),
        Result("head speed, gradients formed at once", "projecting again", str(usual),
               speed(heads, "head_fused", "head_recomputing"), 1.1),
        Result("head speed, restricted columns", "the whole vocabulary", support,
               speed(heads, "head_restricted", "head_fused"), 3.0),
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="tiny shapes: only that it runs")
    parser.add_argument("--side", help="measure one side in this process")
    for field in fields(Shape):
        parser.add_argument(f"--{field.name}", type=int)
    options = vars(parser.parse_args())
    if options["side"]:
        shape = Shape(**{field.name: options[field.name] for field in fields(Shape)})
        print(json.dumps(measure(options["side"], shape)))
    else:
        report(results(quick=options["quick"], rounds=options["rounds"]))


if __name__ == "__main__":
    main()
