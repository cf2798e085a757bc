"""Soft targets: a teacher's whole distribution of the next token in the place of one token.

Legend: P predictions, V vocabulary, D width of the model, D_t width of the teacher.

    s_i = sum_v q_iv log p_iv,   q_i = softmax(z_t),   p_i = softmax(z)

-s is the cross-entropy of distillation (Hinton et al. 2015, arXiv 1503.02531, at temperature 1). It is
KL(q || p) plus the teacher's entropy, so both have the same gradient, d s / d z = q - p. Only the teacher's
hidden states are stored, P * D_t numbers; its logits are made again tile by tile, beside the model's own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from luthier.forest.head import CHUNK, TRAINED_CHUNK, Exponentials, Head, slope_of, tile_of


@dataclass(frozen=True, eq=False)
class SoftTargets:
    """A teacher's distributions at the flagged predictions of one sequence.

    Attributes:
        hidden: `[P, D_t]`, what the teacher's head is given, without gradient.
        head: the teacher's. It has to stay as it is: not a head that is being trained.
        temperature: both distributions are softmax(logits / temperature).
    """

    hidden: torch.Tensor
    head: Head
    temperature: float = 1.0

    @cached_property
    def entropy(self) -> torch.Tensor:
        """The teacher's own, `[P]` float32 in nats: the least that its cross-entropy can be."""
        with torch.inference_mode(False), torch.no_grad():
            return -expected_logprobs(self.head, self.hidden, self)


def expected_logprobs(head: Head, hidden: torch.Tensor, targets: SoftTargets) -> torch.Tensor:
    """The log-probability of the next token that is expected under the teacher.

    Args:
        hidden: `[P, D]`.

    Returns:
        `[P]` float32, differentiable in `hidden` and, where they are trained, in the head's weights.

    Raises:
        ValueError: the teacher has another vocabulary, or other predictions.
    """
    if len(targets.head.weight) != len(head.weight):
        sizes = f"{len(targets.head.weight)} and {len(head.weight)}"
        raise ValueError(f"teacher and model have vocabularies of different sizes: {sizes}")
    if len(targets.hidden) != len(hidden):
        raise ValueError(f"expected {len(hidden)} distributions of the teacher, got {len(targets.hidden)}")
    if targets.temperature != 1.0:
        head = _softened(head, targets.temperature)
        targets = SoftTargets(targets.hidden, _softened(targets.head, targets.temperature))
    trained = head.weight.requires_grad or (head.bias is not None and head.bias.requires_grad)
    if trained and torch.is_grad_enabled():
        rows = zip(hidden.split(TRAINED_CHUNK), targets.hidden.split(TRAINED_CHUNK), strict=True)
        parts = [checkpoint(_plain, head, h, targets.head, t, use_reentrant=False) for h, t in rows]
        return torch.cat(parts) if parts else hidden.new_zeros(0, dtype=torch.float32)
    result: torch.Tensor = _FrozenHead.apply(hidden, head, targets)  # type: ignore[no-untyped-call]
    return result


def dense_expected_logprobs(logits: torch.Tensor, targets: SoftTargets) -> torch.Tensor:
    """The same from the model's own logits `[P, V]`, where its head is not the fast one."""
    heat = targets.temperature
    wanted = torch.softmax(targets.head.logits(targets.hidden).float() / heat, dim=1)
    return (wanted * torch.log_softmax(logits.float() / heat, dim=1)).sum(1)


def _softened(head: Head, temperature: float) -> Head:
    """The head whose logits are those of `head` divided by a temperature."""
    cap = None if head.cap is None else head.cap / temperature
    return replace(head, scale=head.scale / temperature, cap=cap)


def _plain(head: Head, hidden: torch.Tensor, teacher: Head, states: torch.Tensor) -> torch.Tensor:
    return dense_expected_logprobs(head.logits(hidden), SoftTargets(states, teacher))


class _FrozenHead(torch.autograd.Function):
    """As that of `forest.head`: d s / d h = W^T (q - p) is kept from the forward pass."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, head: Head, targets: SoftTargets) -> torch.Tensor:
        slopes = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        values = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        for start in range(0, len(hidden), CHUNK):
            part = slice(start, start + CHUNK)
            into = None if slopes is None else slopes[part]
            states = targets.hidden[part].to(hidden.device)
            values[part] = _tiled(head, hidden[part], targets.head, states, into)
        if slopes is not None:
            ctx.save_for_backward(slopes)
        return values

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (slopes,) = ctx.saved_tensors
        return upstream[:, None].to(slopes.dtype) * slopes, None, None


def _tiled(
    head: Head, hidden: torch.Tensor, teacher: Head, states: torch.Tensor, slopes: torch.Tensor | None
) -> torch.Tensor:
    """s `[P]`; d s / d h goes into `slopes` `[P, D]`."""
    width = None if slopes is None else hidden.shape[1]
    own, wanted = Exponentials(hidden, width), Exponentials(hidden, width)
    expected = hidden.new_zeros((len(hidden), 1), dtype=torch.float32)
    tile = tile_of(hidden)
    for first in range(0, len(head.weight), tile):
        piece = head.part(first, first + tile)
        logits = piece.logits(hidden).float()
        slope = None if slopes is None else slope_of(head, logits)
        towards, faded = wanted.add(teacher.part(first, first + tile).logits(states).float())
        expected.mul_(faded).add_((towards * logits).sum(1, keepdim=True))
        weights, fade = own.add(logits)
        if slopes is not None:
            own.add_rows(weights, fade, piece.weight, slope)
            wanted.add_rows(towards, faded, piece.weight, slope)
    if slopes is not None:
        slopes.copy_(wanted.mean_row() - own.mean_row()).mul_(head.scale)
    return wanted.mean(expected)[:, 0] - own.log_total()
