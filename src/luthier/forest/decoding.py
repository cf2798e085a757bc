"""Decoding attention: one new token per row, against a trunk that all rows share and each row's own tokens.

Legend: B rows, G key/value heads, R query heads per key/value head, P trunk tokens, L room for a
row's own tokens, d head width.

The trunk's keys and values exist once, not once per row, and the rows' queries against them are one
matrix product. Query heads that share a key/value head are a dimension of the product, so keys and
values are never repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import AttentionInterface

from luthier.forest.layout import KeysValues, Layout
from luthier.forest.tiles import fused_attention

NAME = "luthier_decoding"


class Rows:
    """Keys and values of the rows of a batch.

    Args:
        trunk: keys and values by layer, `[1, G, P, d]` each, or None.
        trunk_length: P.
        rows: B rows of this batch.
        room: L, the most tokens a row will have beyond the trunk.
    """

    def __init__(self, trunk: KeysValues | None, trunk_length: int, rows: int, room: int) -> None:
        self.trunk = trunk
        self.trunk_length = trunk_length
        self.room = room
        self.lengths = torch.zeros(rows, dtype=torch.long)
        self.own: KeysValues = {}
        self._unseen: tuple[torch.Tensor, torch.Tensor] | None = None

    def fill(self, row: int, layout: Layout, nodes: torch.Tensor) -> None:
        """Copy a row's prompt from a forest that kept its keys and values; `nodes` in order."""
        assert layout.kept is not None
        for layer, (key, value) in layout.kept.items():
            if layer not in self.own:
                shape = (len(self.lengths), key.shape[1], self.room)
                self.own[layer] = (
                    key.new_zeros(*shape, key.shape[3]),
                    value.new_zeros(*shape, value.shape[3]),
                )
            own_key, own_value = self.own[layer]
            own_key[row, :, : len(nodes)] = key[0, :, nodes]
            own_value[row, :, : len(nodes)] = value[0, :, nodes]
        self.lengths[row] = len(nodes)

    def keep(self, places: Sequence[int]) -> None:
        """Let the other rows leave the batch."""
        kept = torch.tensor(places)
        self.lengths = self.lengths[kept]
        self.own = {layer: (k[kept.to(k.device)], v[kept.to(v.device)]) for layer, (k, v) in self.own.items()}

    def unseen(self, dtype: torch.dtype) -> torch.Tensor:
        """`[B, 1, 1, L]`: -inf where a row's next token has no own token to see; the same for all layers."""
        if self._unseen is None or self._unseen[0] is not self.lengths:
            reach = int(self.lengths.max()) + 1
            hidden = torch.arange(reach)[None, :] > self.lengths[:, None]
            mask = torch.zeros(hidden.shape, dtype=dtype).masked_fill_(hidden, float("-inf"))
            self._unseen = self.lengths, mask[:, None, None]
        return self._unseen[1]

    def advance(self) -> None:
        """Every row has one more token."""
        self.lengths = self.lengths + 1

    @property
    def positions(self) -> torch.Tensor:
        """`[B]` position of the token that comes next."""
        return self.lengths + self.trunk_length


