"""Attention over a prefix forest, through Transformers' public attention interface.

Legend: H query heads, G key/value heads, T packed tokens, q/kv a segment's and its path's lengths.

Only visible pairs are computed: in tiles on the CPU (`tiles.py`), in one compiled kernel on an accelerator
(`flex.py`), and segment by segment where a term (a window, a soft cap, sinks) asks for it on the CPU.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn import functional
from transformers import AttentionInterface, PreTrainedConfig, PreTrainedModel

from luthier.forest.flex import fits_kernel, flex_forest_attention
from luthier.forest.layout import Layout
from luthier.forest.tiles import tiled_attention

NAME = "luthier_forest"
# What architectures of Transformers pass along beside a mask, and would be wrong without.
UNKNOWN_TERMS = ("position_bias", "indices", "block_indices", "sinks")
WINDOWED_LAYERS = (None, "sliding_attention", "hybrid_sliding")
KNOWN_LAYERS = (*WINDOWED_LAYERS, "full_attention", "hybrid")


class Unsupported(Exception):  # noqa: N818 it is caught, and says what to do instead
    """The attention of this architecture has a term that the forest does not compute."""


def forest_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    forest: Layout,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attend along the paths of `forest`.

    Args:
        query: `[1, H, T, d]`; key, value: `[1, G, T, d]` with G dividing H.
        forest: the layout, passed as a keyword argument of the model's forward.

    Returns:
        `[1, T, H, d_v]` and None (no attention weights).

    Raises:
        Unsupported: dropout in attention, a padding mask, or a mask that only the layer itself knows.
    """
    if dropout:
        raise Unsupported("dropout inside attention")
    if attention_mask is not None:
        raise Unsupported("an attention mask of the model's own")
    _refuse_hidden_masks(module, sliding_window)
    if kwargs.get("is_causal") is False:
        raise Unsupported("attention that is not causal")
    for term in UNKNOWN_TERMS:
        if kwargs.get(term) is not None:
            raise Unsupported(f"the attention's {term}")
    sinks = kwargs.get("s_aux")
    if forest.kept is not None:
        if module.layer_idx in forest.kept:  # DiffLlama: one entry a layer would lose the first
            raise Unsupported("attention twice in a layer")
        forest.kept[module.layer_idx] = (key, value)  # type: ignore[index]
    if not query.dtype == key.dtype == value.dtype:  # under autocast: rotations are fp32, projections are not
        query, key = query.to(value.dtype), key.to(value.dtype)
    trunk = None if forest.trunk is None else forest.trunk[module.layer_idx]  # type: ignore[index]
    window = sliding_window if sliding_window is not None and sliding_window < forest.reach else None
    if query.shape[3] == value.shape[3]:
        plain = window is None and softcap is None and sinks is None
        # the kernel's log-sums are float32, which its own backward does not take in float64
        if query.device.type == "cpu" and plain and query.dtype != torch.float64:
            return tiled_attention(query, key, value, forest, trunk, scaling), None
        if fits_kernel(query):
            out = flex_forest_attention(
                query, key, value, forest,
                trunk=trunk, scale=scaling, window=window, softcap=softcap, sinks=sinks,
            )  # fmt: skip
            return out.contiguous(), None
    return _by_segments(query, key, value, forest, trunk, window, scaling, softcap, sinks), None


