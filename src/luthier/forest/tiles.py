"""Attention over a forest in tiles: fused kernels on visible pairs only, put together by their log-sums.

Legend: G key/value heads, R query heads per key/value head, T packed tokens, n trunk tokens, d head width.

In depth-first order the nodes that see a segment are one run of the packed row: the segment itself, causally,
and all that follows it up to the end of its subtree, fully. So attention is a few dense products without
masks, and neither keys nor values are joined along paths or repeated per query head. The parts of a query's
attention are merged as flash attention merges its blocks (arXiv 2205.14135, section 3.1), and the backward
kernel is given the merged output and log-sum, as in ring attention (arXiv 2310.01889).
"""

from __future__ import annotations

import itertools
import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from luthier.forest.layout import Layout

LONGEST = 256  # a longer segment in pieces: the kernel computes all pairs of a causal square
SHORTEST = 64  # shorter segments next to each other make one tile with a mask: a call has its price

# the kernel behind scaled_dot_product_attention, asked for the log-sums that it has anyway
fused_attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


@dataclass(frozen=True)
class Tile:
    """Nodes `start..stop` among themselves: causal, or where `mask` (`[1, 1, q, kv]`, 0 or -inf) allows."""

    start: int
    stop: int
    mask: torch.Tensor | None


@dataclass(frozen=True)
class Read:
    """Keys `start..stop` as seen by all of the queries `above..below`, which come after them."""

    start: int
    stop: int
    above: int
    below: int


@dataclass(frozen=True)
class Tiles:
    """All visible pairs of a layout, each in one part."""

    own: tuple[Tile, ...]
    reads: tuple[Read, ...]


_made: weakref.WeakKeyDictionary[Layout, Tiles] = weakref.WeakKeyDictionary()


def tiles_of(layout: Layout, dtype: torch.dtype) -> Tiles:
    """Cut a layout into tiles, once."""
    if layout not in _made:
        _made[layout] = _cut(layout, dtype)
    return _made[layout]


def _cut(layout: Layout, dtype: torch.dtype) -> Tiles:
    pieces: list[tuple[int, int, int]] = []  # start, stop, end of the subtree
    for segment, end in zip(layout.segments, layout.ends.tolist(), strict=True):
        count = -(-segment.length // LONGEST)
        bounds = np.linspace(segment.start, segment.stop, count + 1).round().astype(int).tolist()
        pieces += [(a, b, end) for a, b in itertools.pairwise(bounds)]
    groups: list[list[tuple[int, int, int]]] = []
    for piece in pieces:
        if groups and piece[1] - groups[-1][0][0] <= SHORTEST:
            groups[-1].append(piece)
        else:
            groups.append([piece])
    own = [Tile(group[0][0], group[-1][1], _mask(group, dtype)) for group in groups]
    reads: list[Read] = []
    for group in groups:
        above = group[-1][1]
        for start, stop, end in group:
            if end <= above:
                continue
            last = reads[-1] if reads else None
            if last and (last.stop, last.above, last.below) == (start, above, end):
                reads[-1] = Read(last.start, stop, above, end)
            else:
                reads.append(Read(start, stop, above, end))
    return Tiles(tuple(own), tuple(reads))


def _mask(group: list[tuple[int, int, int]], dtype: torch.dtype) -> torch.Tensor | None:
    if len(group) == 1:
        return None
    first = group[0][0]
    node = torch.arange(first, group[-1][1])
    ends = torch.cat([torch.full((stop - start,), end) for start, stop, end in group])
    visible = (node[None, :] <= node[:, None]) & (node[:, None] < ends[None, :])
    return torch.zeros(visible.shape, dtype=dtype).masked_fill_(~visible, float("-inf"))[None, None]


def tiled_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    layout: Layout,
    trunk: tuple[torch.Tensor, torch.Tensor] | None,
    scale: float | None,
) -> torch.Tensor:
    """Attend along the paths of `layout`, on the CPU, without window, cap or sinks.

    Args:
        query: `[1, G * R, T, d]`; key, value: `[1, G, T, d]`; trunk: keys and values `[1, G, n, d]`.

    Returns:
        `[1, T, G * R, d]`, differentiable in queries, keys, values and the trunk.
    """
    before = trunk if trunk is not None else (None, None)
    result: torch.Tensor = _Tiled.apply(query, key, value, *before, layout, scale)  # type: ignore[no-untyped-call]
    return result


