"""A frozen linear layer held in int8: products of int8 weights with int8 activations (W8A8), both ways.

Legend: T tokens, I and O the layer's inputs and outputs.

    W ~ c Q,  Q int8 [O, I],  c = max |W| / 127 of each output channel
    y  = x W^T ~ s (q Q^T) c,      x ~ s q,         s = max |x| / 127 of each token
    dx = dy W  ~ s' (q' Q),        dy c ~ s' q',    s' likewise: c is folded in first

so that one int8 copy of the weights serves the forward and the backward product. Tokens are quantised as
they come (LLM.int8(), arXiv 2208.07339, without its second matrix for outliers).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

LEVELS = 127.0


class Int8Linear(torch.nn.Module):
    """Takes the place of a frozen linear layer; approximate.

    Args:
        weight: `[O, I]`, float; `[I, O]` with `fan_in_fan_out`, which is how GPT-2 writes it.
        bias: `[O]`, kept as it is.
    """

    def __init__(
        self, weight: torch.Tensor, bias: torch.Tensor | None, *, fan_in_fan_out: bool = False
    ) -> None:
        super().__init__()
        self.fan_in_fan_out = fan_in_fan_out
        with torch.no_grad():
            rows, scales = _quantise((weight.t() if fan_in_fan_out else weight).float())
        self.out_features, self.in_features = rows.shape
        self.quantised = torch.nn.Parameter(rows.contiguous(), requires_grad=False)
        self.register_buffer("scales", scales[:, 0].contiguous())
        self.bias = None if bias is None else torch.nn.Parameter(bias.detach(), requires_grad=False)
        self.scales: torch.Tensor

    @property
    def weight(self) -> torch.Tensor:
        """The weights as the layer knows them, float32, laid out as given: DoRA takes norms of them."""
        return self._rows().t() if self.fan_in_fan_out else self._rows()

    def _rows(self) -> torch.Tensor:
        return self.quantised * self.scales[:, None]

    def frozen_product(self, x: torch.Tensor) -> torch.Tensor:
        """x W^T (+ bias): float32 `[T, I]` to `[T, O]`, in memory of its own."""
        if _exactly:
            return torch.nn.functional.linear(x, self._rows(), self.bias)
        rows, scales = _quantise_shared(x)
        y = _as_float(torch._int_mm(rows, self.quantised.t())).mul_(scales).mul_(self.scales)
        return y if self.bias is None else y.add_(self.bias)

    def frozen_gradient(self, dy: torch.Tensor) -> torch.Tensor:
        """dy W: float32 `[T, O]` to `[T, I]`, in memory of its own."""
        folded = dy * self.scales
        rows, scales = _quantise(folded, into=folded)
        return _as_float(torch._int_mm(rows, self.quantised)).mul_(scales)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[..., I]` to `[..., O]`, differentiable in `x`."""
        y: torch.Tensor = _Product.apply(x, self)  # type: ignore[no-untyped-call]
        return y

    def extra_repr(self) -> str:
        """For `print(model)`."""
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}"


_exactly = False


@contextlib.contextmanager
def without_int8() -> Iterator[None]:
    """Forward products in float for a while, to compare two computations that round at other places."""
    global _exactly  # noqa: PLW0603
    before, _exactly = _exactly, True
    try:
        yield
    finally:
        _exactly = before


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, layer: Int8Linear) -> torch.Tensor:
        ctx.layer = layer
        flat = x.reshape(-1, x.shape[-1])
        return layer.frozen_product(flat).view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor, None]:
        flat = upstream.reshape(-1, upstream.shape[-1])
        return ctx.layer.frozen_gradient(flat).view(*upstream.shape[:-1], -1), None


def _quantise(x: torch.Tensor, into: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows as int8 `[T, I]` and their scales `[T, 1]`; what is not finite makes its whole row so.

    Args:
        into: float memory that may be written to, such as `x` itself: fresh memory costs a third more.
    """
    if x.numel() == 0:
        return x.to(torch.int8), x.new_ones(len(x), 1)
    # two reductions that only read are faster than |x| and one
    largest = torch.maximum(x.amax(1, keepdim=True), x.amin(1, keepdim=True).neg_())
    scales = largest.clamp_(min=torch.finfo(torch.float32).tiny * LEVELS).div_(LEVELS)
    return torch.mul(x, scales.reciprocal(), out=into).round_().to(torch.int8), scales


# The rows quantised last: query, key and value (gate and up) projections are given the same ones.
# Holding them keeps their memory from being given to others, so that the same place means the same rows.
_last: tuple[torch.Tensor, int, tuple[torch.Tensor, torch.Tensor]] | None = None


def _quantise_shared(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`_quantise`, once for layers that are given the same rows one after another."""
    global _last  # noqa: PLW0603 one place, replaced as a whole: safe among threads
    if x.is_inference():  # keeps no count of its changes
        return _quantise(x)
    last = _last
    if last is not None and last[1] == x._version and _is_same_memory(last[0], x):
        return last[2]
    result = _quantise(x)
    _last = (x.detach(), x._version, result)
    return result


def _is_same_memory(a: torch.Tensor, b: torch.Tensor) -> bool:
    return (
        a.data_ptr() == b.data_ptr()
        and a.shape == b.shape
        and a.stride() == b.stride()
        and a.device == b.device
    )


def _as_float(whole: torch.Tensor) -> torch.Tensor:
    """int32 to float32 in the same memory: a fresh result of this size costs more than the conversion."""
    return whole.view(torch.float32).copy_(whole)
