"""How likely a language model finds right answers: the loss of each, without training.

Prompt and target are tokenised apart and joined, as in training and sampling, and the end token
belongs to the answer. Left out: packing (nothing is learnt here) and what the loss is compared
with (`c2s_rl.evaluation`).
Shape suffixes: B rows, L prompt + answer tokens, T answer tokens.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoTokenizer

from c2s_rl.models.policy import CompletionScorer, load_policy
from c2s_rl.types import PromptRecord


@dataclass(frozen=True)
class _Row:
    place: int
    prompt: list[int]
    answer: list[int]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)


def answer_losses(
    policy: Path,
    records: Sequence[PromptRecord],
    *,
    dtype: str,
    device: str,
    batch_tokens: int = 16_384,
) -> list[float]:
    """Mean negative log-likelihood of the tokens of each right answer, its end token included.

    Args:
        policy: Hugging Face folder whose tokenizer has an end token.
        records: Prompts with targets; prompt + target + end must fit the model's context.
        dtype: A key of `c2s_rl.models.policy.DTYPES`.
        device: Torch device, for example 'cpu'.
        batch_tokens: Padded tokens of a forward pass; bounds memory, does not change the result
            beyond rounding.

    Returns:
        One loss a record, natural logarithm, in the order of `records`.

    Raises:
        MissingFileError: If the folder holds no model.
    """
    model = load_policy(policy, dtype).to(device).eval()  # type: ignore[arg-type]
    tokenizer = AutoTokenizer.from_pretrained(policy, local_files_only=True)
    scorer = CompletionScorer(model, temperature=1.0)
    prompts = tokenizer([r.prompt for r in records], add_special_tokens=False)["input_ids"]
    targets = tokenizer([r.target for r in records], add_special_tokens=False)["input_ids"]
    end = int(tokenizer.eos_token_id)
    rows = [
        _Row(place, prompt, [*target, end])
        for place, (prompt, target) in enumerate(zip(prompts, targets, strict=True))
    ]
    losses = [0.0] * len(rows)
    with torch.inference_mode():
        for batch in _batches(rows, batch_tokens):
            for row, loss in zip(batch, _score(scorer, batch, device), strict=True):
                losses[row.place] = loss
    return losses


def _batches(rows: Sequence[_Row], batch_tokens: int) -> Iterator[list[_Row]]:
    """Rows of similar length together, the longest first, so that a batch too large fails early."""
    batch: list[_Row] = []
    for row in sorted(rows, key=len, reverse=True):
        if batch and len(batch[0]) * (len(batch) + 1) > batch_tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _score(scorer: CompletionScorer, rows: Sequence[_Row], device: str) -> list[float]:
    length, num_answer = max(map(len, rows)), max(len(row.answer) for row in rows)
    input_ids_B_L = torch.zeros((len(rows), length), dtype=torch.int64)
    is_token_B_L = torch.zeros((len(rows), length), dtype=torch.int64)
    answer_ids_B_T = torch.zeros((len(rows), num_answer), dtype=torch.int64)
    for i, row in enumerate(rows):
        input_ids_B_L[i, : len(row)] = torch.tensor(row.prompt + row.answer)
        is_token_B_L[i, : len(row)] = 1
        answer_ids_B_T[i, : len(row.answer)] = torch.tensor(row.answer)
    logprobs_B_T = scorer(
        input_ids_B_L.to(device),
        is_token_B_L.to(device),
        torch.tensor([len(row.prompt) for row in rows], device=device),
        answer_ids_B_T.to(device),
    ).cpu()
    return [
        -float(logprobs_T[: len(row.answer)].mean())
        for logprobs_T, row in zip(logprobs_B_T, rows, strict=True)
    ]
