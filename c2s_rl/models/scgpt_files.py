"""scGPT folders as they are published: `args.json`, `vocab.json` and `best_model.pt`.

The package's own loader passes over every key whose name or shape does not fit and goes on with
random weights. Here each weight on the way to the embedding must load, or it is an error. Weights
are read without unpickling code. Heads (decoders, classifiers) may be absent and are not loaded.
"""

import hashlib
import json
import pickle
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator
from torch import nn

from c2s_rl.cells.vocabulary import shown
from c2s_rl.config import validate
from c2s_rl.errors import DataError, MissingFileError
from c2s_rl.models.scgpt_package import transformer_class

ARGS, VOCAB, WEIGHTS = "args.json", "vocab.json", "best_model.pt"
CLS, PAD = "<cls>", "<pad>"
# What a cell passes through on its way to its embedding; everything else is a head.
EMBEDDING_PATH = ("encoder.", "value_encoder.", "transformer_encoder.", "bn.")
# flash-attn calls the joint projection of queries, keys and values so; torch calls it in_proj.
FLASH_NAME, TORCH_NAME = "self_attn.Wqkv.", "self_attn.in_proj_"


class ScGPTArgs(BaseModel):
    """The keys of `args.json` that decide what the embedding is; others are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    embsize: int = Field(ge=1, description="D, width of the embedding.")
    nheads: int = Field(ge=1, description="Attention heads.")
    d_hid: int = Field(ge=1, description="Width of the feed-forward layers.")
    nlayers: int = Field(ge=1, description="Transformer layers.")
    n_layers_cls: int = Field(3, ge=1, description="Layers of the classifier head.")
    dropout: float = Field(0.2, ge=0, lt=1, description="Dropout in training.")
    pad_token: str = Field(PAD, description="Token that fills up short cells.")
    pad_value: int = Field(-2, description="Value of padding, and of the token <cls>.")
    mask_value: int = Field(-1, description="Value of a gene whose bin is to be guessed.")
    n_bins: int = Field(51, ge=2, description="Bins of expression, the one of zero included.")
    max_seq_len: int = Field(1200, ge=2, description="Longest cell in tokens, <cls> included.")
    input_emb_style: str = Field("continuous", description="How values enter.")
    cell_emb_style: str = Field("cls", description="Which output is the cell's embedding.")
    pre_norm: bool = Field(default=False, description="Normalise before attention, not after it.")

    @model_validator(mode="after")
    def _is_supported(self) -> "ScGPTArgs":
        if self.embsize % self.nheads:
            raise ValueError(
                f"embsize must be a multiple of nheads, got {self.embsize} and {self.nheads}"
            )
        for key, wanted in (
            ("input_emb_style", "continuous"),
            ("cell_emb_style", "cls"),
            ("pre_norm", False),
        ):
            if (value := vars(self)[key]) != wanted:
                raise ValueError(f"{key} must be {wanted!r} to embed cells, got {value!r}")
        return self


@dataclass(frozen=True, eq=False)
class ScGPTFolder:
    """A folder that was read and checked."""

    args: ScGPTArgs
    token_ids: Mapping[str, int]
    """Gene symbol or special token to its row of the gene embedding."""
    model: nn.Module
    """scgpt's TransformerModel, ready to embed; its heads have no weights."""
    digest: str
    """SHA-256 over args, vocabulary and weights, in hexadecimal."""