class _Tiled(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        trunk_key: torch.Tensor | None,
        trunk_value: torch.Tensor | None,
        layout: Layout,
        scale: float | None,
    ) -> torch.Tensor:
        groups, length, width = key.shape[1:]
        q = query[0].unflatten(0, (groups, -1))  # [G, R, T, d]
        repeat = q.shape[1]
        k, v = _spread(key, repeat), _spread(value, repeat)
        tiles = tiles_of(layout, query.dtype)
        # in memory [T, G, R, d]: what the output projection reads
        out = query.new_empty(length, groups, repeat, width).permute(1, 2, 0, 3)
        total = torch.empty(groups, repeat, length, dtype=torch.float32)  # log-sum of each query's scores
        for tile in tiles.own:
            at = slice(tile.start, tile.stop)
            out[:, :, at], total[:, :, at] = fused_attention(
                q[:, :, at],
                k[:, :, at],
                v[:, :, at],
                0.0,
                tile.mask is None,
                attn_mask=tile.mask,
                scale=scale,
            )
        for read in tiles.reads:
            at, of = slice(read.above, read.below), slice(read.start, read.stop)
            _merge(
                out[:, :, at],
                total[:, :, at],
                *fused_attention(q[:, :, at], k[:, :, of], v[:, :, of], scale=scale),
            )
        if trunk_key is not None and trunk_value is not None:
            read_trunk = fused_attention(
                q, _spread(trunk_key, repeat), _spread(trunk_value, repeat), scale=scale
            )
            _merge(out, total, *read_trunk)
        ctx.save_for_backward(query, key, value, trunk_key, trunk_value, out, total)
        ctx.tiles, ctx.scale = tiles, scale
        return out.permute(2, 0, 1, 3).reshape(1, length, groups * repeat, width)

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, trunk_key, trunk_value, out, total = ctx.saved_tensors
        groups, length, _ = key.shape[1:]
        slope = upstream[0].unflatten(1, (groups, -1)).permute(1, 2, 0, 3)  # [G, R, T, d]
        q = query[0].unflatten(0, (groups, -1))
        repeat = q.shape[1]
        k, v = _spread(key, repeat), _spread(value, repeat)
        dq = torch.empty(length, *q.shape[:2], q.shape[3], dtype=q.dtype).permute(1, 2, 0, 3)
        dk, dv = torch.empty_like(key[0]), torch.empty_like(value[0])

        def slopes(at: slice, k: torch.Tensor, v: torch.Tensor, tile: Tile | None = None) -> Any:
            mask = None if tile is None else tile.mask
            return _backward(
                slope[:, :, at], q[:, :, at], k, v, out[:, :, at], total[:, :, at], 0.0,
                tile is not None and mask is None, attn_mask=mask, scale=ctx.scale,
            )  # fmt: skip

        for tile in ctx.tiles.own:
            at = slice(tile.start, tile.stop)
            dq[:, :, at], keys, values = slopes(at, k[:, :, at], v[:, :, at], tile)
            torch.sum(keys, 1, out=dk[:, at])
            torch.sum(values, 1, out=dv[:, at])
        for read in ctx.tiles.reads:
            at, of = slice(read.above, read.below), slice(read.start, read.stop)
            queries, keys, values = slopes(at, k[:, :, of], v[:, :, of])
            dq[:, :, at] += queries
            dk[:, of] += keys.sum(1)
            dv[:, of] += values.sum(1)
        dtk = dtv = None
        if trunk_key is not None:
            everywhere = slice(0, length)
            queries, keys, values = slopes(
                everywhere, _spread(trunk_key, repeat), _spread(trunk_value, repeat)
            )
            dq += queries
            dtk, dtv = keys.sum(1)[None], values.sum(1)[None]
        return dq.flatten(0, 1)[None], dk[None], dv[None], dtk, dtv, None, None


def _spread(heads: torch.Tensor, repeat: int) -> torch.Tensor:
    """`[1, G, n, d]` seen as `[G, R, n, d]`, without a copy."""
    return heads[0, :, None].expand(-1, repeat, -1, -1)


def _merge(out: torch.Tensor, total: torch.Tensor, more: torch.Tensor, more_total: torch.Tensor) -> None:
    """Put two parts of the same queries' attention together, in place of the first."""
    share = torch.sigmoid(more_total - total)
    out.lerp_(more, share[..., None].to(out.dtype))
    torch.logaddexp(total, more_total, out=total)