def _by_segments(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    forest: Layout,
    trunk: tuple[torch.Tensor, torch.Tensor] | None,
    window: int | None,
    scaling: float | None,
    softcap: float | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """Each segment's queries against the joined keys of its path: for any term, on any device."""
    groups = query.shape[1] // key.shape[1]
    before: tuple[list[torch.Tensor], ...] = (
        ([], []) if trunk is None else tuple([_repeat(t, groups)] for t in trunk)
    )
    key, value = _repeat(key, groups), _repeat(value, groups)
    # split, not slices: its backward is one concatenation, where every slice would allocate all of T
    queries = query.split(forest.sizes, dim=2)
    keys = key.split(forest.sizes, dim=2)
    values = value.split(forest.sizes, dim=2)
    outputs = []
    for index, segment in enumerate(forest.segments):
        k = _join([*before[0], *(keys[s] for s in segment.path)])
        v = _join([*before[1], *(values[s] for s in segment.path)])
        mask = forest.mask(index, window, query.device)
        outputs.append(_attend(queries[index], k, v, mask, scaling, softcap, sinks))
    # some models take a view of it, which needs one piece of memory in this order
    return torch.cat([out.transpose(1, 2) for out in outputs], dim=1).contiguous()


def _refuse_hidden_masks(module: torch.nn.Module, sliding_window: int | None) -> None:
    """Refuse windows that a layer applies in the mask it makes, which it does not pass on."""
    config = getattr(module, "config", None)
    kinds = getattr(config, "layer_types", None)
    index = getattr(module, "layer_idx", None)
    kind = kinds[index] if kinds and index is not None and index < len(kinds) else None
    if kind == "chunked_attention":
        raise Unsupported("attention in chunks")
    if kind not in KNOWN_LAYERS:
        raise Unsupported(f"the attention of {kind} layers")
    declared = getattr(config, "sliding_window", None)
    if kind in WINDOWED_LAYERS and sliding_window is None and declared:
        raise Unsupported("a sliding window that the model keeps to itself")


def _repeat(heads: torch.Tensor, groups: int) -> torch.Tensor:
    """`[1, G, n, d]` to `[1, G * groups, n, d]`."""
    return heads if groups == 1 else heads.repeat_interleave(groups, dim=1)


def _join(pieces: list[torch.Tensor]) -> torch.Tensor:
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=2)


def _attend(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float | None,
    softcap: float | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    if softcap is None and sinks is None:
        return functional.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None and q.shape[2] > 1, scale=scaling
        )
    # Soft-capped scores (Gemma 2, arXiv 2408.00118 section 2) and sinks have no fused kernel here.
    scores = q @ k.transpose(2, 3) * (scaling if scaling is not None else q.shape[-1] ** -0.5)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if mask is None:
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril()
    scores = scores.masked_fill(~mask, float("-inf"))
    if sinks is None:
        return torch.softmax(scores, dim=-1) @ v
    # A sink (gpt-oss) is one more score per head that takes its share of the weight and gives no value.
    extra = sinks.reshape(1, -1, 1, 1).expand(*scores.shape[:3], 1).to(scores.dtype)
    return torch.softmax(torch.cat([scores, extra], dim=-1), dim=-1)[..., :-1] @ v


@contextlib.contextmanager
def attending_by_forest(model: PreTrainedModel, implementation: str = NAME) -> Iterator[None]:
    """Switch a model's attention to the forest, and back to what it was.

    Raises:
        Unsupported: the model's attention is not reached through the public interface.
    """
    before = [(config, config._attn_implementation) for config in _configurations(model)]
    try:
        model.set_attn_implementation(implementation)
        if model.config._attn_implementation != implementation:
            raise Unsupported("attention outside of the public interface")
        yield
    finally:
        # not by the public ways: they overwrite the parts of a part, and cannot give back None
        for config, own in before:
            config._attn_implementation_internal = own


def _configurations(model: PreTrainedModel) -> list[PreTrainedConfig]:
    """Every configuration that a model and its parts read."""
    found: dict[int, PreTrainedConfig] = {}
    waiting = [part.config for part in model.modules() if isinstance(part, PreTrainedModel)]
    for config in waiting:  # grows while it is gone through
        if id(config) not in found:
            found[id(config)] = config
            parts = (getattr(config, name, None) for name in config.sub_configs)
            waiting += [part for part in parts if part is not None]
    return list(found.values())


AttentionInterface.register(NAME, forest_attention)
