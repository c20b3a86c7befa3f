"""Activation checkpointing of a model in evaluation mode.

transformers checkpoints only layers in training mode, but the learner runs in evaluation mode, so
that no dropout makes the policy another one than the sampler's. Only the flag of the layers
themselves is set here; the modules inside them, dropout included, stay in evaluation mode.
"""

from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer


def checkpoint_layers(model: PreTrainedModel, *, use_reentrant: bool = False) -> None:
    """Keep only each layer's input; recompute the rest in the backward pass.

    Call it last: a later `eval()` or `train()` of the model or of what wraps it undoes it.

    Args:
        model: A causal language model; under LoRA, the model inside the peft wrapper.
        use_reentrant: PyTorch's older form, which needs an input that requires a gradient; the
            model's embedding is made to give one, so that frozen embeddings do not cut the graph.
    """
    model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    if use_reentrant:
        model.enable_input_require_grads()
    model.eval()
    for layer in checkpointed_layers(model):
        layer.training = True


def checkpointed_layers(model: nn.Module) -> list[nn.Module]:
    """List the layers that transformers can checkpoint."""
    return [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
