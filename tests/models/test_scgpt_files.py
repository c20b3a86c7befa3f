"""scGPT folders: what is published loads, what does not fit is said."""

import json

import pytest
import torch

from c2s_rl.errors import ConfigError, DataError, MissingFileError
from c2s_rl.models.scgpt_files import ScGPTArgs, build_model, read_folder, write_folder
from tests.models.scgpt_folders import ARGS, TOKENS, package_model, write_published

ATTENTION = "transformer_encoder.layers.1.self_attn.Wqkv.weight"
VALUES = "value_encoder.linear1.weight"


class NoTensor:
    """A class that a file of weights has no business to bring along."""


@pytest.mark.parametrize("is_flash", [True, False])
def test_every_weight_of_the_embedding_is_loaded(tmp_path, is_flash):
    expected = package_model().state_dict()
    model = read_folder(write_published(tmp_path, is_flash=is_flash)).model
    loaded = {k: v for k, v in model.state_dict().items() if not v.is_meta}
    assert {key.split(".")[0] for key in loaded} == {
        "encoder",
        "value_encoder",
        "transformer_encoder",
    }
    assert all(torch.equal(value, expected[key]) for key, value in loaded.items())


def test_heads_may_be_absent_and_others_present(tmp_path):
    def change(weights):
        for key in [k for k in weights if "decoder" in k]:
            del weights[key]
        weights["flag_encoder.weight"] = torch.zeros(2, 16)

    assert read_folder(write_published(tmp_path, change=change)).args.embsize == 16


def test_a_model_with_batch_normalisation_loads_it(tmp_path):
    model = package_model(domain_spec_batchnorm="batchnorm")
    loaded = read_folder(write_published(tmp_path, model=model)).model.state_dict()
    assert torch.equal(loaded["bn.weight"], model.state_dict()["bn.weight"])


def test_what_is_written_is_read_back_and_has_published_names(tmp_path):
    args = ScGPTArgs.model_validate(ARGS)
    model = package_model()
    write_folder(tmp_path, args, TOKENS, model, {"MVC": True})
    assert ATTENTION in torch.load(tmp_path / "best_model.pt", weights_only=True)
    assert json.loads((tmp_path / "args.json").read_text())["MVC"] is True
    folder = read_folder(tmp_path)
    assert (folder.args, folder.token_ids) == (args, TOKENS)
    first = "encoder.embedding.weight"
    assert torch.equal(folder.model.state_dict()[first], model.state_dict()[first])


def test_the_digest_tells_weights_apart(tmp_path):
    def change(weights):
        weights[VALUES] = weights[VALUES] + 1e-3

    one = read_folder(write_published(tmp_path / "a")).digest
    assert read_folder(write_published(tmp_path / "b")).digest == one
    assert read_folder(write_published(tmp_path / "c", change=change)).digest != one


def test_reading_draws_no_random_numbers(tmp_path):
    write_published(tmp_path)
    before = torch.random.get_rng_state()
    read_folder(tmp_path)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda w: w.pop(ATTENTION),
            r"got no 'transformer_encoder.layers.1.self_attn.in_proj_weight",
        ),
        (
            lambda w: w.pop("encoder.enc_norm.bias"),
            "got no 'encoder.enc_norm.bias' in .*best_model",
        ),
        (
            lambda w: w.update({VALUES: torch.zeros(8, 1)}),
            r"value_encoder.linear1.weight must have shape \(16, 1\), got \(8, 1\) in",
        ),
        (
            lambda w: w.update({"encoder.embedding.weight": torch.zeros(40, 16)}),
            r"vocab.json: encoder.embedding.weight must have shape \(33, 16\), got \(40, 16\) in",
        ),
        (
            lambda w: w.update({VALUES: torch.full((16, 1), float("nan"))}),
            "must be finite, got nan or inf in value_encoder.linear1.weight",
        ),
        (
            lambda w: w.update({"transformer_encoder.layers.3.norm1.bias": torch.zeros(16)}),
            "must have its place, got 'transformer_encoder.layers.3.norm1.bias' without one",
        ),
        (
            lambda w: w.update({"dsbn.bns.0.weight": torch.ones(16)}),
            "must embed cells without batch labels, got normalisation by batch",
        ),
        (lambda w: w.update({"extra": {"step": 3}}), "must be tensors by name, got 'encoder"),
        (lambda w: w.update({"extra": NoTensor()}), "must be a file of tensors and nothing else"),
    ],
)
def test_weights_that_do_not_fit_are_an_error(tmp_path, change, message):
    write_published(tmp_path, change=change)
    with pytest.raises(DataError, match=message):
        read_folder(tmp_path)


