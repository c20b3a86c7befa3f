"""Every kernel for packed rows against attention written out with a full mask."""

import pytest
import torch

from c2s_rl.models import chunked_attention
from c2s_rl.models.chunked_attention import ChunkedKernel
from c2s_rl.models.flex_prompt_attention import flex_prompt_attention
from c2s_rl.models.prompt_attention import AttentionRule, FlashKernel, piecewise_attention
from c2s_rl.models.prompt_layout import PartShape, SharedPromptLayout

# a long prompt, runs of equal lengths, an empty completion, a prompt alone
LAYOUT = SharedPromptLayout(
    (PartShape(70, (5, 5, 0, 33, 8)), PartShape(1, (3,)), PartShape(4, ()), PartShape(9, (2, 2)))
)
PLAIN = AttentionRule(scale=0.4, softcap=None, window=None)
RULES = {
    "plain": PLAIN,
    "softcap": AttentionRule(scale=0.4, softcap=1.5, window=None),
    "window": AttentionRule(scale=0.4, softcap=None, window=6),
    "both": AttentionRule(scale=0.4, softcap=1.5, window=40),
    "narrow": AttentionRule(scale=0.4, softcap=1.5, window=2),
}
HEADS = {"one_to_one": (4, 4), "grouped": (4, 2), "one_key_head": (3, 1)}


def make_inputs(heads, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    num_query, num_key = HEADS[heads]
    length = LAYOUT.num_tokens
    # memory order of a model: [1, L, H, E], seen as [1, H, L, E]
    return [
        torch.randn(1, length, n, 8, generator=generator, dtype=dtype).transpose(1, 2)
        for n in (num_query, num_key, num_key)
    ]


def is_seen(layout, window):
    """[L, L], pair by pair from the definition."""
    sequences, positions = layout.sequence_ids_L, layout.position_ids_L
    return torch.tensor(
        [
            [
                part == other_part
                and (other in (-1, completion))
                and 0 <= query - key < (window or layout.num_tokens)
                for (other_part, other), key in zip(sequences, positions, strict=True)
            ]
            for (part, completion), query in zip(sequences, positions, strict=True)
        ]
    )


def full_attention(query, key, value, rule):
    repeats = query.shape[1] // key.shape[1]
    scores = query @ key.repeat_interleave(repeats, 1).mT * rule.scale
    if rule.softcap is not None:
        scores = rule.softcap * torch.tanh(scores / rule.softcap)
    scores = scores.masked_fill(~is_seen(LAYOUT, rule.window), -torch.inf)
    return scores.softmax(-1) @ value.repeat_interleave(repeats, 1)


def with_gradients(attend, inputs):
    inputs = [x.detach().requires_grad_() for x in inputs]
    out = attend(*inputs)
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(out.shape, generator=generator, dtype=torch.float64)
    return [out.detach(), *torch.autograd.grad((out * weights.to(out)).sum(), inputs)]


def relative_errors(values, expected):
    return [((v - e).norm() / e.norm()).item() for v, e in zip(values, expected, strict=True)]


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("rule", RULES)
def test_chunked_blocks_equal_full_attention(rule, heads, monkeypatch):
    monkeypatch.setattr(chunked_attention, "CHUNK_SCORES", 1)  # chunks of MIN_CHUNK = 16 queries
    inputs = make_inputs(heads)
    expected = with_gradients(lambda *x: full_attention(*x, RULES[rule]), inputs)
    chunked = with_gradients(
        lambda *x: piecewise_attention(*x, layout=LAYOUT, rule=RULES[rule], kernel=ChunkedKernel()),
        [x.float() for x in inputs],
    )
    assert max(relative_errors(chunked, expected)) < 1e-6


@pytest.mark.parametrize("heads", HEADS)
def test_fused_blocks_equal_full_attention(heads):
    inputs = make_inputs(heads)
    expected = with_gradients(lambda *x: full_attention(*x, PLAIN), inputs)
    fused = with_gradients(
        lambda *x: piecewise_attention(*x, layout=LAYOUT, rule=PLAIN, kernel=FlashKernel()),
        [x.float() for x in inputs],
    )
    assert max(relative_errors(fused, expected)) < 1e-6


@pytest.mark.parametrize("kernel", [FlashKernel(), ChunkedKernel()], ids=["fused", "chunked"])
def test_blocks_in_bfloat16_are_as_exact_as_their_inputs(kernel):
    inputs = [x.bfloat16() for x in make_inputs("grouped")]
    expected = with_gradients(lambda *x: full_attention(*x, PLAIN), [x.double() for x in inputs])
    result = with_gradients(
        lambda *x: piecewise_attention(*x, layout=LAYOUT, rule=PLAIN, kernel=kernel), inputs
    )
    assert {x.dtype for x in result} == {torch.bfloat16}
    # 8 significant bits: 2^-8 = 0.004, a few roundings deep
    assert max(relative_errors([x.double() for x in result], expected)) < 0.012


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("rule", RULES)
def test_flex_equals_full_attention_forward(rule, heads):
    # its backward pass exists on CUDA only
    inputs = [x.float() for x in make_inputs(heads)]
    flex = flex_prompt_attention(*inputs, layout=LAYOUT, rule=RULES[rule])
    assert max(relative_errors([flex], [full_attention(*inputs, RULES[rule])])) < 1e-6


@pytest.mark.gpu
@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("rule", RULES)
def test_flex_on_cuda_equals_full_attention_with_gradients(rule, heads):
    inputs = make_inputs(heads)
    expected = with_gradients(lambda *x: full_attention(*x, RULES[rule]), inputs)
    inputs = [torch.cat([x, torch.zeros_like(x)], -1).float().cuda() for x in inputs]  # E = 16
    flex = with_gradients(
        lambda *x: flex_prompt_attention(*x, layout=LAYOUT, rule=RULES[rule])[..., :8].cpu(), inputs
    )
    halves = [flex[0], *(x[..., :8].cpu() for x in flex[1:])]
    assert max(relative_errors(halves, expected)) < 1e-2  # its products may use TF32
