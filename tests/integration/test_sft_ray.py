"""SFT and pretraining on the real Ray Train, DeepSpeed and TRL: the same run in several ways.

One worker with ZeRO-2 is the yardstick. Two workers with ZeRO-3 and half the batch each, and a run
that is killed with SIGKILL and started again, must give the same; the latter bit for bit.
Pretraining goes through everything else at once: an adapter, a mixture, packing, ZeRO-3.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from actors.session import RayConfig, ray_session
from actors.sft_job import run_sft
from c2s_rl.checkpoint import verify
from c2s_rl.errors import ConfigError, DataError, StageError
from c2s_rl.pipeline.pretrain import PretrainConfig
from c2s_rl.pipeline.sft import SftConfig, SftFolders
from c2s_rl.runlog import read_metrics
from tests.conftest import PROJECT
from tests.sft_fixtures import write_inputs

pytestmark = pytest.mark.integration

NUM_STEPS = 12
# 40 prompts in batches of 8: an epoch ends in mid-run, and so does the kill.
CONFIG = {
    "num_steps": NUM_STEPS,
    "warmup_steps": 2,
    "lr": 3e-3,
    "batch_size": 8,
    "save_every": 4,
    "evaluation": {"every": 6, "metric": "eval_loss"},
    "data": {"tasks": ["cell_generation"], "max_length": 64, "eval_fraction": 0.1},
    "workers": {"num_threads": 1},
}
PRETRAIN = {
    "num_steps": 8,
    "warmup_steps": 1,
    "lr": 1e-2,
    "batch_size": 2,
    "gradient_accumulation": 2,
    "save_every": 4,
    "evaluation": {"every": 3, "metric": "eval_loss/cell_type_annotation", "result": "best"},
    "lora": {"rank": 4, "target_modules": ["query_key_value", "dense_h_to_4h"]},
    "data": {
        "max_length": 64,
        "eval_fraction": 0.15,
        "mixture": {"cell_generation": 0.5, "cell_type_annotation": 0.5},
    },
    "workers": {
        "num_workers": 2,
        "num_threads": 1,
        "deepspeed": 3,
        "gradient_checkpointing": True,
    },
}
DRIVER = """
import json, sys
from pathlib import Path
from actors.session import RayConfig, ray_session
from actors.sft_job import run_sft
from c2s_rl.pipeline.sft import SftConfig, SftFolders

corpus, base, output, config = sys.argv[1:]
with ray_session(RayConfig(address="local"), num_cpus=2):
    folders = SftFolders(Path(corpus), Path(base), Path(output))
    run_sft(SftConfig.model_validate_json(config), folders)
