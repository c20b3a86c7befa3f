"""Log-probabilities, entropies and their gradients, against the plain way over all logits."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from c2s_rl.models.logprobs import (
    FusedOptions,
    RestrictedColumns,
    fused_logprobs,
    fused_token_loss,
)

N, D, V = 11, 6, 20


@dataclass
class Head:
    """Inputs of a call; every tensor with gradient is a leaf."""

    hidden: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor | None
    targets: torch.Tensor

    @property
    def leaves(self):
        return [t for t in (self.hidden, self.weight, self.bias) if t is not None]

    def copy(self, dtype=None):
        leaves = [
            None if t is None else t.detach().clone().to(dtype or t.dtype).requires_grad_()
            for t in (self.hidden, self.weight, self.bias)
        ]
        return Head(*leaves, self.targets)


def make_head(*, dtype=torch.float64, has_bias=False, n=N, d=D, v=V, seed=0):
    gen = torch.Generator().manual_seed(seed)
    hidden, weight, bias = (
        torch.randn(*shape, generator=gen, dtype=torch.float64).to(dtype).requires_grad_()
        for shape in ((n, d), (v, d), (v,))
    )
    targets = torch.randint(v, (n,), generator=gen)
    return Head(hidden, weight, bias if has_bias else None, targets)


def make_columns(targets, v=V, num_columns=13, seed=0):
    """Random support that allows every target; returns it and [N, V] bool."""
    rng = np.random.default_rng(seed)
    needed = np.unique(targets.numpy())
    others = rng.permutation(np.setdiff1d(np.arange(v), needed))
    columns = np.sort(np.concatenate([needed, others[: max(0, num_columns - len(needed))]]))
    is_allowed = rng.random((len(targets), len(columns))) < 0.5
    is_allowed[np.arange(len(targets)), np.searchsorted(columns, targets)] = True
    bits = torch.from_numpy(np.packbits(is_allowed, axis=1, bitorder="little"))
    dense = torch.zeros(len(targets), v, dtype=torch.bool)
    dense[:, columns] = torch.from_numpy(is_allowed)
    return RestrictedColumns(torch.from_numpy(columns), bits), dense


def plain(head, options, is_allowed=None):
    """Log-probabilities and entropies by the textbook, over an [N, V] tensor."""
    logits = head.hidden @ head.weight.T
    if head.bias is not None:
        logits = logits + head.bias
    if options.softcap is not None:
        logits = options.softcap * torch.tanh(logits / options.softcap)
    logits = logits / options.temperature
    if is_allowed is not None:
        logits = logits.masked_fill(~is_allowed, -torch.inf)
    logprobs = torch.log_softmax(logits, dim=1)
    # 0 log 0 = 0
    safe = logprobs if is_allowed is None else logprobs.masked_fill(~is_allowed, 0.0)
    entropy = -(logprobs.exp() * safe).sum(dim=1)
    return logprobs.gather(1, head.targets.unsqueeze(1)).squeeze(1), entropy


def token_loss(logprobs, entropy, rows):
    """A loss that treats every token its own way, and is not linear in either input."""
    places = torch.arange(N)[rows]
    loss = ((1.0 + places) * logprobs.exp()).sum()
    return loss if entropy is None else loss + (0.3 * (places - 4.0) * entropy**2).sum()


def gradients(loss, head):
    return torch.autograd.grad(loss, head.leaves)


CASES = {
    "plain": (FusedOptions(), False),
    "bias": (FusedOptions(), True),
    "temperature": (FusedOptions(temperature=0.7), True),
    "cap": (FusedOptions(softcap=1.5), True),
    "cap and temperature": (FusedOptions(temperature=1.3, softcap=1.5), False),
    "entropy": (FusedOptions(with_entropy=True), True),
    "all": (FusedOptions(temperature=0.7, softcap=1.5, with_entropy=True), True),
}
cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


@pytest.mark.parametrize("is_restricted", [False, True], ids=["vocabulary", "columns"])
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@cases
def test_values_and_gradients_equal_the_plain_way(case, dtype, atol, is_restricted):
    options, has_bias = case
    options = FusedOptions(**{**vars(options), "chunk_tokens": 4})
    exact = make_head(has_bias=has_bias)
    columns, is_allowed = make_columns(exact.targets) if is_restricted else (None, None)
    expected_logprobs, expected_entropy = plain(exact, options, is_allowed)
    entropy_used = expected_entropy if options.with_entropy else None
    expected_loss = token_loss(expected_logprobs, entropy_used, slice(0, N))
    expected = gradients(expected_loss, exact)

    head = exact.copy(dtype)
    scored = fused_logprobs(head.hidden, head.weight, head.targets, bias_V=head.bias,
                            options=options, columns=columns)  # fmt: skip
    loss = token_loss(scored.logprobs_N, scored.entropy_N, slice(0, N))
    formed = fused_token_loss(head.hidden, head.weight, head.targets, token_loss,
                              bias_V=head.bias, options=options, columns=columns)  # fmt: skip
    for result, value in ((scored, loss), (formed, formed.loss)):
        torch.testing.assert_close(result.logprobs_N.double(), expected_logprobs, atol=atol, rtol=0)
        if options.with_entropy:
            torch.testing.assert_close(
                result.entropy_N.double(), expected_entropy, atol=atol, rtol=0
            )
        else:
            assert result.entropy_N is None
        assert value.item() == pytest.approx(expected_loss.item(), abs=10 * atol)
        for ours, theirs in zip(gradients(value, head), expected, strict=True):
            torch.testing.assert_close(ours.double(), theirs, atol=10 * atol, rtol=0)
