"""The shipped configs of training on H100s: what they say of time and memory is what comes out."""

import re
from pathlib import Path

import pytest

from actors.run_config import load_run
from c2s_rl.pipeline.sft import SftConfig
from c2s_rl.plan.memory import (
    ZERO_BUCKET,
    activation_bytes,
    optimiser_bytes,
    trained_parameters,
)
from c2s_rl.plan.shape import ModelShape, shape_of_name
from c2s_rl.plan.workload import Method
from tests.conftest import PROJECT

CONFIGS = [
    *sorted((PROJECT / "configs").glob("pretrain_*_h100.yaml")),
    PROJECT / "configs/sft_lora_gemma2_27b_h100.yaml",
]
H100_BYTES, RESERVE_BYTES = 80e9, 4e9
H100_FLOPS, SHARE = 989e12, 0.4
# Eager attention of Gemma-2 keeps for a score: itself, capped and softmaxed and its gradient in
# bfloat16 (8), softmax's input in float32 (4), tanh's output (2).
SCORE_BYTES = 14
HEAD_CHUNK = 1024  # tokens whose logits, and their gradients in float32, are alive together


def stage_of(path: Path) -> tuple[SftConfig, ModelShape]:
    run = load_run(path, [])
    assert run.base_model is not None
    stage = run.pretrain or run.sft
    assert stage is not None
    return stage, shape_of_name(str(run.base_model.path))


def rank_bytes(config: SftConfig, shape: ModelShape) -> float:
    """What a rank holds at its peak: states by ZeRO stage, activations, scores, mask, logits."""
    zero = config.workers.deepspeed
    assert isinstance(zero, int)
    ranks = config.workers.num_workers
    method = Method(
        element_bytes=2,
        zero_stage=zero,
        micro_batch_tokens=0,
        has_reference=False,
        is_checkpointed=config.workers.gradient_checkpointing,
        lora_rank=config.lora.rank if config.lora else None,
    )
    trained = trained_parameters(shape, method)
    weights = 2 * shape.num_parameters / (ranks if zero == 3 else 1)
    gathered = 4 * max(shape.layer_parameters, shape.head_parameters) if zero == 3 else 0
    gradients = 2 * trained / (ranks if zero >= 2 else 1)
    optimiser = optimiser_bytes(method, trained) / (ranks if zero >= 1 else 1)
    buckets = 4 * min(trained, ZERO_BUCKET) if zero else 0
    rows, length = config.batch_size, config.data.max_length
    square = rows * length * length
    scores = SCORE_BYTES * shape.num_heads * square if shape.attention_softcap else 0
    mask = 3 * square  # as booleans, and in bfloat16
    passing = activation_bytes(shape, method, rows * length) + scores + mask
    logits = 8 * HEAD_CHUNK * shape.vocabulary
    return weights + gathered + gradients + optimiser + buckets + passing + logits


def hours(config: SftConfig, shape: ModelShape) -> float:
    """2 N forward, 2 N for gradients of activations, 2 N of weights, 2 N for recomputing."""
    assert config.num_steps is not None
    gpus = config.workers.num_workers
    rows = config.batch_size * config.gradient_accumulation * gpus
    tokens = rows * config.data.max_length * config.num_steps
    passes = 4 + 2 * (config.lora is None) + 2 * config.workers.gradient_checkpointing
    return passes * shape.num_parameters * tokens / (gpus * H100_FLOPS * SHARE) / 3600


def test_all_five_models_are_there() -> None:
    assert len(CONFIGS) == 5


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_memory_is_what_the_config_says_and_fits(path: Path) -> None:
    config, shape = stage_of(path)
    if shape.attention_softcap is not None:
        # else scores of every layer would be kept
        assert config.workers.gradient_checkpointing
    needed = rank_bytes(config, shape)
    said = re.search(r"; (\d+) GB of 80 a GPU", path.read_text(encoding="utf-8"))
    assert said is not None
    assert int(said[1]) == round(needed / 1e9)
    assert needed < H100_BYTES - RESERVE_BYTES


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_hours_are_those_of_the_arithmetic(path: Path) -> None:
    config, shape = stage_of(path)
    first = path.read_text(encoding="utf-8").splitlines()[0]
    said = re.search(r"about ([\d.]+) hours", first)
    assert said is not None
    assert float(said[1]) == pytest.approx(hours(config, shape), rel=0.05)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_rows_are_no_longer_than_the_model_takes(path: Path) -> None:
    config, shape = stage_of(path)
    assert config.data.max_length <= shape.max_position


def test_perturbation_sft_has_the_numbers_of_the_paper() -> None:
    # methods.md section 4: batch 2, grad-accum 32, lr 1e-4, about 3,500 steps.
    config, _ = stage_of(CONFIGS[-1])
    samples = config.batch_size * config.gradient_accumulation * config.workers.num_workers
    assert (samples, config.lr, config.num_steps) == (2 * 32, 1e-4, 3500)


@pytest.mark.parametrize("path", CONFIGS[:-1], ids=lambda path: path.stem)
def test_pretraining_has_the_numbers_of_the_paper(path: Path) -> None:
    # methods.md section 2: next-token objective, lr 1e-5, weight decay 0.01.
    config, _ = stage_of(path)
    assert (config.lr, config.weight_decay, config.data.learn) == (1e-5, 0.01, "all")
