"""Train a tiny model under ZeRO-3, scored by its head, and compare with a copy without DeepSpeed.

    python -m tests.integration.zero3_scoring FOLDER

A process of its own, because DeepSpeed changes the process it runs in. Writes FOLDER/cases.json:
for each case the largest difference of a loss, a gradient or a trained weight, and how many numbers
of the head's weight were in memory between the passes.
"""

import copy
import json
import sys
from pathlib import Path

import deepspeed
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from actors.deepspeed_cpu import skip_shared_memory_op
from c2s_rl.models.logprobs import FusedOptions
from c2s_rl.models.scoring_head import replace_head
from tests.models.head_cases import make_columns

B, T, V = 2, 9, 60
OPTIONS = FusedOptions(temperature=0.7, chunk_tokens=5)
STEPS = 2
DEEPSPEED = {
    "train_micro_batch_size_per_gpu": 1,
    # 0: nothing is small enough to stay gathered
    "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0},
    "gradient_clipping": 1e9,  # DeepSpeed clips by default
    "zero_allow_untested_optimizer": True,
    "steps_per_print": 2**31 - 1,
}


def negative_sum(logprobs, entropy, rows):
    return -(logprobs * (1 + torch.arange(B * T)[rows])).sum() / 50


class Scorer(nn.Module):
    """Backbone, then the head on every hidden state."""

    def __init__(self, model, *, forms_loss, is_restricted):
        super().__init__()
        self.model = model
        self.head = replace_head(model)
        self._forms_loss, self._is_restricted = forms_loss, is_restricted

    def forward(self, tokens, targets):
        hidden = self.model.model(tokens).last_hidden_state.flatten(0, 1)
        columns = make_columns(targets, V, 30)[0] if self._is_restricted else None
        if self._forms_loss:
            scored = self.head.token_loss(
                hidden, targets, negative_sum, options=OPTIONS, columns=columns
            )
            return scored.loss
        logprobs = self.head.logprobs(hidden, targets, options=OPTIONS, columns=columns).logprobs_N
        return negative_sum(logprobs, None, slice(None))


def largest_difference(pairs):
    return max((ours - theirs).abs().max().item() for ours, theirs in pairs)


def run_case(*, forms_loss, is_restricted, is_tied, is_frozen):
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=V, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                    intermediate_size=48, tie_word_embeddings=is_tied)
    )  # fmt: skip
    if is_frozen:
        model.lm_head.weight.requires_grad_(requires_grad=False)
    scorer = Scorer(model, forms_loss=forms_loss, is_restricted=is_restricted)
    alone = copy.deepcopy(scorer)
    sgd = torch.optim.SGD(alone.parameters(), lr=0.1)
    engine, *_ = deepspeed.initialize(
        model=scorer,
        optimizer=torch.optim.SGD([p for p in scorer.parameters() if p.requires_grad], lr=0.1),
        config=DEEPSPEED,
    )
    differences, resident = [], 0
    for step in range(STEPS):
        tokens, targets = torch.randint(V, (2, B, T), generator=torch.Generator().manual_seed(step))
        with torch.no_grad():
            differences.append(
                (engine(tokens, targets.flatten()), alone(tokens, targets.flatten()))
            )
        loss = engine(tokens, targets.flatten())
        resident = max(resident, scorer.head.weight.numel())
        engine.backward(loss)
        expected = alone(tokens, targets.flatten())
        expected.backward()
        differences.append((loss.detach(), expected.detach()))
        for ours, theirs in zip(scorer.parameters(), alone.parameters(), strict=True):
            if theirs.requires_grad:
                grad = deepspeed.utils.safe_get_full_grad(ours)
                differences.append((grad, theirs.grad))
        engine.step()
        sgd.step()
        sgd.zero_grad()
    for ours, theirs in zip(scorer.parameters(), alone.parameters(), strict=True):
        with deepspeed.zero.GatheredParameters([ours]):
            differences.append((ours.detach().clone(), theirs.detach()))
    engine.destroy()
    return {"difference": largest_difference(differences), "resident": resident}


def main():
    skip_shared_memory_op()
    folder = Path(sys.argv[1])
    store = folder / "store"
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=0, world_size=1
    )
    deepspeed.init_distributed("gloo", verbose=False)
    cases = {
        "logprobs": {},
        "logprobs, tied": {"is_tied": True},
        "logprobs, columns": {"is_restricted": True},
        "logprobs, frozen head": {"is_frozen": True},
        "token loss": {"forms_loss": True},
        "token loss, tied": {"forms_loss": True, "is_tied": True},
        "token loss, columns, tied": {"forms_loss": True, "is_tied": True, "is_restricted": True},
        "token loss, frozen head": {"forms_loss": True, "is_frozen": True},
    }
    plain = {"forms_loss": False, "is_restricted": False, "is_tied": False, "is_frozen": False}
    figures = {name: run_case(**{**plain, **case}) for name, case in cases.items()}
    (folder / "cases.json").write_text(json.dumps(figures))


if __name__ == "__main__":
    main()
