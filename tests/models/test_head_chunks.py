"""Precision and memory of the chunks: what is summed in float32, and what is never made."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from c2s_rl.models.logprobs import FusedOptions, fused_logprobs, fused_token_loss
from tests.models.head_cases import N, gradients, make_columns, make_head, plain, token_loss

BIG = {"n": 128, "d": 4, "v": 1000, "dtype": torch.float32}
CHUNK = 8


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


@pytest.mark.parametrize("wrong", [{"temperature": 0.0}, {"softcap": -1.0}, {"chunk_tokens": 0}])
def test_options_must_be_positive(wrong):
    name, value = next(iter(wrong.items()))
    with pytest.raises(ValueError, match=f"{name} must be above 0, got {value}"):
        FusedOptions(**wrong)