def decoding_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    decoding: Rows,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attend from one new token per row; writes the token's key and value into the rows.

    Args:
        query: `[B, H, 1, d]`; key, value: `[B, G, 1, d]`.

    Returns:
        `[B, 1, H, d_v]` and None.
    """
    layer: int = module.layer_idx  # type: ignore[assignment]
    own_key, own_value = decoding.own[layer]
    rows, groups, _, width = key.shape
    at = decoding.lengths.to(key.device)
    every = torch.arange(rows, device=key.device)
    own_key[every, :, at] = key[:, :, 0]
    own_value[every, :, at] = value[:, :, 0]
    reach = int(decoding.lengths.max()) + 1
    own_key, own_value = own_key[:, :, :reach], own_value[:, :, :reach]
    scale = width**-0.5 if scaling is None else scaling
    q = query[:, :, 0].view(rows, groups, -1, width)
    plain = softcap is None and s_aux is None and width == value.shape[3]
    if (
        plain
        and key.device.type == "cpu"
        and (sliding_window is None or reach + decoding.trunk_length <= sliding_window)
    ):
        trunk = None if decoding.trunk is None else decoding.trunk[layer]
        return _fused(q, own_key, own_value, decoding.unseen(q.dtype), trunk, scale), None
    q = q * scale

    scores = q @ own_key.transpose(2, 3)  # [B, G, R, L]
    column = torch.arange(reach, device=key.device)[None, :]
    hidden = column > at[:, None]
    if sliding_window is not None:
        hidden |= column <= at[:, None] - sliding_window
    repeat = q.shape[2]
    trunk_scores = None
    if decoding.trunk is not None:
        trunk_key, trunk_value = decoding.trunk[layer]
        flat = q.transpose(0, 1).reshape(groups, rows * repeat, width)
        trunk_scores = (flat @ trunk_key[0].transpose(1, 2)).view(groups, rows, repeat, -1).transpose(0, 1)
        trunk_scores = _cap(trunk_scores, softcap)
        if sliding_window is not None:
            place = torch.arange(decoding.trunk_length, device=key.device)[None, :]
            far = place <= (at + decoding.trunk_length)[:, None] - sliding_window
            trunk_scores = trunk_scores.masked_fill(far[:, None, None], float("-inf"))
    scores = _cap(scores, softcap).masked_fill(hidden[:, None, None], float("-inf"))
    parts = [scores] if trunk_scores is None else [scores, trunk_scores]
    if s_aux is not None:  # a sink takes its share of the weight and gives no value
        parts.append(s_aux.to(scores.dtype).view(1, groups, repeat, 1).expand(rows, -1, -1, 1))
    weights = torch.softmax(torch.cat(parts, dim=-1), dim=-1)
    mixed = weights[..., :reach] @ own_value
    if trunk_scores is not None:
        shared = weights[..., reach : reach + decoding.trunk_length]
        flat = shared.transpose(0, 1).reshape(groups, rows * repeat, -1)
        mixed = mixed + (flat @ trunk_value[0]).view(groups, rows, repeat, -1).transpose(0, 1)
    return mixed.reshape(rows, 1, groups * repeat, -1), None


def _fused(
    q: torch.Tensor,
    own_key: torch.Tensor,
    own_value: torch.Tensor,
    unseen: torch.Tensor,
    trunk: tuple[torch.Tensor, torch.Tensor] | None,
    scale: float,
) -> torch.Tensor:
    """Torch's fused kernel on the rows' own tokens and on the trunk, put together by their log-sums.

    Args:
        q: `[B, G, R, d]`; own_key, own_value: `[B, G, L, d]`; trunk: `[1, G, P, d]` each.

    Returns:
        `[B, 1, G * R, d]`.
    """
    rows, groups, repeat, width = q.shape
    mask = unseen.expand(-1, -1, repeat, -1)
    out, total = fused_attention(q, own_key, own_value, 0.0, False, attn_mask=mask, scale=scale)
    if trunk is not None:
        together = q.transpose(0, 1).reshape(1, groups, rows * repeat, width)
        more, more_total = fused_attention(together, *trunk, scale=scale)
        more = more[0].unflatten(1, (rows, repeat)).transpose(0, 1)
        more_total = more_total[0].unflatten(1, (rows, repeat)).transpose(0, 1)
        out = out.lerp(more, torch.sigmoid(more_total - total)[..., None].to(out.dtype))
    mixed: torch.Tensor = out.reshape(rows, 1, groups * repeat, width)
    return mixed


def _cap(scores: torch.Tensor, softcap: float | None) -> torch.Tensor:
    return scores if softcap is None else softcap * torch.tanh(scores / softcap)


AttentionInterface.register(NAME, decoding_attention)
