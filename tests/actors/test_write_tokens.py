import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from actors.jobs import write_tokens
from actors.run_config import RunConfig
from actors.stages import StageLedger
from c2s_rl.data.token_config import SftDataConfig
from c2s_rl.data.token_shards import read_token_manifest
from c2s_rl.errors import ConfigError, DataError, StageError
from c2s_rl.pipeline.pretrain import PretrainConfig, PretrainDataConfig
from c2s_rl.pipeline.sft import SftConfig
from c2s_rl.types import Split
from tests.sft_fixtures import record, write_corpus, write_inputs

ROWS = SftDataConfig(max_length=128)
PACKED = SftDataConfig(max_length=64, packing=True)


@pytest.fixture
def run(tmp_path: Path) -> RunConfig:
    """A run whose corpus and base model are there already."""
    write_inputs(tmp_path / "tiny", number=12, hidden=32)
    return RunConfig(name="tiny", runs_dir=tmp_path, sft=SftConfig(data=ROWS))


def test_tokens_are_written_without_training(
    run: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tokens(run)
    tokens = run.folder / "sft/tokens"
    assert read_token_manifest(tokens).counts[0].num_samples == 12
    assert "sft/tokens/report.html" in capsys.readouterr().err.replace("\n", "")
    # The stage is begun, not done: `c2s-rl sft` goes on from here.
    assert StageLedger(run.folder).fingerprint("sft") is None
    before = (tokens / "train-00000.arrow").stat().st_mtime_ns
    write_tokens(run)
    assert (tokens / "train-00000.arrow").stat().st_mtime_ns == before


def test_tokens_of_a_corpus_that_leaks_are_not_written(run: RunConfig) -> None:
    shutil.rmtree(run.folder / "corpus")
    trained = record(0, " G1 G2")
    write_corpus(
        run.folder / "corpus", [trained, replace(trained, prompt_id="q", split=Split.TEST)]
    )
    with pytest.raises(DataError, match=r"must not share a target cell, got 't0' in .*corpus"):
        write_tokens(run)
    assert not (run.folder / "sft" / "tokens").exists()


def test_tokens_of_another_config_are_replaced_on_demand_only(run: RunConfig) -> None:
    write_tokens(run)
    other = run.model_copy(update={"sft": SftConfig(data=PACKED)})
    with pytest.raises(
        StageError, match=r"'sft' must go on with the config.*data\.max_length 128 -> 64"
    ):
        write_tokens(other)
    write_tokens(other, overwrite=True)
    assert read_token_manifest(run.folder / "sft/tokens").max_length == 64


def test_tokens_of_sft_wait_for_pretraining(
    run: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tokens(
        run.model_copy(update={"pretrain": PretrainConfig(data=PretrainDataConfig(max_length=64))})
    )
    assert (run.folder / "pretrain/tokens/report.html").is_file()
    assert not (run.folder / "sft").exists()
    assert "follow when pretraining is done" in capsys.readouterr().err


def test_run_that_trains_nothing_has_no_tokens(run: RunConfig) -> None:
    with pytest.raises(ConfigError, match="sections pretrain and sft, got sections for none"):
        write_tokens(run.model_copy(update={"sft": None}))