"""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> SftFolders:
    return write_inputs(tmp_path_factory.mktemp("sft"), number=44, num_annotations=30)


@pytest.fixture(scope="module")
def session() -> Iterator[None]:
    with ray_session(RayConfig(address="local"), num_cpus=2):
        yield


def run(inputs: SftFolders, name: str, **changes: object) -> Path:
    output = inputs.output.with_name(name)
    config = SftConfig.model_validate(CONFIG | changes)
    run_sft(config, SftFolders(inputs.corpus, inputs.base_model, output))
    return output


@pytest.fixture(scope="module")
def yardstick(inputs: SftFolders, session: None) -> Path:
    return run(inputs, "yardstick")


def losses(output: Path, name: str = "loss") -> list[float]:
    return [line[name] for line in read_metrics(output / "metrics.jsonl") if name in line]


def test_loss_falls_and_the_policy_is_a_whole_hugging_face_folder(yardstick: Path) -> None:
    trained, evaluated = losses(yardstick), losses(yardstick, "eval_loss")
    # before the first step, then every 6
    assert (len(trained), len(evaluated)) == (NUM_STEPS, 3)
    assert trained[-1] < trained[0] - 1
    assert evaluated[0] > evaluated[1] > evaluated[2]
    assert losses(yardstick, "eval_loss/cell_generation") == evaluated
    verify(yardstick / "policy")
    model = AutoModelForCausalLM.from_pretrained(yardstick / "policy")
    tokenizer = AutoTokenizer.from_pretrained(yardstick / "policy")
    prompt = tokenizer("A cell of type T:", return_tensors="pt")
    answer = model.generate(**prompt, max_new_tokens=3, do_sample=False)
    genes = tokenizer.decode(answer[0, prompt["input_ids"].shape[1] :]).split()
    # T cells begin with the last 20 of the 40 genes.
    assert set(genes) <= {f"G{i}" for i in range(20, 40)}


def test_rate_rises_over_the_warmup_and_falls_linearly_to_zero(yardstick: Path) -> None:
    # Peak 3e-3 after 2 of 12 steps, a tenth of it less with each of the other 10.
    falling = [3e-3 * (12 - step) / 10 for step in range(2, 12)]
    assert losses(yardstick, "lr") == pytest.approx([0.0, 1.5e-3, *falling])


def test_nothing_but_the_result_is_left(yardstick: Path) -> None:
    names = {path.name for path in yardstick.iterdir()}
    folders = {"best", "checkpoints", "policy", "tensorboard", "tokens"}
    assert names == folders | {"metrics.jsonl", "sft.json"}
    checkpoints = {path.name for path in (yardstick / "checkpoints").iterdir()}
    assert checkpoints == {"step-8", "step-12"}


def test_finished_run_is_not_run_again(inputs: SftFolders, yardstick: Path) -> None:
    before = (yardstick / "policy/model.safetensors").stat().st_mtime_ns
    start = time.monotonic()
    run(inputs, "yardstick")
    assert time.monotonic() - start < 5
    assert (yardstick / "policy/model.safetensors").stat().st_mtime_ns == before


def test_two_workers_with_zero3_learn_what_one_learns(inputs: SftFolders, yardstick: Path) -> None:
    # The loss is a sum over the step's learnt tokens, wherever they are: unequal targets on the
    # two ranks would show if each rank averaged its own.
    workers = {
        "num_workers": 2,
        "num_threads": 1,
        "deepspeed": PROJECT / "configs/deepspeed/zero3.json",
        "gradient_checkpointing": True,
    }
    changes = {"batch_size": 4, "workers": workers}
    output = run(inputs, "two-workers", **changes)
    for name in ("loss", "grad_norm", "eval_loss"):
        assert losses(output, name) == pytest.approx(losses(yardstick, name), rel=1e-4)
    # Not the weights: key biases have no gradient but rounding, which AdamW makes steps of lr of.
    ids = torch.arange(2, 20).unsqueeze(0)
    logits = [
        AutoModelForCausalLM.from_pretrained(folder / "policy")(input_ids=ids).logits
        for folder in (output, yardstick)
    ]
    torch.testing.assert_close(*logits, rtol=1e-3, atol=1e-3)


@pytest.mark.usefixtures("session")
def test_error_in_a_worker_reaches_the_user_as_it_was_raised(inputs: SftFolders) -> None:
    with pytest.raises(ConfigError, match=r"among the linear layers \['dense', .*got 'q_proj'"):
        run(inputs, "no-such-layer", lora={"target_modules": ["q_proj"]})


def test_sample_that_is_too_long_is_an_error_before_any_worker_starts(inputs: SftFolders) -> None:
    with pytest.raises(DataError, match=r"data\.max_length = 20 tokens, got \d+ in prompt"):
        run(inputs, "too-long", data=CONFIG["data"] | {"max_length": 20})


@pytest.mark.usefixtures("session")
def test_workers_that_find_no_room_end_with_an_error(
    inputs: SftFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "1")
    with pytest.raises(StageError, match="must end without an error, got WorkerGroupStartupTimeo"):
        run(inputs, "no-room", workers={"num_cpus": 1000, "deadline_s": 1})


def test_packed_bfloat16_learns_nearly_as_well(inputs: SftFolders, yardstick: Path) -> None:
    data = CONFIG["data"] | {"packing": True}
    output = run(inputs, "bfloat16", dtype="bfloat16", batch_size=3, data=data)
    weights = load_file(output / "policy/model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    # About the same samples a step, in another order: near the yardstick, far from the start (5).
    assert losses(output, "eval_loss")[-1] == pytest.approx(
        losses(yardstick, "eval_loss")[-1], abs=0.3
    )


@pytest.fixture(scope="module")
def pretrained(inputs: SftFolders, session: None) -> Path:
    return pretrain(inputs, "pretrained")


def pretrain(inputs: SftFolders, name: str) -> Path:
    output = inputs.output.with_name(name)
    config = PretrainConfig.model_validate(PRETRAIN)
    run_sft(config, SftFolders(inputs.corpus, inputs.base_model, output))
    return output


def test_pretraining_with_an_adapter_learns_and_changes_nothing_else(
    inputs: SftFolders, pretrained: Path
) -> None:
    for task in ("cell_generation", "cell_type_annotation"):
        evaluated = losses(pretrained, f"eval_loss/{task}")
        assert len(evaluated) == 4  # steps 0, 3, 6 and the last, 8
        assert evaluated[-1] < evaluated[0] - 0.5
    base = load_file(inputs.base_model / "model.safetensors")
    policy = load_file(pretrained / "policy/model.safetensors")
    changed = {name.split(".")[-2] for name in base if not torch.equal(base[name], policy[name])}
    assert changed == {"query_key_value", "dense_h_to_4h"}
    adapter = load_file(pretrained / "adapter/adapter_model.safetensors")
    assert {tensor.shape[0] for name, tensor in adapter.items() if "lora_A" in name} == {4}
    step = pretrained / "checkpoints/step-8"
    assert (step / "adapter_model.safetensors").is_file()
    assert not (step / "model.safetensors").exists()


def test_pretraining_goes_on_from_a_checkpoint_bit_for_bit(
    inputs: SftFolders, pretrained: Path
) -> None:
    # What a kill after step 4 leaves, without the best step, so that it must be found again.
    output = inputs.output.with_name("pretrained-again")
    shutil.copytree(pretrained, output)
    for name in ("policy", "adapter", "best", "checkpoints/step-8"):
        shutil.rmtree(output / name)
    pretrain(inputs, output.name)
    for name in ("policy/model.safetensors", "adapter/adapter_model.safetensors"):
        assert (output / name).read_bytes() == (pretrained / name).read_bytes()
    assert (output / "best/best.json").read_text() == (pretrained / "best/best.json").read_text()
    assert losses(output) == losses(pretrained)
    assert losses(output, "eval_loss") == losses(pretrained, "eval_loss")


def start_driver(inputs: SftFolders, output: Path) -> subprocess.Popen[bytes]:
    config = SftConfig.model_validate(CONFIG).model_dump_json()
    arguments = [inputs.corpus, inputs.base_model, output, config]
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, *map(str, arguments)],
        cwd=PROJECT,
        start_new_session=True,  # its own process group, which holds its Ray too
    )


def wait_for(path: Path, driver: subprocess.Popen[bytes], deadline_s: float) -> None:
    end = time.monotonic() + deadline_s
    while not path.exists():
        assert driver.poll() is None, f"the driver ended before {path} was there"
        assert time.monotonic() < end, f"no {path} within {deadline_s} s"
        time.sleep(0.05)


def test_killed_run_goes_on_and_ends_bit_for_bit_equal(inputs: SftFolders, yardstick: Path) -> None:
    output = inputs.output.with_name("killed")
    driver = start_driver(inputs, output)
    try:
        wait_for(output / "checkpoints/step-4/hashes.json", driver, 120)
    finally:
        os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()
    assert not (output / "policy").exists()
    # A checkpoint that was cut short must not be gone on from.
    half = output / "checkpoints/step-11"
    half.mkdir()
    (half / "trainer_state.json").write_text('{"global_step": 11, "max_steps": 12}')
    again = start_driver(inputs, output)
    assert again.wait(180) == 0
    ours = load_file(output / "policy/model.safetensors")
    theirs = load_file(yardstick / "policy/model.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    best = "best/best.json"
    assert (output / best).read_text() == (yardstick / best).read_text()
    assert losses(output) == losses(yardstick)
    steps = [line["step"] for line in read_metrics(output / "metrics.jsonl") if "loss" in line]
    assert steps == list(range(1, NUM_STEPS + 1))
