"""A base model that is lent to one training after the other, and comes back as it was, bit for bit."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from luthier.errors import ModelError
from luthier.models.load import LoadedModel


class LentBase:
    """Remembers how a model is made up: adapters, heads and held layers can be put in, and are taken out.

    Every module is put back where it was, whatever took its place. That weights are what they were is
    checked by a sum over their bits, which is read from memory and needs no second copy of the model.

    Args:
        loaded: bare and frozen.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self._loaded = loaded
        model = loaded.model
        self._parts = [
            (module, dict(module._modules), dict(module._parameters), dict(module._buffers))
            for module in model.modules()
        ]
        self._trained = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
        self._own = set(vars(model))
        self._bits = _bits_of(model)

    @contextlib.contextmanager
    def lent(self) -> Iterator[LoadedModel]:
        """The model, for something to be attached to it and trained until the block ends.

        Raises:
            ModelError: a weight of the base was changed meanwhile.
        """
        try:
            yield self._loaded
        finally:
            self._take_back()
        now = _bits_of(self._loaded.model)
        if now != self._bits:
            changed = [name for name in self._bits if now.get(name) != self._bits[name]]
            raise ModelError(
                f"training changed the base model: {len(changed)} of its tensors, such as {changed[0]}",
                fix="train something that is attached to it: any kind of adapter but full",
            )

    def _take_back(self) -> None:
        model = self._loaded.model
        for module, modules, parameters, buffers in self._parts:
            _put_back(module._modules, modules)
            _put_back(module._parameters, parameters)
            _put_back(module._buffers, buffers)
        for parameter, requires_grad in self._trained:
            parameter.requires_grad_(requires_grad)
            parameter.grad = None
        for name in set(vars(model)) - self._own:  # PEFT leaves its configuration there
            delattr(model, name)
        model.eval()


def _put_back(own: dict[str, Any], before: Mapping[str, Any]) -> None:
    own.clear()
    own.update(before)


def _bits_of(model: torch.nn.Module) -> dict[str, int]:
    """The sum of each tensor's bytes, eight at a time: 64-bit integers that wrap around."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return {name: _bits(tensor.detach()) for name, tensor in tensors}


def _bits(tensor: torch.Tensor) -> int:
    flat = tensor.contiguous().reshape(-1)
    if flat.numel() == 0:
        return 0
    wide = flat.nbytes % 8 == 0 and flat.storage_offset() * flat.element_size() % 8 == 0
    numbers = flat.view(torch.int64) if wide else flat.view(torch.uint8)
    return int(numbers.sum(dtype=torch.int64))
