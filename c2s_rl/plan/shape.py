"""The shape of a language model as plain numbers, and its parameters by part.

Three families are known: GPT-NeoX (Pythia), Llama and Gemma-2. Published models are listed with
their hyper-parameters, so that planning needs neither weights nor network. Left out: mixtures of
experts, models with latent or linear attention.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pydantic import JsonValue

from c2s_rl.errors import DataError, MissingFileError


class Family(StrEnum):
    """Which blocks a model is built of."""

    GPT_NEOX = "gpt_neox"
    LLAMA = "llama"
    GEMMA2 = "gemma2"


# Hugging Face `model_type` to family; Mistral's blocks are Llama's.
MODEL_TYPES = {
    "gpt_neox": Family.GPT_NEOX,
    "llama": Family.LLAMA,
    "mistral": Family.LLAMA,
    "gemma2": Family.GEMMA2,
}


@dataclass(frozen=True)
class ModelShape:
    """All that FLOPs and bytes depend on."""

    name: str
    source: str
    """Where the numbers come from."""
    family: Family
    num_layers: int
    hidden: int
    """D, width of the residual stream."""
    num_heads: int
    """Query heads."""
    num_kv_heads: int
    """Key and value heads; fewer than query heads with grouped-query attention."""
    head_dim: int
    intermediate: int
    """F, width of the feed-forward layer."""
    vocabulary: int
    """V, rows of the embedding."""
    is_tied: bool
    """The head is the embedding."""
    max_position: int
    """Longest sequence, tokens."""
    window: int | None = None
    """Keys that a token of a sliding-window layer sees, itself included; None: all."""
    num_window_layers: int = 0
    """Layers with a sliding window."""
    attention_softcap: float | None = None
    """Bound of the attention logits."""
    final_softcap: float | None = None
    """Bound of the output logits."""

    @property
    def query_width(self) -> int:
        """Query heads x head_dim."""
        return self.num_heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Key heads x head_dim; keys and values of a token are twice that in every layer."""
        return self.num_kv_heads * self.head_dim

    @property
    def layer_matrices(self) -> tuple[tuple[int, int], ...]:
        """(inputs, outputs) of a layer's weight matrices.

        GPT-NeoX has one matrix for query, key and value and two for the feed-forward layer; the
        others have a gated feed-forward layer of three.
        """
        up = (self.hidden, self.intermediate)
        down = (self.intermediate, self.hidden)
        out = (self.query_width, self.hidden)
        if self.family is Family.GPT_NEOX:
            return ((self.hidden, self.query_width + 2 * self.kv_width), out, up, down)
        kv = (self.hidden, self.kv_width)
        return ((self.hidden, self.query_width), kv, kv, out, up, up, down)

    @property
    def layer_matrix_parameters(self) -> int:
        """Weights of a layer that are multiplied with every token."""
        return sum(inputs * outputs for inputs, outputs in self.layer_matrices)

    @property
    def layer_parameters(self) -> int:
        """Everything in a layer: matrices, biases (GPT-NeoX) and norms.

        Norms: GPT-NeoX 2 LayerNorms (weight and bias), Llama 2 and Gemma-2 4 RMSNorms (weight).
        """
        small = 2 * self.hidden
        if self.family is Family.GPT_NEOX:
            small = 4 * self.hidden + sum(outputs for _, outputs in self.layer_matrices)
        elif self.family is Family.GEMMA2:
            small = 4 * self.hidden
        return self.layer_matrix_parameters + small

    @property
    def head_parameters(self) -> int:
        """V x D, whether or not the head is tied to the embedding."""
        return self.vocabulary * self.hidden

    @property
    def num_parameters(self) -> int:
        """Stored parameters N; a tied head counts once."""
        embeddings = self.head_parameters * (1 if self.is_tied else 2)
        final_norm = self.hidden * (2 if self.family is Family.GPT_NEOX else 1)
        return embeddings + self.num_layers * self.layer_parameters + final_norm

    def adapter_parameters(self, rank: int) -> int:
        """Parameters of LoRA adapters on all matrices of all layers: rank x (inputs + outputs).

        Source: arXiv:2106.09685 section 4.1.
        """
        layer = sum(inputs + outputs for inputs, outputs in self.layer_matrices)
        return self.num_layers * rank * layer


def gpt_neox_shape(
    name: str, source: str, sizes: tuple[int, int, int], *, vocabulary: int, max_position: int
) -> ModelShape:
    """Shape of a Pythia: heads share the width, feed-forward 4 x D, own head.

    Args:
        name: For messages.
        source: Where the numbers come from.
        sizes: Layers, D and heads.
        vocabulary: Rows of the embedding.
        max_position: Longest sequence, tokens.
    """
    num_layers, hidden, num_heads = sizes
    return ModelShape(
        name=name,
        source=source,
        family=Family.GPT_NEOX,
        num_layers=num_layers,
        hidden=hidden,
        num_heads=num_heads,
        num_kv_heads=num_heads,
        head_dim=hidden // num_heads,
        intermediate=4 * hidden,
        vocabulary=vocabulary,
        is_tied=False,
        max_position=max_position,
    )


