"""Log-probabilities, entropies and their gradients, against the plain way over all logits."""

import math
from dataclasses import replace

import pytest
import torch

from c2s_rl.errors import DataError
from c2s_rl.models.logprobs import (
    FusedOptions,
    RestrictedColumns,
    fused_logprobs,
    fused_token_loss,
)
from tests.models.head_cases import (
    D,
    Head,
    N,
    V,
    gradients,
    make_columns,
    make_head,
    plain,
    token_loss,
)

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
