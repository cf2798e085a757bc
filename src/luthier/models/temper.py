"""Tempering: a trained low-rank update scaled down, against forgetting, without training.

    W + s * (alpha / rank) B A,   0 <= s

s = 0 is the base model and s = 1 the tuned one (the line between them, as in WiSE-FT, arXiv 2109.01903).
Scaling B scales the update, so that a tempered adapter is an ordinary one in PEFT's format.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from peft.tuners.lora import LoraLayer

from luthier.errors import ModelError


@contextlib.contextmanager
def tempered(model: torch.nn.Module, scale: float) -> Iterator[None]:
    """The model with its update scaled, for a while.

    Raises:
        ModelError: its adapter is not a plain low-rank update.
    """
    layers = _layers(model)
    before = [dict(layer.scaling) for layer in layers]
    try:
        for layer in layers:
            for name in layer.scaling:
                layer.scaling[name] *= scale
        yield
    finally:
        for layer, own in zip(layers, before, strict=True):
            layer.scaling.update(own)


def temper(model: torch.nn.Module, scale: float) -> None:
    """Scale the update for good, in the weights that are saved.

    Raises:
        ModelError: as `tempered`.
    """
    with torch.no_grad():
        for layer in _layers(model):
            for part in layer.lora_B.values():
                part.weight.mul_(scale)
                if part.bias is not None:
                    part.bias.mul_(scale)


def _layers(model: torch.nn.Module) -> list[Any]:
    layers: list[Any] = [module for module in model.modules() if isinstance(module, LoraLayer)]
    odd = any(layer.lora_variant or layer.lora_embedding_B for layer in layers)
    if not layers or odd:
        raise ModelError(
            "only a plain low-rank update can be tempered: here there is none, or another kind",
            fix="use `adapter: {kind: lora}` or rslora, or take `train.temper` out",
        )
    return layers