def _pythia(name: str, *sizes: int) -> ModelShape:
    num_layers, hidden, num_heads = sizes
    source = f"config.json of EleutherAI/{name}; arXiv:2304.01373 table 1"
    return gpt_neox_shape(
        name, source, (num_layers, hidden, num_heads), vocabulary=50304, max_position=2048
    )


def _gemma2(name: str, *sizes: int) -> ModelShape:
    num_layers, hidden, num_heads, num_kv_heads, head_dim, intermediate = sizes
    return ModelShape(
        name=name,
        source=f"config.json of google/{name}; arXiv:2408.00118 table 1",
        family=Family.GEMMA2,
        num_layers=num_layers,
        hidden=hidden,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        intermediate=intermediate,
        vocabulary=256000,
        is_tied=True,
        max_position=8192,
        window=4096,
        num_window_layers=(num_layers + 1) // 2,
        attention_softcap=50.0,
        final_softcap=30.0,
    )


PUBLISHED = {
    shape.name: shape
    for shape in (
        _pythia("pythia-160m", 12, 768, 12),
        _pythia("pythia-410m", 24, 1024, 16),
        _pythia("pythia-1b", 16, 2048, 8),
        _gemma2("gemma-2-2b", 26, 2304, 8, 4, 256, 9216),
        _gemma2("gemma-2-9b", 42, 3584, 16, 8, 256, 14336),
        _gemma2("gemma-2-27b", 46, 4608, 32, 16, 128, 36864),
        ModelShape(
            name="smollm2-135m",
            source="config.json of HuggingFaceTB/SmolLM2-135M",
            family=Family.LLAMA,
            num_layers=30,
            hidden=576,
            num_heads=9,
            num_kv_heads=3,
            head_dim=64,
            intermediate=1536,
            vocabulary=49152,
            is_tied=True,
            max_position=8192,
        ),
    )
}


def shape_of_name(name: str) -> ModelShape:
    """Look up a published model by a name that contains its own, for example C2S-Pythia-410m.

    Raises:
        MissingFileError: If no published model is named.
    """
    plain = re.sub(r"[_.\s]+", "-", name.lower())
    # The longest first, should one name contain another.
    for known in sorted(PUBLISHED, key=len, reverse=True):
        if known in plain:
            return PUBLISHED[known]
    raise MissingFileError(
        "a model must be a folder with a config.json or be named like one of "
        f"{', '.join(PUBLISHED)}, got {name!r}"
    )


def shape_of_folder(folder: Path) -> ModelShape:
    """Read a Hugging Face folder's config.json.

    Raises:
        DataError: If the model is of another family or a number is missing.
    """
    path = folder / "config.json"
    settings: dict[str, JsonValue] = json.loads(path.read_text(encoding="utf-8"))
    kind = settings.get("model_type")
    if kind not in MODEL_TYPES:
        raise DataError(f"model_type must be one of {list(MODEL_TYPES)}, got {kind!r} in {path}")
    family = MODEL_TYPES[str(kind)]
    num_layers = _number(settings, "num_hidden_layers", path)
    hidden = _number(settings, "hidden_size", path)
    num_heads = _number(settings, "num_attention_heads", path)
    window = settings.get("sliding_window") if kind in {"gemma2", "mistral"} else None
    return ModelShape(
        name=folder.name,
        source=str(path),
        family=family,
        num_layers=num_layers,
        hidden=hidden,
        num_heads=num_heads,
        num_kv_heads=_number(settings, "num_key_value_heads", path, default=num_heads),
        head_dim=_number(settings, "head_dim", path, default=hidden // num_heads),
        intermediate=_number(settings, "intermediate_size", path),
        vocabulary=_number(settings, "vocab_size", path),
        # What transformers assumes when the file is silent.
        is_tied=bool(settings.get("tie_word_embeddings", family is Family.GEMMA2)),
        max_position=_number(settings, "max_position_embeddings", path),
        window=window if isinstance(window, int) else None,
        num_window_layers=_window_layers(settings, num_layers, family) if window else 0,
        attention_softcap=_optional(settings, "attn_logit_softcapping"),
        final_softcap=_optional(settings, "final_logit_softcapping"),
    )


def _window_layers(settings: Mapping[str, JsonValue], num_layers: int, family: Family) -> int:
    kinds = settings.get("layer_types")
    if isinstance(kinds, list):
        return kinds.count("sliding_attention")
    return (num_layers + 1) // 2 if family is Family.GEMMA2 else num_layers


def _number(
    settings: Mapping[str, JsonValue], key: str, path: Path, *, default: int | None = None
) -> int:
    value = settings.get(key)
    value = default if value is None else value
    if not isinstance(value, int):
        raise DataError(f"{key} must be a whole number, got {value!r} in {path}")
    return value


def _optional(settings: Mapping[str, JsonValue], key: str) -> float | None:
    value = settings.get(key)
    return float(value) if isinstance(value, int | float) else None
