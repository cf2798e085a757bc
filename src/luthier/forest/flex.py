"""Attention over a forest on an accelerator: one compiled FlexAttention kernel (arXiv 2412.05496).

Legend: T packed tokens, n trunk tokens, H query heads, G key/value heads, d head width.

In depth-first order, who sees whom is one line: a key is seen by the nodes from itself to the end of its
subtree. Blocks of pairs without a visible one are skipped. Lengths are padded to multiples of `BUCKET`, so
that the kernel is compiled once per bucket and not once per batch.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch.nn import functional
from torch.nn.attention.flex_attention import AuxRequest, BlockMask, create_block_mask, flex_attention

from luthier.forest.layout import Layout

BUCKET = 256

_masks: weakref.WeakKeyDictionary[Layout, dict[Any, BlockMask]] = weakref.WeakKeyDictionary()


def fits_kernel(query: torch.Tensor) -> bool:
    """Whether the compiled kernel takes these heads: on CUDA, their width a power of two, 16 or more."""
    width = query.shape[-1]
    return query.device.type == "cuda" and width >= 16 and width & (width - 1) == 0


def flex_forest_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    layout: Layout,
    *,
    trunk: tuple[torch.Tensor, torch.Tensor] | None = None,
    scale: float | None = None,
    window: int | None = None,
    softcap: float | None = None,
    sinks: torch.Tensor | None = None,
) -> torch.Tensor:
    """Attend along the paths of `layout`.

    Args:
        query: `[1, H, T, d]`; key, value: `[1, G, T, d]`; trunk: keys and values `[1, G, n, d]`.
        window: the number of latest positions that a query sees, itself included.
        softcap: scores become softcap * tanh(score / softcap).
        sinks: `[H]`, one more score per head that takes its share of the weight and gives no value.

    Returns:
        `[1, T, H, d]`, differentiable.
    """
    length = query.shape[2]
    if trunk is not None:
        key, value = torch.cat([trunk[0], key], dim=2), torch.cat([trunk[1], value], dim=2)
    before = key.shape[2] - length
    rows, columns = _bucket(length), _bucket(key.shape[2])
    query = functional.pad(query, (0, 0, 0, rows - length))
    key, value = (functional.pad(t, (0, 0, 0, columns - t.shape[2])) for t in (key, value))
    out, aux = _kernel(query.device.type)(
        query,
        key,
        value,
        score_mod=None if softcap is None else _capped(softcap),
        block_mask=_block_mask(layout, before, window, rows, columns, query.device),
        scale=scale,
        enable_gqa=query.shape[1] != key.shape[1],
        return_aux=AuxRequest(lse=True),
    )
    if sinks is not None:
        out = out * torch.sigmoid(aux.lse - sinks.view(1, -1, 1).to(aux.lse.dtype))[..., None].to(out.dtype)
    attended: torch.Tensor = out[:, :, :length].transpose(1, 2)
    return attended


def _bucket(length: int) -> int:
    return -(-length // BUCKET) * BUCKET


@cache
def _kernel(device: str) -> Callable[..., Any]:
    if device != "cuda":
        return flex_attention
    compiled: Callable[..., Any] = torch.compile(flex_attention, dynamic=False)
    return compiled


@cache
def _capped(softcap: float) -> Callable[..., torch.Tensor]:
    def score_mod(score: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        return softcap * torch.tanh(score / softcap)

    return score_mod


def _block_mask(
    layout: Layout, before: int, window: int | None, rows: int, columns: int, device: torch.device
) -> BlockMask:
    kept = _masks.setdefault(layout, {})
    key = (before, window, device)
    if key not in kept:
        # keys of the trunk are seen by all; a padded node sees and is seen by itself alone
        node = torch.arange(max(rows, columns) + 1, device=device)
        ends, positions = node + 1, node + layout.reach
        length = len(layout.tokens)
        for segment, end in zip(layout.segments, layout.ends.tolist(), strict=True):
            ends[segment.start : segment.stop] = end
        positions[:length] = torch.from_numpy(layout.positions).to(device)

        def visible(b: torch.Tensor, h: torch.Tensor, q: torch.Tensor, kv: torch.Tensor) -> torch.Tensor:
            own = (kv - before).clamp(min=0)
            seen = (kv < before) | ((own <= q) & (q < ends[own]))
            if window is None:
                return seen
            place = torch.where(kv < before, kv, positions[own])
            return seen & (place > positions[q] - window)

        kept[key] = create_block_mask(visible, None, None, rows, columns, device=str(device))
    return kept[key]
