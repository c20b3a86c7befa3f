"""Activation checkpointing of a model in evaluation mode.

transformers checkpoints only layers in training mode, but the learner runs in evaluation mode, so
that no dropout makes the policy another one than the sampler's. Only the flag of the layers
themselves is set here; the modules inside them, dropout included, stay in evaluation mode.
"""

from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer


def checkpoint_layers(model: PreTrainedModel) -> None:
    """Keep only each layer's input; recompute the rest in the backward pass.

    Call it last: a later `eval()` or `train()` of the model, or of what wraps it, undoes it.

    Args:
        model: A causal language model; under LoRA, the model inside the peft wrapper.
    """
    # The form that is not reentrant: it needs no input with a gradient, so frozen embeddings
    # (LoRA) do not cut the graph; works at every ZeRO stage.
    model.gradient_checkpointing_enable({"use_reentrant": False})
    module: nn.Module = model
    module.eval()
    for layer in module.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            layer.training = True
