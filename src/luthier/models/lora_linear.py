"""LoRA on a linear layer in fewer passes over memory than PEFT's, with the same parameters and files.

Legend: T tokens, I and O the layer's inputs and outputs, r rank, s = alpha / rank.

PEFT computes W x + s B (A x) as four operations whose `[T, O]` results are written and read again, and as
many in the backward pass. Here the adapter's product is accumulated into the base's, both ways:

    y  = x W^T + (x A^T) (s B)^T
    dx = dy W + (dy s B) A,   dA = (dy s B)^T x,   dB = s dy^T (x A^T)

so that beside the two large products only products with r columns remain. Only x and x A^T are kept.
"""

from __future__ import annotations

from typing import Any, Protocol, cast

import torch
from peft import LoraConfig
from peft.tuners import lora


class FrozenProduct(Protocol):
    """A frozen layer that has its own way to multiply, such as one held in int8."""

    def frozen_product(self, x: torch.Tensor) -> torch.Tensor:
        """x W^T (+ bias): `[T, I]` to `[T, O]`, in memory of its own."""
        ...

    def frozen_gradient(self, dy: torch.Tensor) -> torch.Tensor:
        """dy W: `[T, O]` to `[T, I]`, in memory of its own."""
        ...


class LoraLinear(lora.Linear):
    """PEFT's LoRA layer with a fused forward and backward where both are plain: one adapter, one dtype.

    Everything else (several adapters, variants such as DoRA, dropout while training, mixed dtypes) is PEFT's.
    """

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """`[..., I]` to `[..., O]`."""
        name = self._fused_adapter(x) if not args and not kwargs else None
        if name is None:
            result: torch.Tensor = super().forward(x, *args, **kwargs)
            return result
        a, b = self.lora_A[name].weight, self.lora_B[name].weight
        y: torch.Tensor = _Fused.apply(x, a, b, self.scaling[name], self.base_layer)  # type: ignore[no-untyped-call]
        return y

    def _fused_adapter(self, x: torch.Tensor) -> str | None:
        """The adapter to compute, or None where PEFT has to."""
        if self.disable_adapters or self.merged or len(self.active_adapters) != 1:
            return None
        name: str = self.active_adapters[0]
        if name not in self.lora_A or name in self.lora_variant or self.lora_B[name].bias is not None:
            return None
        dropout = self.lora_dropout[name]
        if isinstance(dropout, torch.nn.Dropout) and dropout.p and self.training:
            return None
        if self.lora_A[name].weight.dtype != x.dtype:
            return None
        base = self.base_layer
        if hasattr(base, "frozen_product"):
            return name
        plain = type(base) is torch.nn.Linear and base.weight.dtype == x.dtype
        frozen = (
            plain and not base.weight.requires_grad and (base.bias is None or not base.bias.requires_grad)
        )
        return name if frozen else None


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scale: float, base: torch.nn.Module
    ) -> torch.Tensor:
        flat = x.reshape(-1, x.shape[-1])
        low = flat @ a.t()
        y = _product(base, flat).addmm_(low, b.t(), alpha=scale)
        ctx.save_for_backward(flat, low, a, b)
        ctx.scale, ctx.base = scale, base
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        flat, low, a, b = ctx.saved_tensors
        need_x, need_a, need_b = ctx.needs_input_grad[:3]
        dy = upstream.reshape(-1, upstream.shape[-1])
        dx = da = db = None
        if need_b:  # r rows first: a product with O rows and r columns is twice as slow
            db = (low.t() @ dy).t().mul(ctx.scale)
        if need_x or need_a:
            slope = dy @ (b * ctx.scale)
            if need_a:
                da = slope.t() @ flat
            if need_x:
                dx = _gradient(ctx.base, dy).addmm_(slope, a).view(*upstream.shape[:-1], -1)
        return dx, da, db, None, None


def _product(base: torch.nn.Module, flat: torch.Tensor) -> torch.Tensor:
    if hasattr(base, "frozen_product"):
        return cast(FrozenProduct, base).frozen_product(flat)
    return torch.nn.functional.linear(flat, base.weight, base.bias)  # type: ignore[arg-type]


def _gradient(base: torch.nn.Module, dy: torch.Tensor) -> torch.Tensor:
    if hasattr(base, "frozen_gradient"):
        return cast(FrozenProduct, base).frozen_gradient(dy)
    return dy @ base.weight  # type: ignore[operator]


def fuse(config: LoraConfig, *frozen: type[torch.nn.Module]) -> LoraConfig:
    """Let PEFT put `LoraLinear` on linear layers, and on the `frozen` kinds it does not know."""
    config._register_custom_module(dict.fromkeys((torch.nn.Linear, *frozen), LoraLinear))
    return config
