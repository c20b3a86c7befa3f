"""What cannot be tokenised is one clear error, and leaves nothing behind."""

from dataclasses import replace
from pathlib import Path

import pytest

from c2s_rl.data.token_config import SftDataConfig, TooLong
from c2s_rl.data.token_shards import open_eval_rows, open_token_rows, read_token_manifest
from c2s_rl.data.token_statistics import TokenSide
from c2s_rl.errors import DataError, MissingFileError
from c2s_rl.pipeline.tokens import TokenInputs, write_token_shards
from c2s_rl.types import PromptRecord, Task
from tests.sft_fixtures import record, tokenizer, write_corpus

CELL, TYPE = Task.CELL_GENERATION, Task.CELL_TYPE_ANNOTATION


def with_genes(index: int, number: int) -> PromptRecord:
    return record(index, " G0" * number)


def mixed(num_cells: int, num_types: int) -> list[PromptRecord]:
    types = [replace(record(1000 + i, " G1"), task=TYPE) for i in range(num_types)]
    return [*(with_genes(i, 1) for i in range(num_cells)), *types]


def inputs_of(folder: Path, samples: list[PromptRecord]) -> TokenInputs:
    tokenizer().save_pretrained(folder / "words")
    return TokenInputs(write_corpus(folder / "corpus", samples), folder / "words")


@pytest.mark.parametrize(
    ("samples", "config", "message"),
    [
        ([], {}, "must have training samples of some task, got none in"),
        (
            mixed(3, 0),
            {"tasks": (CELL, TYPE)},
            r"training samples of cell_type_annotation, got cell_generation \(3\) in",
        ),
        (
            mixed(3, 0),
            {"mixture": {CELL: 1, TYPE: 1}},
            r"training samples of cell_type_annotation, got cell_generation \(3\) in",
        ),
        (
            mixed(3, 3),
            {"mixture": {CELL: 1}},
            r"data\.mixture must name every task of the corpus .*; see cell_type_annotation in",
        ),
        (mixed(3, 0), {"eval_fraction": 1e-9}, r"eval_fraction = 1e-09 must keep .* got none of 3"),
        (
            [with_genes(0, 9), *mixed(0, 1)],
            {"max_length": 8, "too_long": TooLong.DROP},
            r"one train sample of 'cell_generation' must have at most data\.max_length = 8 tok",
        ),
        (
            [with_genes(0, 9)],
            {"max_length": 8},
            r"must be at most data\.max_length = 8 tokens, got 15",
        ),
    ],
)
def test_corpus_that_cannot_be_learnt_from_is_an_error_that_leaves_nothing(
    tmp_path: Path, samples: list[PromptRecord], config: dict[str, object], message: str
) -> None:
    inputs = inputs_of(tmp_path, samples)
    with pytest.raises(DataError, match=message):
        write_token_shards(inputs, SftDataConfig(**config), tmp_path / "t", seed=0)
    assert {path.name for path in tmp_path.iterdir()} == {"corpus", "words"}


def test_missing_inputs_are_named(tmp_path: Path) -> None:
    inputs = inputs_of(tmp_path, mixed(2, 0))
    lost = replace(inputs, base_model=tmp_path / "lost")
    with pytest.raises(MissingFileError, match=r"folder with tokenizer\.json, got .*lost"):
        write_token_shards(lost, SftDataConfig(), tmp_path / "t", seed=0)
    (inputs.corpus / "prompts-00000.parquet").unlink()
    with pytest.raises(MissingFileError, match=r"must hold prompts-\*\.parquet, got none"):
        write_token_shards(inputs, SftDataConfig(), tmp_path / "t", seed=0)


def test_torn_corpus_file_is_named(tmp_path: Path) -> None:
    inputs = inputs_of(tmp_path, mixed(2, 0))
    path = inputs.corpus / "prompts-00000.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"must be whole Parquet, got .*prompts-00000\.parquet"):
        write_token_shards(inputs, SftDataConfig(), tmp_path / "t", seed=0)


def test_missing_or_altered_shards_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"must have a manifest\.json, got none in"):
        open_token_rows(tmp_path)
    write_token_shards(inputs_of(tmp_path, mixed(2, 0)), SftDataConfig(), tmp_path / "t", seed=0)
    with pytest.raises(DataError, match="must have eval rows, got none"):
        open_token_rows(tmp_path / "t", TokenSide.EVAL)
    assert open_eval_rows(tmp_path / "t") == {}
    shard = tmp_path / "t/train-00000.arrow"
    shard.write_bytes(shard.read_bytes()[:-8])
    with pytest.raises(DataError, match=r"must have its \d+ bytes, got \d+ in .*train-00000"):
        open_token_rows(tmp_path / "t")
    shard.unlink()
    with pytest.raises(MissingFileError, match=r"every file they list, got no train-00000\.arrow"):
        open_token_rows(tmp_path / "t")
    text = (tmp_path / "t/manifest.json").read_text()
    (tmp_path / "t/manifest.json").write_text(
        text.replace('"schema_version": 1', '"schema_version": 9')
    )
    with pytest.raises(DataError, match="schema_version must be 1, got 9"):
        read_token_manifest(tmp_path / "t")
    inputs = TokenInputs(tmp_path / "corpus", tmp_path / "words")
    write_token_shards(inputs, SftDataConfig(), tmp_path / "t", seed=0)  # in the place of it
    assert len(open_token_rows(tmp_path / "t")) == 2
