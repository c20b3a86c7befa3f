"""Small LM heads, random supports and the textbook computation, for the tests of fused scoring."""

from dataclasses import dataclass

import numpy as np
import torch

from c2s_rl.models.logprobs import RestrictedColumns

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
    targets = targets.numpy()
    needed = np.unique(targets)
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
