"""Shapes: parameters by hand, against transformers, and from a folder."""

import json

import pytest

from c2s_rl.errors import DataError, MissingFileError
from c2s_rl.plan.shape import PUBLISHED, Family, shape_of_folder, shape_of_name


def test_parameters_of_pythia_410m_by_hand():
    # 2 x 50304 x 1024 (embedding, head) + 24 x (12 x 1024^2 + 13 x 1024) + 2 x 1024
    assert PUBLISHED["pythia-410m"].num_parameters == 405_334_016


def test_parameters_of_gemma_2_2b_by_hand():
    # layer: query 2304 x 2048 + key and value 2 x 2304 x 1024 + output 2048 x 2304
    #        + 3 x 2304 x 9216 (gated) + 4 norms x 2304 = 77,865,984; 26 of them,
    # + 256000 x 2304 (tied) + final norm 2304
    shape = PUBLISHED["gemma-2-2b"]
    assert shape.layer_parameters == 77_865_984
    assert shape.num_parameters == 26 * 77_865_984 + 589_824_000 + 2304 == 2_614_341_888


def test_adapters_by_hand():
    # pythia-410m layer: 3D + D out of and into D, 4 D: (1024+3072)+(1024+1024)+2x(1024+4096)
    assert PUBLISHED["pythia-410m"].adapter_parameters(8) == 24 * 8 * 16_384


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_shapes_have_the_parameters_transformers_makes(name, tmp_path):
    import torch
    from transformers import (
        AutoModelForCausalLM,
        Gemma2Config,
        GPTNeoXConfig,
        LlamaConfig,
    )

    shape = PUBLISHED[name]
    kinds = {
        Family.GPT_NEOX: GPTNeoXConfig,
        Family.LLAMA: LlamaConfig,
        Family.GEMMA2: Gemma2Config,
    }
    settings = {
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "intermediate_size": shape.intermediate,
        "max_position_embeddings": shape.max_position,
        "tie_word_embeddings": shape.is_tied,
    }
    if shape.family is not Family.GPT_NEOX:
        settings |= {"num_key_value_heads": shape.num_kv_heads, "head_dim": shape.head_dim}
    config = kinds[shape.family](**settings)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert sum(p.numel() for p in model.parameters()) == shape.num_parameters
    config.save_pretrained(tmp_path)
    found = shape_of_folder(tmp_path)
    assert found.num_parameters == shape.num_parameters
    assert (found.window, found.num_window_layers) == (shape.window, shape.num_window_layers)
    assert found.final_softcap == shape.final_softcap


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("C2S-Scale-Gemma-2-27B", "gemma-2-27b"),
        ("C2S-Pythia-410m-cell-type-prediction", "pythia-410m"),
        ("pythia_1b", "pythia-1b"),
    ],
)
def test_a_folder_named_after_a_published_model_is_enough(text, name):
    assert shape_of_name(text).name == name


def test_an_unknown_name_is_refused_with_the_choices():
    with pytest.raises(MissingFileError, match=r"named like one of .*gemma-2-2b.*, got 'my-model'"):
        shape_of_name("my-model")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model_type": "mamba"}, r"model_type must be one of \['gpt_neox'.*, got 'mamba' in"),
        ({"model_type": "llama"}, r"num_hidden_layers must be a whole number, got None in"),
    ],
)
def test_a_config_that_says_too_little_is_refused(settings, message, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(DataError, match=message):
        shape_of_folder(tmp_path)