def test_a_cut_file_of_weights_is_an_error(tmp_path):
    write_published(tmp_path)
    whole = (tmp_path / "best_model.pt").read_bytes()
    (tmp_path / "best_model.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="must be a file of tensors and nothing else"):
        read_folder(tmp_path)


@pytest.mark.parametrize("name", ["args.json", "vocab.json", "best_model.pt"])
def test_a_missing_file_is_named(tmp_path, name):
    (write_published(tmp_path) / name).unlink()
    with pytest.raises(MissingFileError, match=f"got no {name} in"):
        read_folder(tmp_path)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ({k: v for k, v in TOKENS.items() if v < 31}, "got no '<cls>' among 31 in"),
        (
            {"A": 0, "<cls>": 1, "<eoc>": 2},
            "must hold the tokens '<cls>' and '<pad>', got no '<pad>'",
        ),
        ({"A": 0, "<pad>": 1, "<cls>": 3}, "number its 3 tokens from 0 without gaps"),
        ({"A": 0, "<pad>": 1, "<cls>": "2"}, "number its 3 tokens from 0 without gaps"),
        (["A", "<pad>", "<cls>"], "must map tokens to rows, got a list"),
    ],
)
def test_a_vocabulary_that_cannot_be_used_is_an_error(tmp_path, tokens, message):
    write_published(tmp_path)
    (tmp_path / "vocab.json").write_text(json.dumps(tokens))
    with pytest.raises(DataError, match=message):
        read_folder(tmp_path)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"embsize": 18}, "embsize must be a multiple of nheads, got 18 and 4"),
        ({"input_emb_style": "category"}, "input_emb_style must be 'continuous' .* got 'category'"),
        ({"pre_norm": True}, "pre_norm must be False to embed cells, got True"),
        ({"cell_emb_style": "w-pool"}, "cell_emb_style must be 'cls' to embed cells, got 'w-pool'"),
        ({"nlayers": "many"}, "at 'nlayers' in .*args.json"),
    ],
)
def test_args_that_cannot_be_embedded_with_are_an_error(tmp_path, args, message):
    write_published(tmp_path)
    (tmp_path / "args.json").write_text(json.dumps({**ARGS, **args}))
    with pytest.raises(ConfigError, match=message):
        read_folder(tmp_path)


def test_a_key_that_args_must_have_is_named(tmp_path):
    write_published(tmp_path)
    (tmp_path / "args.json").write_text(json.dumps({k: v for k, v in ARGS.items() if k != "d_hid"}))
    with pytest.raises(ConfigError, match=r"got no 'd_hid' in .*args.json"):
        read_folder(tmp_path)


def test_broken_json_is_an_error(tmp_path):
    (write_published(tmp_path) / "args.json").write_text("{")
    with pytest.raises(DataError, match=r"JSON must be readable, got .* in .*args.json"):
        read_folder(tmp_path)


def test_a_fresh_model_has_the_shape_of_its_args():
    model = build_model(ScGPTArgs.model_validate(ARGS), TOKENS, has_mvc=True)
    shapes = {k: v.shape for k, v in package_model().state_dict().items()}
    assert {k: v.shape for k, v in model.state_dict().items()} == shapes
