"""A trunk in a whole model: keys and values before every sequence, against the cache of Transformers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from forests import SHAPES
from tiny_models import tiny
from transformers import DynamicCache

from luthier.forest.attention import attending_by_forest
from luthier.forest.layout import KeysValues, lay_out


@pytest.mark.parametrize("kind", ["llama", "mistral", "gemma2", "qwen3", "gpt2", "gpt_oss"])
def test_a_trunk_equals_a_cache_of_transformers(kind: str) -> None:
    """Keys and values before every sequence; the gradient in them is the sum over the sequences."""
    model, rows, length = tiny(kind), SHAPES["prefixes that are whole sequences"], 7
    trunk = _random_trunk(model, length)
    layout = lay_out(rows, trunk=trunk, trunk_length=length)
    with attending_by_forest(model):
        output = model(
            input_ids=torch.from_numpy(layout.tokens)[None],
            position_ids=torch.from_numpy(layout.positions)[None],
            use_cache=False,
            forest=layout,
        )
    hidden = [output.logits[0, torch.from_numpy(path)] for path in layout.paths]
    expected = [_after_cache(model, row, trunk) for row in rows]
    for got, want in zip(hidden, expected, strict=True):
        assert float((got - want).detach().abs().max()) <= 1e-5 * float(want.detach().abs().max())
    leaves = [leaf for pair in trunk.values() for leaf in pair]
    weights = [torch.linspace(-1, 1, h.numel()).view_as(h) for h in expected]
    sums = [sum((w * h).sum() for w, h in zip(weights, values, strict=True)) for values in (hidden, expected)]
    slopes, wanted = (torch.autograd.grad(total, leaves) for total in sums)  # type: ignore[arg-type]
    for slope, want in zip(slopes, wanted, strict=True):
        assert float((slope - want).norm()) <= 2e-5 * float(want.norm())


def _random_trunk(model: Any, length: int) -> KeysValues:
    layout = lay_out([list(range(40, 40 + length))])
    layout.kept = {}
    with torch.no_grad(), attending_by_forest(model):
        tokens = torch.from_numpy(layout.tokens)[None]
        model(input_ids=tokens, use_cache=False, forest=layout)
    return {
        layer: (key.clone().requires_grad_(), value.clone().requires_grad_())
        for layer, (key, value) in layout.kept.items()
    }


def _after_cache(model: Any, row: list[int], trunk: KeysValues) -> torch.Tensor:
    """Logits `[len(row), V]` of plain Transformers after the keys and values of a trunk."""
    length = trunk[0][0].shape[2]
    cache = DynamicCache(config=model.config)
    for layer, (key, value) in trunk.items():
        cache.update(key, value, layer)
    places = torch.arange(length, length + len(row))[None]
    logits: torch.Tensor = model(
        input_ids=torch.tensor([row]), position_ids=places, past_key_values=cache, use_cache=True
    ).logits[0]
    return logits
