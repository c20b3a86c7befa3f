"""Fresh and copied model folders, and the folders that are refused."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from c2s_rl.errors import DataError, MissingFileError
from c2s_rl.models.base_model import inspect, write_copy, write_gpt_neox
from c2s_rl.models.shape import GptNeoxShape
from c2s_rl.models.tokenizer import EOS, PAD, train_bpe

SHAPE = GptNeoxShape(
    hidden_size=32, num_layers=2, num_heads=1, vocabulary_size=300, max_position=64
)
TEXTS = [" ISG15 B2M HLA-DRA FTH1"] * 20


def write(folder: Path, seed: int = 0) -> Path:
    folder.mkdir()
    tokenizer = train_bpe(TEXTS, vocabulary_size=300, max_length=64)
    write_gpt_neox(folder, tokenizer, shape=SHAPE, seed=seed)
    return folder


def edit_json(path: Path, **changes: str | int | None) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **changes}))


def test_fresh_model_has_pythias_number_of_parameters(tmp_path: Path) -> None:
    facts = inspect(write(tmp_path / "m"))
    # Per layer: query_key_value 32 x 96 + 96, dense 32 x 32 + 32, feed-forward 32 x 128 + 128 and
    # 128 x 32 + 32, two layer norms of 64: 3168 + 1056 + 4224 + 4128 + 128 = 12,704. Two layers,
    # the last norm (64) and two embeddings of `vocabulary_size` x 32.
    # (The same sum for 128 wide, 6 layers, 50,304 rows is Pythia-14M's 14,067,712.)
    assert facts.num_parameters == 2 * 12_704 + 64 + 2 * 32 * facts.vocabulary_size
    assert facts.architecture == "GPTNeoXForCausalLM"
    assert facts.max_position == 64


def test_weights_depend_on_the_seed_and_leave_torchs_generator_alone(tmp_path: Path) -> None:
    state = torch.random.get_rng_state()
    first = write(tmp_path / "a", seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(3)
    again = write(tmp_path / "b", seed=1)
    other = write(tmp_path / "c", seed=2)
    names = ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json")
    for name in names:
        assert (first / name).read_bytes() == (again / name).read_bytes()
    embedding = "gpt_neox.embed_in.weight"
    assert not torch.equal(
        load_file(first / names[0])[embedding], load_file(other / names[0])[embedding]
    )


def test_fresh_folder_loads_and_stops_at_the_end_token(tmp_path: Path) -> None:
    folder = write(tmp_path / "m")
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for settings in (model.config, model.generation_config):
        assert settings.eos_token_id == tokenizer.eos_token_id
        assert settings.pad_token_id == tokenizer.pad_token_id
    with torch.no_grad():
        logits = model(**tokenizer(" ISG15 B2M", return_tensors="pt")).logits
    assert torch.isfinite(logits).all()
    # Untrained: near the uniform distribution, so nothing is loaded wrongly scaled.
    assert logits.log_softmax(-1).std() < 0.2


def test_copy_keeps_weights_and_tokens(tmp_path: Path) -> None:
    source = write(tmp_path / "m")
    (source / "optimizer.pt").write_bytes(b"not a part of the model")
    copy = tmp_path / "copy"
    copy.mkdir()
    write_copy(copy, source)
    assert (copy / "model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()
    assert inspect(copy) == inspect(source)
    assert not (copy / "optimizer.pt").exists()


def test_copy_without_padding_gets_a_new_row_for_it(tmp_path: Path) -> None:
    source = write(tmp_path / "m")
    # Make the padding token vanish: rename it to an ordinary word of the same id.
    for name in ("tokenizer.json", "tokenizer_config.json"):
        text = (source / name).read_text().replace(PAD, "<|other|>")
        (source / name).write_text(text)
    edit_json(source / "tokenizer_config.json", pad_token=EOS)
    copy = tmp_path / "copy"
    copy.mkdir()
    write_copy(copy, source)
    tokenizer = AutoTokenizer.from_pretrained(copy)
    assert (tokenizer.eos_token, tokenizer.pad_token) == (EOS, PAD)
    weights = load_file(copy / "model.safetensors")["gpt_neox.embed_in.weight"]
    former = load_file(source / "model.safetensors")["gpt_neox.embed_in.weight"]
    assert len(weights) == len(former) + 1 == len(tokenizer)
    torch.testing.assert_close(weights[: len(former)], former)


def test_truncated_weights_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "m")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"whole safetensors, got .* in .*model\.safetensors"):
        inspect(folder)


def test_padding_equal_to_the_end_token_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "m")
    edit_json(folder / "tokenizer_config.json", pad_token=EOS)
    with pytest.raises(DataError, match="must have an end token and another padding token"):
        inspect(folder)


def test_more_tokens_than_embedding_rows_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "m")
    edit_json(folder / "config.json", vocab_size=270)
    with pytest.raises(DataError, match="must not exceed the 270 rows of the embedding"):
        inspect(folder)


def test_folder_without_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(MissingFileError, match=r"config\.json and \*\.safetensors, got"):
        write_copy(tmp_path / "copy", tmp_path)


def test_unreadable_config_is_refused_in_one_line(tmp_path: Path) -> None:
    source = write(tmp_path / "m")
    (source / "config.json").write_text('{"model_type": "no_such_model"}')
    with pytest.raises(DataError, match="must hold a config and a tokenizer, got") as error:
        write_copy(tmp_path / "copy", source)
    assert "\n" not in str(error.value)
