"""The stage base-model on a corpus of seven genes."""

import json
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from c2s_rl.checkpoint import verify
from c2s_rl.config import validate
from c2s_rl.data.prompt_set import PromptManifest, write_prompts
from c2s_rl.errors import ConfigError, DataError, MissingFileError, StageError
from c2s_rl.pipeline import base_model
from c2s_rl.pipeline.base_model import BaseModelConfig
from c2s_rl.types import PromptRecord, Split, Task

SYMBOLS = ("ISG15", "HLA-DRA", "B2M", "MT-CO1", "FTH1", "IFIT1")
UNSEEN = "CXCL10"
CONFIG = BaseModelConfig.model_validate(
    {
        "gpt_neox": {
            "hidden_size": 32,
            "num_layers": 1,
            "num_heads": 1,
            "vocabulary_size": 320,
            "max_position": 128,
        }
    }
)


def record(index: int, split: Split, target: str) -> PromptRecord:
    return PromptRecord(
        prompt_id=f"p{index}",
        prompt="List the genes of a B cell:",
        target=target,
        task=Task.CELL_GENERATION,
        condition="B cell",
        context_id="",
        target_id=f"t{index}",
        split=split,
        target_genes_K=np.zeros(0, dtype=np.int32),
        context_genes_K=np.zeros(0, dtype=np.int32),
    )


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    train = [record(i, Split.TRAIN, " " + " ".join(SYMBOLS)) for i in range(30)]
    test = [record(30 + i, Split.TEST, f" {UNSEEN}") for i in range(30)]
    manifest = PromptManifest(
        organism="Homo sapiens",
        num_genes=6,
        seed=0,
        counts=(),
        dropped={},
        num_short_targets=0,
        cells_manifest_sha256="0" * 64,
        config={},
        phrasings={},
        symbols=(*SYMBOLS, UNSEEN),
        original=(*SYMBOLS, UNSEEN),
    )
    write_prompts(folder, [*train, *test], manifest)
    return folder


def test_tokenizer_learns_the_training_side_only(corpus: Path, tmp_path: Path) -> None:
    manifest = base_model.run(CONFIG, corpus, tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "base")
    assert [len(tokenizer.tokenize(f" {symbol}")) for symbol in SYMBOLS] == [1] * 6
    # Not a single merge of ' CXCL10' was seen: 7 bytes, 7 tokens.
    assert len(tokenizer.tokenize(f" {UNSEEN}")) == 7
    assert (manifest.num_genes, manifest.tokens_per_gene, manifest.whole_gene_share) == (6, 1, 1)
    # Longest target: ' CXCL10' of the test side, 7 tokens, and the end token.
    assert manifest.max_target_tokens == 8
    assert manifest.max_prompt_tokens == 8  # seven words and the colon


def test_two_runs_give_equal_bytes(corpus: Path, tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        base_model.run(CONFIG, corpus, folder)
    names = sorted(path.name for path in folders[0].iterdir())
    assert {"config.json", "model.safetensors", "tokenizer.json", "manifest.json"} <= set(names)
    for name in names:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


def test_folder_kind_takes_what_another_run_made(corpus: Path, tmp_path: Path) -> None:
    made = base_model.run(CONFIG, corpus, tmp_path / "a")
    config = BaseModelConfig.model_validate({"kind": "folder", "path": str(tmp_path / "a")})
    taken = base_model.run(config, corpus, tmp_path / "b")
    assert taken.model_dump(exclude={"config"}) == made.model_dump(exclude={"config"})
    verify(tmp_path / "b")
    # The manifest is this run's own, not the source's.
    content = json.loads((tmp_path / "b" / "manifest.json").read_text())
    assert content["config"]["kind"] == "folder"


def test_model_too_short_for_the_corpus_is_refused(corpus: Path, tmp_path: Path) -> None:
    shape = CONFIG.gpt_neox.model_copy(update={"max_position": 32})
    short = CONFIG.model_copy(update={"gpt_neox": shape})
    assert base_model.run(short, corpus, tmp_path / "base").max_position == 32
    write_prompts_of_length(corpus, 40)
    with pytest.raises(DataError, match=r"\(8 tokens\) and target \(.*\), got max_position 32"):
        base_model.run(short, corpus, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def write_prompts_of_length(corpus: Path, num_genes: int) -> None:
    manifest = base_model.read_prompts(corpus).manifest
    target = " " + " ".join(SYMBOLS[i % 6] for i in range(num_genes))
    write_prompts(corpus, [record(i, Split.TRAIN, target) for i in range(10)], manifest)


def test_missing_model_folder_is_refused(corpus: Path, tmp_path: Path) -> None:
    config = BaseModelConfig.model_validate({"kind": "folder", "path": str(tmp_path / "none")})
    with pytest.raises(MissingFileError, match=r"config\.json and \*\.safetensors, got .*none"):
        base_model.run(config, corpus, tmp_path / "base")


def test_folder_of_the_users_own_is_not_replaced(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "base").write_text("a file")
    with pytest.raises(
        StageError, match=r"must be new, empty or hold manifest\.json and hashes\.json, got"
    ):
        base_model.run(CONFIG, corpus, tmp_path / "base")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"kind": "folder"}, "path must be given for kind folder and for no other, got kind=fold"),
        ({"path": "x"}, "path must be given for kind folder and for no other, got kind=gpt_neox"),
        ({"kind": "pythia"}, "'gpt_neox', 'folder' or 'smollm2', got 'pythia' at 'kind'"),
        (
            {"gpt_neox": {"hidden": 3}},
            "got 'gpt_neox.hidden' in b.yaml; did you mean 'hidden_size'",
        ),
    ],
)
def test_rules_of_the_config(data: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        validate(BaseModelConfig, data, "b.yaml")
