"""Log-probabilities, entropies and their gradients, against the plain way over all logits."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from c2s_rl.errors import DataError
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
    options = replace(options, chunk_tokens=4)
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


def test_equal_logits_give_uniform_distributions():
    zeros = torch.zeros(2, 3)
    weight = torch.zeros(8, 3)
    targets = torch.tensor([5, 2])
    options = FusedOptions(with_entropy=True)
    everything = fused_logprobs(zeros, weight, targets, options=options)
    # p = 1/8 each, so log p = -log 8 and H = log 8
    assert everything.logprobs_N.tolist() == pytest.approx([-math.log(8)] * 2)
    assert everything.entropy_N.tolist() == pytest.approx([math.log(8)] * 2)
    # Columns 2, 5, 7; the first token may be 5 or 7 (bits 0b110), the second only 2 (0b001).
    columns = RestrictedColumns(
        torch.tensor([2, 5, 7]), torch.tensor([[0b110], [0b001]], dtype=torch.uint8)
    )
    some = fused_logprobs(zeros, weight, targets, options=options, columns=columns)
    assert some.logprobs_N.tolist() == pytest.approx([-math.log(2), 0.0])
    assert some.entropy_N.tolist() == pytest.approx([math.log(2), 0.0])


@pytest.mark.parametrize("is_restricted", [False, True], ids=["vocabulary", "columns"])
def test_gradients_pass_the_numerical_check(is_restricted):
    head = make_head(has_bias=True, n=5)
    columns = make_columns(head.targets)[0] if is_restricted else None
    options = FusedOptions(temperature=0.7, softcap=1.5, chunk_tokens=2, with_entropy=True)

    def score(hidden, weight, bias):
        return tuple(fused_logprobs(hidden, weight, head.targets, bias_V=bias, options=options,
                                    columns=columns))  # fmt: skip

    assert torch.autograd.gradcheck(score, head.leaves)


@pytest.mark.parametrize("chunk_tokens", [1, 3, N, 100, None])
def test_chunk_size_does_not_change_the_result(chunk_tokens):
    options = FusedOptions(temperature=0.7, softcap=1.5, with_entropy=True)
    reference, head = make_head(has_bias=True), make_head(has_bias=True)
    results = [
        fused_token_loss(h.hidden, h.weight, h.targets, token_loss, bias_V=h.bias, options=o)
        for h, o in ((reference, replace(options, chunk_tokens=2)),
                     (head, replace(options, chunk_tokens=chunk_tokens)))
    ]  # fmt: skip
    for expected, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-13, rtol=0)
    grads = [gradients(r.loss, h) for r, h in zip(results, (reference, head), strict=True)]
    for expected, ours in zip(*grads, strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-13, rtol=0)


@pytest.mark.parametrize("is_restricted", [False, True], ids=["vocabulary", "columns"])
def test_sixteen_bit_weights_are_summed_in_float32(is_restricted, monkeypatch):
    # several blocks of converted rows
    monkeypatch.setattr("c2s_rl.models.head_chunks.CONVERTED_ROWS", 7)
    head = make_head(dtype=torch.bfloat16, has_bias=True, d=64)
    options = FusedOptions(temperature=0.7, softcap=1.5, chunk_tokens=4, with_entropy=True)
    columns, is_allowed = make_columns(head.targets) if is_restricted else (None, None)
    # The same bfloat16 numbers, computed with in float64.
    exact = head.copy(torch.float64)
    logprobs, entropy = plain(exact, options, is_allowed)
    expected = gradients(token_loss(logprobs, entropy, slice(0, N)), exact)
    formed = fused_token_loss(head.hidden, head.weight, head.targets, token_loss,
                              bias_V=head.bias, options=options, columns=columns)  # fmt: skip
    # bfloat16 logits would be off by 1e-2; the sums are float32's, and so are the results.
    torch.testing.assert_close(formed.logprobs_N.double(), logprobs, atol=2e-5, rtol=0)
    torch.testing.assert_close(formed.entropy_N.double(), entropy, atol=2e-5, rtol=0)
    for ours, theirs in zip(gradients(formed.loss, head), expected, strict=True):
        assert ours.dtype == torch.bfloat16
        # one rounding to 8 bits of mantissa at the end: a relative 2**-9
        torch.testing.assert_close(ours.double(), theirs, atol=1e-4, rtol=2**-8)


class Allocations(TorchDispatchMode):
    """Records the size in bytes of every storage that an operation makes."""

    def __init__(self, *inputs):
        super().__init__()
        self._inputs = {tensor.untyped_storage().data_ptr() for tensor in inputs}
        self.sizes = {}
        self._alive = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self._alive.append(storage)  # so that no address comes twice
                if storage.data_ptr() not in self._inputs:
                    self.sizes[storage.data_ptr()] = storage.nbytes()
        return result


BIG = {"n": 128, "d": 4, "v": 1000, "dtype": torch.float32}
CHUNK = 8


def allocations_of_a_step(head, *, forms_loss, columns=None):
    options = FusedOptions(softcap=1.5, chunk_tokens=CHUNK, with_entropy=True)
    with Allocations(*head.leaves) as allocations:
        if forms_loss:
            fused_token_loss(
                head.hidden, head.weight, head.targets,
                lambda logprobs, entropy, _: (logprobs + entropy).sum(),
                options=options, columns=columns,
            ).loss.backward()  # fmt: skip
        else:
            scored = fused_logprobs(
                head.hidden, head.weight, head.targets, options=options, columns=columns
            )
            (scored.logprobs_N + scored.entropy_N).sum().backward()
    return sorted(allocations.sizes.values())


@pytest.mark.parametrize("forms_loss", [False, True])
def test_no_tensor_of_all_tokens_times_vocabulary_is_made(forms_loss):
    head = make_head(**BIG)
    sizes = allocations_of_a_step(head, forms_loss=forms_loss)
    n, v = BIG["n"], BIG["v"]
    # Three work buffers in one: logits, l - shift for the entropy, the slope of the cap.
    assert sizes[-1] == 3 * CHUNK * v * 4
    assert 4 * sizes[-1] < n * v * 4
    with Allocations() as allocations:
        plain(head, FusedOptions())[0].sum().backward()
    assert max(allocations.sizes.values()) == n * v * 4  # what would be seen


@pytest.mark.parametrize("forms_loss", [False, True])
def test_frozen_weight_costs_no_gradient(forms_loss):
    head = make_head(**{**BIG, "d": 100})
    weight_bytes = head.weight.numel() * 4
    assert weight_bytes in allocations_of_a_step(head, forms_loss=forms_loss)
    assert head.weight.grad is not None
    frozen = make_head(**{**BIG, "d": 100})
    frozen.weight.requires_grad_(requires_grad=False)
    assert weight_bytes not in allocations_of_a_step(frozen, forms_loss=forms_loss)
    torch.testing.assert_close(frozen.hidden.grad, head.hidden.grad)


@pytest.mark.parametrize("forms_loss", [False, True])
def test_columns_keep_everything_narrow_but_the_gradient_itself(forms_loss):
    head = make_head(**{**BIG, "d": 100})
    columns, _ = make_columns(head.targets, BIG["v"], num_columns=200)
    sizes = allocations_of_a_step(head, forms_loss=forms_loss, columns=columns)
    # one tensor as large as the weight: its gradient; next come those of 200 columns
    num_columns = len(columns.columns_U)
    assert sizes[-2:] == [num_columns * 100 * 4, BIG["v"] * 100 * 4]


@pytest.mark.parametrize("forms_loss", [False, True])
def test_tied_weight_gets_both_gradients(forms_loss):
    weight = make_head().weight
    tokens = torch.tensor([3, 3, 7])
    hidden = torch.nn.functional.embedding(tokens, weight)
    if forms_loss:
        loss = fused_token_loss(hidden, weight, tokens, lambda logprobs, *_: logprobs.sum()).loss
    else:
        loss = fused_logprobs(hidden, weight, tokens).logprobs_N.sum()
    ours = torch.autograd.grad(loss, weight)[0]
    plainly = plain(Head(weight[tokens], weight, None, tokens), FusedOptions())[0].sum()
    torch.testing.assert_close(ours, torch.autograd.grad(plainly, weight)[0])


def test_without_gradients_both_ways_only_score():
    head = make_head()
    expected, _ = plain(head, FusedOptions())
    with torch.no_grad():
        scored = fused_logprobs(head.hidden, head.weight, head.targets)
        formed = fused_token_loss(head.hidden, head.weight, head.targets, token_loss)
    torch.testing.assert_close(scored.logprobs_N, expected.detach())
    torch.testing.assert_close(formed.logprobs_N, expected.detach())
    assert formed.loss.item() == pytest.approx(token_loss(expected, None, slice(0, N)).item())
    assert not scored.logprobs_N.requires_grad
    assert not formed.loss.requires_grad


def test_loss_is_scaled_and_added_up_like_any_other():
    head = make_head()
    expected = gradients(7.0 * token_loss(plain(head, FusedOptions())[0], None, slice(0, N)), head)
    for _ in range(2):
        formed = fused_token_loss(head.hidden, head.weight, head.targets, token_loss)
        (3.5 * formed.loss).backward()
    for leaf, theirs in zip(head.leaves, expected, strict=True):
        torch.testing.assert_close(leaf.grad, theirs)


def test_second_backward_pass_is_refused():
    head = make_head()
    loss = fused_token_loss(head.hidden, head.weight, head.targets, token_loss).loss
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="fused loss can be made once, got a second"):
        loss.backward()


@pytest.mark.parametrize("is_restricted", [False, True])
def test_no_tokens_have_no_loss_and_zero_gradients(is_restricted):
    head = make_head(n=0)
    columns = None
    if is_restricted:
        columns = RestrictedColumns(torch.tensor([1, 4]), torch.zeros(0, 1, dtype=torch.uint8))
    formed = fused_token_loss(head.hidden, head.weight, head.targets, token_loss, columns=columns)
    assert formed.loss.item() == 0.0
    hidden, weight = gradients(formed.loss, head)
    assert hidden.shape == (0, D)
    assert weight.eq(0.0).all()
    assert weight.shape == (V, D)


def test_target_that_is_not_allowed_is_named():
    head = make_head(n=3)
    columns_U = torch.tensor([2, 5, 7])
    bits = torch.tensor([[0b111], [0b101], [0b111]], dtype=torch.uint8)
    call = {"columns": RestrictedColumns(columns_U, bits)}
    message = r"allowed where it was sampled, got token 5 as number 1 of 3 \(1 such tokens\)"
    with pytest.raises(DataError, match=message):
        fused_logprobs(head.hidden, head.weight, torch.tensor([2, 5, 7]), **call)
    # 6 and 19 are no columns at all; 19 would come after the last
    with pytest.raises(DataError, match=r"got token 6 as number 0 of 3 \(2 such tokens\)"):
        fused_token_loss(head.hidden, head.weight, torch.tensor([6, 7, 19]), token_loss, **call)
    with pytest.raises(DataError, match=r"tokens must be from 0 to 19, got -100"):
        fused_logprobs(head.hidden, head.weight, torch.tensor([2, -100, 7]))


def test_shapes_that_do_not_fit_are_named():
    head = make_head(n=3)
    with pytest.raises(
        ValueError, match=r"\[N, D\], \[V, D\] and \[N\], got \[3, 6\], \[20, 6\], \[2\]"
    ):
        fused_logprobs(head.hidden, head.weight, head.targets[:2])
    with pytest.raises(
        ValueError, match=r"uint8 of shape \[N, 2\], got torch.uint8 of shape \[3, 1\]"
    ):
        RestrictedColumns(torch.arange(9), torch.zeros(3, 1, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"strictly increasing, got \[3, 3\]"):
        RestrictedColumns(torch.tensor([3, 3]), torch.zeros(3, 1, dtype=torch.uint8))
    columns = RestrictedColumns(torch.arange(9), torch.zeros(4, 2, dtype=torch.uint8))
    with pytest.raises(ValueError, match="needs a row of bits, got 3 tokens and 4 rows"):
        fused_logprobs(head.hidden, head.weight, head.targets, columns=columns)


@pytest.mark.parametrize("wrong", [{"temperature": 0.0}, {"softcap": -1.0}, {"chunk_tokens": 0}])
def test_options_must_be_positive(wrong):
    name, value = next(iter(wrong.items()))
    with pytest.raises(ValueError, match=f"{name} must be above 0, got {value}"):
        FusedOptions(**wrong)


@given(data=st.data(), num_columns=st.integers(1, 40), num_tokens=st.integers(1, 6))
def test_bits_are_read_as_numpy_packs_them(data, num_columns, num_tokens):
    row = st.lists(st.booleans(), min_size=num_columns, max_size=num_columns)
    is_allowed = np.array(data.draw(st.lists(row, min_size=num_tokens, max_size=num_tokens)))
    bits = torch.from_numpy(np.packbits(is_allowed, axis=1, bitorder="little"))
    # every other token is a column, so that columns and their indices differ
    columns = RestrictedColumns(torch.arange(num_columns) * 2 + 1, bits)
    assert columns.forbidden(slice(0, num_tokens)).tolist() == (~is_allowed).tolist()
    for row in range(num_tokens):
        one = RestrictedColumns(columns.columns_U, bits[row : row + 1])
        for place in range(num_columns):
            target = torch.tensor([2 * place + 1])
            if is_allowed[row, place]:
                assert one.positions(target).tolist() == [place]
            else:
                with pytest.raises(DataError, match="allowed where it was sampled"):
                    one.positions(target)
