import json
from pathlib import Path

import pytest

from c2s_rl.checkpoint import atomic_folder
from c2s_rl.config import validate
from c2s_rl.data.token_config import SftDataConfig
from c2s_rl.errors import CheckpointError, ConfigError, MissingFileError
from c2s_rl.pipeline.pretrain import PretrainConfig
from c2s_rl.pipeline.sft import (
    SftConfig,
    SftFolders,
    SftJob,
    check_metric,
    is_done,
    plan,
)
from c2s_rl.pipeline.sft_deepspeed import deepspeed_settings
from tests.conftest import PROJECT
from tests.sft_fixtures import records, write_tokens


@pytest.fixture
def folders(tmp_path: Path) -> SftFolders:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus/manifest.json").write_text("{}")
    (tmp_path / "base").mkdir()
    (tmp_path / "base/config.json").write_text('{"hidden_size": 64}')
    return SftFolders(tmp_path / "corpus", tmp_path / "base", tmp_path / "sft")


def test_defaults_are_those_of_the_methods() -> None:
    config = SftConfig()
    # methods.md section 3: SFT lr 1e-5, 100 warm-up steps; section 2: weight decay 0.01.
    assert (config.lr, config.warmup_steps, config.weight_decay) == (1e-5, 100, 0.01)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"epochs": 1, "num_steps": 5}, "only one of epochs and num_steps may be given, got epoch"),
        ({"num_steps": 5}, "warmup_steps must be fewer than num_steps, got 100 and 5"),
        ({"num_step": 5}, "'num_step' in a file; did you mean 'num_steps'"),
        ({"data": {"tasks": ["sing"]}}, "at 'data.tasks.0' in a file"),
        (
            {"evaluation": {"metric": "loss"}},
            "metric must be one of eval_loss, eval_loss/.*, got 'loss' at 'evaluation'",
        ),
        (
            {"evaluation": {"result": "best"}},
            "metric must be given for result best or a patience.*got none with result 'best'",
        ),
        (
            {"evaluation": {"metric": "eval_loss"}},
            "eval_fraction must be above 0 for evaluation.metric, got 0 with 'eval_loss'",
        ),
        ({"lora": {"ranks": 4}}, "'lora.ranks' in a file; did you mean 'rank'"),
    ],
)
def test_config_that_breaks_a_rule_is_refused(data: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(SftConfig, data, "a file")


def test_same_call_again_gives_the_same_job(folders: SftFolders) -> None:
    assert plan(SftConfig(), folders) == plan(SftConfig(), folders)


def test_relative_folders_become_absolute(
    folders: SftFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folders.corpus.parent)
    job = plan(SftConfig(), SftFolders(Path("corpus"), Path("base"), Path("sft")))
    assert job.folders == folders


def test_another_config_in_the_same_folder_is_refused(folders: SftFolders) -> None:
    plan(SftConfig(lr=1e-4), folders)
    with pytest.raises(CheckpointError, match=r"same lr = 0\.0001, got 0\.0002"):
        plan(SftConfig(lr=2e-4), folders)


def test_adapter_instead_of_all_weights_is_another_run(folders: SftFolders) -> None:
    plan(SftConfig(), folders)
    with pytest.raises(CheckpointError, match=r"same lora = None, got \{'rank': 4"):
        plan(SftConfig.model_validate({"lora": {"rank": 4}}), folders)


def test_pretraining_keeps_a_record_of_its_own(folders: SftFolders) -> None:
    plan(PretrainConfig(), folders)
    assert (folders.output / "pretrain.json").is_file()
    assert not (folders.output / "sft.json").exists()


def test_saving_more_often_is_no_other_run(folders: SftFolders) -> None:
    plan(SftConfig(save_every=10), folders)
    assert plan(SftConfig(save_every=5), folders).config.save_every == 5


@pytest.mark.parametrize(
    ("changed", "name"),
    [("corpus/manifest.json", "corpus"), ("base/config.json", "base_model")],
)
def test_other_inputs_in_the_same_folder_are_refused(
    folders: SftFolders, changed: str, name: str
) -> None:
    plan(SftConfig(), folders)
    (folders.corpus.parent / changed).write_text('{"other": 1}')
    with pytest.raises(CheckpointError, match=f"same {name} = "):
        plan(SftConfig(), folders)


def test_missing_inputs_are_named(folders: SftFolders) -> None:
    (folders.base_model / "config.json").unlink()
    with pytest.raises(MissingFileError, match=r"base model must be a folder with config\.json"):
        plan(SftConfig(), folders)


def test_rows_longer_than_the_model_takes_are_refused(folders: SftFolders) -> None:
    (folders.base_model / "config.json").write_text('{"max_position_embeddings": 512}')
    with pytest.raises(ConfigError, match="at most the base model's 512 positions, got 1024"):
        plan(SftConfig(), folders)
    assert not folders.output.exists()


def test_metric_of_a_task_without_rows_is_refused(tmp_path: Path) -> None:
    data = SftDataConfig(max_length=64, eval_fraction=0.3)
    write_tokens(tmp_path / "sft", records(20), data)
    settings = {"evaluation": {"metric": "eval_loss/question_answering"}, "data": data.model_dump()}
    config = SftConfig.model_validate(settings)
    job = SftJob(config, SftFolders(tmp_path, tmp_path, tmp_path / "sft"), {})
    message = "one of eval_loss, eval_loss/cell_generation, whose rows.*got 'eval_loss/question_an"
    with pytest.raises(ConfigError, match=message):
        check_metric(job)


def test_run_is_done_when_its_policy_is_whole(folders: SftFolders) -> None:
    job = plan(SftConfig(), folders)
    job.policy.mkdir()
    assert not is_done(job)
    with atomic_folder(job.policy):
        pass
    assert is_done(job)


@pytest.mark.parametrize(("name", "stage"), [("zero2.json", 2), ("zero3.json", 3)])
def test_shipped_deepspeed_files_differ_from_the_plain_stage_only_in_zero(
    name: str, stage: int
) -> None:
    shipped = deepspeed_settings(PROJECT / "configs/deepspeed" / name)
    plain = deepspeed_settings(stage)
    zero = shipped.pop("zero_optimization")
    assert isinstance(zero, dict)
    assert zero["stage"] == stage
    del plain["zero_optimization"]
    assert shipped == plain


def test_gpus_exchange_while_they_compute_and_cpus_do_not() -> None:
    for is_cuda in (False, True):
        zero = deepspeed_settings(2, is_cuda=is_cuda)["zero_optimization"]
        assert isinstance(zero, dict)
        assert zero["overlap_comm"] is is_cuda


@pytest.mark.parametrize(
    ("text", "message"), [("{", "must be JSON, got"), ("[1]", r"must be a JSON object, got \[1\]")]
)
def test_deepspeed_file_must_be_a_json_object(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "zero.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        deepspeed_settings(path)


def test_missing_deepspeed_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="ZeRO stage 0-3 or a JSON file that exists, got"):
        deepspeed_settings(tmp_path / "none.json")


def test_record_of_the_run_names_no_folder(folders: SftFolders) -> None:
    plan(SftConfig(), folders)
    record = json.loads((folders.output / "sft.json").read_text())
    assert str(folders.output.parent) not in json.dumps(record)
