"""How the frozen base is held while an adapter is trained: exactly, in int8, or in 4 bits."""

from __future__ import annotations

from typing import Literal

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from luthier.errors import ModelError
from luthier.models.int4 import four_bit_linear
from luthier.models.int8 import Int8Linear

Held = Literal["exact", "int8", "int4"]


def hold_base(base: PreTrainedModel, how: Held) -> int:
    """Replace the frozen linear layers of a model, adapters injected or not; returns how many.

    Embeddings, norms and the head stay as they are; so do the adapter's own layers. An adapter's saved
    form does not change: it loads on the exact base.

    Raises:
        ModelError: this hardware does not serve it, or a package is missing.
    """
    if how == "exact":
        return 0
    device = base.get_input_embeddings().weight.device
    if how == "int8" and device.type != "cpu":
        raise ModelError(
            f"a base in int8 is for CPUs, this model is on {device}",
            fix="use `base: exact`, or `base: int4` for memory",
        )
    head = base.get_output_embeddings()
    width = base.config.get_text_config().hidden_size
    found = [
        (name, layer)
        for name, layer in _frozen_linear_layers(base)
        if layer is not head and (how == "int4" or _gains(layer, width))
    ]
    for name, layer in found:
        base.set_submodule(name, _held(layer, how))
    return len(found)


def is_exact(model: torch.nn.Module) -> bool:
    """Whether no layer of the model is held approximately."""
    return not any(isinstance(m, Int8Linear) or type(m).__name__ == "Linear4bit" for m in model.modules())


def _gains(layer: torch.nn.Linear | Conv1D, width: int) -> bool:
    """Whether a layer is worth holding in int8: not one whose outputs are few beside the model's width.

    Quantising its inputs costs such a layer most of what the product gains, and its errors matter most:
    they are the keys and values of grouped heads, the numbers that choose experts.
    """
    inputs, outputs = layer.weight.shape if isinstance(layer, Conv1D) else reversed(layer.weight.shape)
    return 2 * outputs >= width and inputs > 1  # `torch._int_mm` is wrong for one input


def _held(layer: torch.nn.Linear | Conv1D, how: Held) -> torch.nn.Module:
    make = Int8Linear if how == "int8" else four_bit_linear
    return make(layer.weight, layer.bias, fan_in_fan_out=isinstance(layer, Conv1D))


def _frozen_linear_layers(base: PreTrainedModel) -> list[tuple[str, torch.nn.Linear | Conv1D]]:
    """Linear layers by name, those that an adapter wraps too, without the adapter's own."""
    adapters = [name for name, module in base.named_modules() if isinstance(module, BaseTunerLayer)]
    own = {
        f"{name}.{part}"
        for name in adapters
        for part, _ in base.get_submodule(name).named_modules()
        if part and part.split(".")[0] != "base_layer"
    }
    return [
        (name, module)
        for name, module in base.named_modules()
        if type(module) in (torch.nn.Linear, Conv1D) and name not in own and not module.weight.requires_grad
    ]
