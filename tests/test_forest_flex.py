"""The accelerator's attention equals the CPU's; the kernel runs uncompiled without a GPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from luthier.forest.attention import forest_attention
from luthier.forest.flex import BUCKET, flex_forest_attention
from luthier.forest.layout import Layout, lay_out

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")

ROWS = [
    [1, 2, 3, 4, 5, 6],
    [1, 2, 3, 7, 8],
    [1, 2, 3, 7, 9, 9, 9],
    [1, 2],
    [5],
    [6, 6, 6, 6, 6, 6, 6, 6, 6],
    [1, 2, 3, 4, 5, 6],
]
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "window": {"window": 3},
    "cap": {"softcap": 1.5},
    "sinks": {"sinks": torch.tensor([0.3, -1.0, 2.0, 0.0])},
    "all": {"window": 2, "softcap": 2.0, "sinks": torch.tensor([0.3, -1.0, 2.0, 0.0]), "scale": 0.7},
}


class Attention(torch.nn.Module):
    layer_idx = 0


def heads(layout: Layout, device: str = "cpu", dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    torch.manual_seed(0)
    length = len(layout.tokens)
    shapes = [(1, 4, length, 16), (1, 2, length, 16), (1, 2, length, 16)]
    return [torch.randn(*shape).to(device, dtype) for shape in shapes]


def on_cpu(layout: Layout, q: Any, k: Any, v: Any, options: dict[str, Any]) -> torch.Tensor:
    names = {"window": "sliding_window", "softcap": "softcap", "sinks": "s_aux", "scale": "scaling"}
    renamed = {names[name]: value for name, value in options.items()}
    return forest_attention(Attention(), q, k, v, None, forest=layout, **renamed)[0]


@pytest.mark.parametrize("trunk", [0, 5])
@pytest.mark.parametrize("name", OPTIONS)
def test_equals_the_cpu_path(name: str, trunk: int) -> None:
    torch.manual_seed(1)
    before = (torch.randn(1, 2, trunk, 16), torch.randn(1, 2, trunk, 16)) if trunk else None
    layout = lay_out(ROWS, trunk=None if before is None else {0: before}, trunk_length=trunk)
    q, k, v = heads(layout)
    with torch.no_grad():
        got = flex_forest_attention(q, k, v, layout, trunk=before, **OPTIONS[name])
        expected = on_cpu(layout, q, k, v, OPTIONS[name])
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_longer_than_one_bucket() -> None:
    layout = lay_out([[*range(BUCKET - 3), i, i + 1, i + 2, i + 3, i + 4] for i in range(300, 340, 10)])
    q, k, v = heads(layout)
    assert len(layout.tokens) > BUCKET
    with torch.no_grad():
        got = flex_forest_attention(q, k, v, layout)
        torch.testing.assert_close(got, on_cpu(layout, q, k, v, {}), rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: the kernel is compiled for it")
@pytest.mark.parametrize("name", OPTIONS)
def test_gradients_on_a_gpu(name: str) -> None:
    layout = lay_out(ROWS)
    options = {key: value.cuda() if hasattr(value, "cuda") else value for key, value in OPTIONS[name].items()}
    slopes = []
    for device in ("cuda", "cpu"):
        q, k, v = (t.requires_grad_() for t in heads(layout, device))
        if device == "cuda":
            out = flex_forest_attention(q, k, v, layout, **options)
        else:
            out = on_cpu(layout, q, k, v, OPTIONS[name])
        slopes.append([t.cpu() for t in (out, *torch.autograd.grad(out.square().sum(), (q, k, v)))])
    for got, expected in zip(*slopes, strict=True):
        torch.testing.assert_close(got, expected, rtol=2e-2, atol=2e-2)
