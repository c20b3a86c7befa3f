"""LoRA: a small trainable adapter on a frozen language model, and the two joined into one.

Every adapted linear layer computes W x + (alpha / rank) B A x with W frozen. With the adapter off
the same module is the model that training started from, so the reference policy costs no memory of
its own: `with peft_model.disable_adapter(): ...`.
Left out: dropout, which would make the policy another one than the sampler's, and adapters on
embeddings and LM head, which tied models share.
Source: Hu et al. 2021, "LoRA", arXiv:2106.09685, equation 3.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator

from c2s_rl.config import FrozenConfig
from c2s_rl.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel

ADAPTER_FILE = "adapter_model.safetensors"
ADAPTER_NAME = "default"  # peft's name of the only adapter; part of its parameters' names
_PEFT_PREFIX = "base_model.model."  # what peft's files put before the Hugging Face names
_FACTORS = (f".lora_A.{ADAPTER_NAME}.", f".lora_B.{ADAPTER_NAME}.")


class AdapterConfig(FrozenConfig):
    """An adapter on the policy; without this section every weight is trained."""

    rank: int = Field(16, ge=1, le=512, description="Inner size of the adapter's two factors")
    alpha: float = Field(32.0, gt=0, description="The adapter's output is scaled by alpha / rank")
    target_modules: tuple[str, ...] | None = Field(
        None,
        description="Last names of the adapted linear layers, for example q_proj; default: all "
        "linear layers but the LM head",
    )
    seed: int = Field(0, ge=0, lt=2**63, description="Seeds the adapter's first factor")

    @field_validator("target_modules")
    @classmethod
    def _names_some_once(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if names is not None and (not names or len(set(names)) != len(names)):
            raise ValueError(f"target_modules must name layers, each once, got {list(names)}")
        return names

    @property
    def scale(self) -> float:
        """Factor of the adapter's output, alpha / rank."""
        return self.alpha / self.rank


class LoraConfig(AdapterConfig):
    """An adapter that GRPO trains while rollout workers sample with it."""

    sync: Literal["adapter", "merged"] = Field(
        "adapter",
        description="What rollout workers get: the adapter alone, as a new one for each version, "
        "or whole weights with the adapter merged in: more bytes, but the engine multiplies plain "
        "matrices, which on CPU decodes small batches two to three times faster",
    )


def linear_names(model: "PreTrainedModel") -> list[str]:
    """Last names of a model's linear layers except its LM head, sorted.

    GPT-NeoX: dense, dense_4h_to_h, dense_h_to_4h, query_key_value. Llama and Gemma-2: down_proj,
    gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj.
    """
    from torch import nn

    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    return sorted(
        {
            name.rpartition(".")[2]
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear) and module is not head
        }
    )


def add_adapter(
    model: "PreTrainedModel", config: AdapterConfig, *, is_checkpointed: bool = False
) -> "PeftModel":
    """Put an adapter into a model, in place, and freeze everything else.

    A new adapter changes nothing: A is drawn from the config's seed (uniform, Kaiming), B is 0.

    Args:
        model: A causal language model; its linear layers are replaced by adapted ones.
        config: The adapter.
        is_checkpointed: Whether activations are recomputed in the backward pass; re-entrant
            checkpointing drops gradients unless the embedding's output asks for one.

    Returns:
        peft's wrapper: `disable_adapter()` gives the reference, `get_base_model()` is `model`.

    Raises:
        ConfigError: If a target is no linear layer of the model.
    """
    import peft
    import torch

    names = linear_names(model)
    targets = list(config.target_modules or names)
    unknown = [name for name in targets if name not in names]
    if unknown:
        raise ConfigError(
            f"lora.target_modules must be among the linear layers {names} of "
            f"{type(model).__name__}, got {unknown[0]!r}"
        )
    settings = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]  # peft only divides it by r
        target_modules=targets,
        lora_dropout=0.0,
        bias="none",
        task_type=peft.TaskType.CAUSAL_LM,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        # The adapter has the model's own type: the engine computes in it too, and DeepSpeed keeps
        # float32 masters.
        adapted: PeftModel = peft.get_peft_model(model, settings, autocast_adapter_dtype=False)
    if is_checkpointed:
        model.enable_input_require_grads()  # type: ignore[no-untyped-call]
    return adapted


def is_adapter(parameter: str) -> bool:
    """Whether a parameter of an adapted model belongs to the adapter, told by its name."""
    return any(factor in parameter for factor in _FACTORS)


def adapter_key(parameter: str) -> str:
    """Name in peft's files of an adapter's parameter."""
    return _PEFT_PREFIX + parameter.replace(f".{ADAPTER_NAME}.", ".")


def policy_key(parameter: str) -> str:
    """Hugging Face name of a frozen parameter: what it is called without an adapter."""
    return parameter.replace(".base_layer.", ".")


def adapter_tensors(
    named: Iterable[tuple[str, "torch.Tensor"]],
) -> Iterator[tuple[str, "torch.Tensor"]]:
    """Pick the adapter out of an adapted model's named parameters, under the names of peft."""
    return ((adapter_key(name), tensor) for name, tensor in named if is_adapter(name))


def merged_tensors(
    named: Iterable[tuple[str, "torch.Tensor"]], scale: float
) -> Iterator[tuple[str, "torch.Tensor"]]:
    """Join adapter and frozen weights: W' = W + (alpha / rank) B A, computed in float32.

    Args:
        named: (name, tensor) of whole layers: a weight and its two factors come together. Weights
            without an adapter pass as they are.
        scale: alpha / rank.

    Yields:
        (Hugging Face name, tensor in the weight's own type) in the order of `named`.
    """
    tensors = dict(named)
    for name, tensor in tensors.items():
        if is_adapter(name):
            continue
        stem = name.removesuffix(".base_layer.weight")
        factor_a, factor_b = (tensors.get(f"{stem}{factor}weight") for factor in _FACTORS)
        if factor_a is None or factor_b is None:
            yield policy_key(name), tensor
            continue
        update = factor_b.detach().float() @ factor_a.detach().float()
        yield policy_key(name), (tensor.detach().float() + scale * update).to(tensor.dtype)


def save_adapter(folder: Path, tensors: Mapping[str, "torch.Tensor"], model: "PeftModel") -> None:
    """Write an adapter in peft's form: adapter_config.json and adapter_model.safetensors.

    Args:
        folder: Existing folder.
        tensors: What `adapter_tensors` gave, whole tensors.
        model: Whose adapter it is.
    """
    from safetensors.torch import save_file

    model.peft_config[ADAPTER_NAME].save_pretrained(str(folder))
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(contiguous, folder / ADAPTER_FILE, metadata={"format": "pt"})