def read_folder(folder: Path) -> ScGPTFolder:
    """Read an scGPT folder and check that everything an embedding needs is in it.

    Args:
        folder: Holds `args.json`, `vocab.json` and `best_model.pt`.

    Raises:
        MissingFileError: If a file is not there, or the package scgpt is not installed.
        ConfigError: If `args.json` lacks a key or asks for what cannot be embedded.
        DataError: If the vocabulary or a weight on the way to the embedding does not fit.
    """
    missing = [name for name in (ARGS, VOCAB, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise MissingFileError(
            f"an scGPT folder must hold {ARGS}, {VOCAB} and {WEIGHTS}, "
            f"got no {' and no '.join(missing)} in {folder}"
        )
    args = validate(ScGPTArgs, _read_json(folder / ARGS), str(folder / ARGS))
    token_ids = _read_vocabulary(folder / VOCAB, args)
    weights = _read_weights(folder / WEIGHTS)
    has_batchnorm = any(key.startswith("bn.") for key in weights)
    with torch.device("meta"):  # draws no random weights, and heads take no memory
        model = build_model(args, token_ids, has_batchnorm=has_batchnorm)
    _load_embedding_path(model, weights, folder / WEIGHTS)
    digest = hashlib.sha256()
    for name in (ARGS, VOCAB, WEIGHTS):
        with (folder / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return ScGPTFolder(args, token_ids, model.eval(), digest.hexdigest())


def write_folder(
    folder: Path,
    args: ScGPTArgs,
    token_ids: Mapping[str, int],
    model: nn.Module,
    extra_args: Mapping[str, JsonValue],
) -> None:
    """Write a model in the published form, flash-attn key names included.

    Args:
        folder: An existing folder.
        args: What `args.json` must hold.
        token_ids: Symbol to row.
        model: A TransformerModel; all of its weights are written.
        extra_args: What else `args.json` tells, for example how the model was trained.
    """
    described = {**extra_args, **args.model_dump(mode="json")}
    (folder / ARGS).write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
    (folder / VOCAB).write_text(json.dumps(dict(token_ids), indent=0) + "\n", encoding="utf-8")
    weights = {
        key.replace(TORCH_NAME, FLASH_NAME): value.detach().cpu().clone()
        for key, value in model.state_dict().items()
    }
    torch.save(weights, folder / WEIGHTS)


def build_model(
    args: ScGPTArgs,
    token_ids: Mapping[str, int],
    *,
    has_batchnorm: bool = False,
    has_mvc: bool = False,
) -> nn.Module:
    """Build scgpt's TransformerModel with fresh weights.

    Args:
        args: Its shape.
        token_ids: Symbol to row; holds the padding token.
        has_batchnorm: Normalise inputs over cells before the first layer.
        has_mvc: Add the head that guesses values from the cell's embedding.
    """
    with redirect_stdout(StringIO()):  # it prints which normalisation it takes
        return transformer_class()(
            ntoken=len(token_ids),
            d_model=args.embsize,
            nhead=args.nheads,
            d_hid=args.d_hid,
            nlayers=args.nlayers,
            nlayers_cls=args.n_layers_cls,
            vocab=token_ids,
            dropout=args.dropout,
            pad_token=args.pad_token,
            pad_value=args.pad_value,
            do_mvc=has_mvc,
            domain_spec_batchnorm="batchnorm" if has_batchnorm else False,
            use_fast_transformer=False,
        )


def _read_json(path: Path) -> JsonValue:
    try:
        value: JsonValue = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"an scGPT folder's JSON must be readable, got {error} in {path}") from None
    return value


def _read_vocabulary(path: Path, args: ScGPTArgs) -> dict[str, int]:
    """Read symbol to row: rows 0 to n - 1, each once, special tokens included."""
    content = _read_json(path)
    if not isinstance(content, dict):
        found = type(content).__name__
        raise DataError(f"a vocabulary must map tokens to rows, got a {found} in {path}")
    token_ids = {token: row for token, row in content.items() if type(row) is int}
    if len(token_ids) < len(content) or sorted(token_ids.values()) != list(range(len(content))):
        raise DataError(
            f"a vocabulary must number its {len(content)} tokens from 0 without gaps or repeats, "
            f"got other rows in {path}"
        )
    absent = [token for token in (CLS, args.pad_token) if token not in token_ids]
    if absent:
        raise DataError(
            f"a vocabulary must hold the tokens {CLS!r} and {args.pad_token!r}, "
            f"got no {' and no '.join(map(repr, absent))} among {len(token_ids)} in {path}"
        )
    return token_ids


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read tensors by name, flash-attn names put into torch's; runs no code from the file."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, KeyError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"scGPT weights must be a file of tensors and nothing else, got {reason!r} in {path}"
        ) from None
    if not isinstance(content, dict) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in content.items()
    ):
        names = shown([str(key) for key in content]) if isinstance(content, dict) else repr(content)
        raise DataError(f"scGPT weights must be tensors by name, got {names[:200]} in {path}")
    return {key.replace(FLASH_NAME, TORCH_NAME): value for key, value in content.items()}


def _load_embedding_path(model: nn.Module, weights: Mapping[str, torch.Tensor], path: Path) -> None:
    """Put the weights in place; each one on the way to the embedding must be there and fit."""
    wanted = {k: v.shape for k, v in model.state_dict().items() if k.startswith(EMBEDDING_PATH)}
    _check_names(weights, wanted, path)
    for key, shape in wanted.items():
        if weights[key].shape != shape:
            raise DataError(
                f"scGPT weights must fit {ARGS} and {VOCAB}: {key} must have shape "
                f"{tuple(shape)}, got {tuple(weights[key].shape)} in {path}"
            )
        if not bool(weights[key].isfinite().all()):
            raise DataError(f"scGPT weights must be finite, got nan or inf in {key} in {path}")
    loaded = {
        key: weights[key].float() if weights[key].is_floating_point() else weights[key]
        for key in wanted
    }
    model.load_state_dict(loaded, strict=False, assign=True)


def _check_names(
    weights: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Size], path: Path
) -> None:
    by_batch = [key for key in weights if key.startswith("dsbn.")]
    if by_batch:
        raise DataError(
            "an scGPT model must embed cells without batch labels, got normalisation by batch "
            f"({shown(by_batch)}) in {path}"
        )
    missing = [key for key in wanted if key not in weights]
    if missing:
        raise DataError(
            f"scGPT weights must hold every key of the embedding, got no {shown(missing)} in {path}"
        )
    # More layers than args.json tells of would be another model than the one that was trained.
    unused = [key for key in weights if key.startswith(EMBEDDING_PATH) and key not in wanted]
    if unused:
        raise DataError(
            f"scGPT weights must fit {ARGS}: every key of the embedding must have its place, "
            f"got {shown(unused)} without one in {path}"
        )
