"""Frozen linear layers held in 4 bits by bitsandbytes (QLoRA, arXiv 2305.14314): memory, not speed.

NormalFloat4 in blocks of 64 with doubly quantised scales: about 4.1 bits a weight. Each product multiplies
by the weights as they are dequantised, in the model's own precision.
"""

from __future__ import annotations

from typing import Any

import torch

from luthier.errors import ModelError

INSTALL = "install it with: pip install 'luthier[int4]'; or use `base: exact` or `base: int8`"


def four_bit_linear(
    weight: torch.Tensor, bias: torch.Tensor | None, *, fan_in_fan_out: bool = False
) -> torch.nn.Module:
    """A layer with these weights in 4 bits, on their device.

    Args:
        weight: `[O, I]`, float; `[I, O]` with `fan_in_fan_out`.

    Raises:
        ModelError: bitsandbytes is not installed, or does not serve this hardware.
    """
    bnb = _bitsandbytes()
    rows = (weight.t() if fan_in_fan_out else weight).detach()
    try:
        layer = bnb.nn.Linear4bit(
            rows.shape[1],
            rows.shape[0],
            bias=bias is not None,
            compute_dtype=weight.dtype,
            quant_type="nf4",
            compress_statistics=True,
            device="meta",
        )
        # in evaluation mode it would turn to kernels without a gradient, and training is in that mode
        layer.support_avx512bf16_for_cpu = False
        layer.weight = bnb.nn.Params4bit(
            rows.contiguous(), requires_grad=False, quant_type="nf4", compress_statistics=True
        ).to(weight.device)
    except (RuntimeError, NotImplementedError, AttributeError, ValueError, AssertionError) as error:
        raise ModelError(
            f"bitsandbytes {bnb.__version__} holds no 4-bit weights on {weight.device.type}: {error}",
            fix="use an NVIDIA GPU or an x86 CPU, or `base: exact`",
        ) from error
    if bias is not None:
        layer.bias = torch.nn.Parameter(bias.detach(), requires_grad=False)
    result: torch.nn.Module = layer
    return result


def _bitsandbytes() -> Any:
    try:
        import bitsandbytes
    except ImportError as error:
        raise ModelError("`base: int4` needs bitsandbytes", fix=INSTALL) from error
    return bitsandbytes
