"""The language-model head, run only where a log-probability is asked for, in chunks.

Legend: P predictions, D width, V vocabulary.

For a frozen head, d log p(y) / d h = W^T (onehot(y) - softmax) is computed in the forward pass, chunk
by chunk, while the logits are at hand: memory is P*D instead of P*V, and nothing is computed again
in the backward pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

CHUNK = 1024  # predictions at once
TILE_NUMBERS = {
    "cpu": 1 << 20,
    "cuda": 1 << 26,
}  # logits that exist at once: what a cache, or a launch, is worth
TRAINED_CHUNK = 256  # predictions whose [TRAINED_CHUNK, V] logits exist at once where the head is trained


@dataclass(frozen=True)
class Head:
    """A head `cap * tanh(scale * (h W^T + b) / cap)`, without cap where `cap` is None."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    scale: float
    cap: float | None

    def part(self, first: int, last: int) -> Head:
        """The head of the tokens `first..last` of the vocabulary."""
        bias = None if self.bias is None else self.bias[first:last]
        return Head(self.weight[first:last], bias, self.scale, self.cap)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """`[P, D]` to `[P, V]`."""
        z = torch.nn.functional.linear(hidden, self.weight, self.bias)
        if self.scale != 1.0:
            z = z * self.scale
        return z if self.cap is None else self.cap * torch.tanh(z / self.cap)


def head_of(model: PreTrainedModel) -> Head | None:
    """The model's head, or None where it is not a linear map with the known scalings."""
    layer = model.get_output_embeddings()
    # exactly Linear: an adapter on the head is a module of another type, with a forward of its own
    if type(layer) is not torch.nn.Linear:
        return None
    config = model.config.get_text_config()
    scale = 1.0
    if getattr(config, "logits_scaling", None):  # Granite divides
        scale = 1.0 / config.logits_scaling
    elif getattr(config, "logit_scale", None):  # Cohere multiplies
        scale = config.logit_scale
    cap = getattr(config, "final_logit_softcapping", None) or getattr(config, "logits_soft_cap", None)
    return Head(layer.weight, layer.bias, scale, cap)


def target_logprobs(head: Head, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """log p(target | hidden), float32.

    Args:
        hidden: `[P, D]`; targets: `[P]` token ids.

    Returns:
        `[P]`, differentiable in `hidden` and, where they are trained, in the head's weights.
    """
    trained = head.weight.requires_grad or (head.bias is not None and head.bias.requires_grad)
    if trained and torch.is_grad_enabled():
        parts = [
            checkpoint(_plain, head, h, y, use_reentrant=False)
            for h, y in zip(hidden.split(TRAINED_CHUNK), targets.split(TRAINED_CHUNK), strict=True)
        ]
        return torch.cat(parts) if parts else hidden.new_zeros(0, dtype=torch.float32)
    result: torch.Tensor = _FrozenHead.apply(hidden, targets, head)  # type: ignore[no-untyped-call]
    return result


def _plain(head: Head, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    logits = head.logits(hidden).float()
    chosen = logits.gather(1, targets[:, None])[:, 0]
    return chosen - torch.logsumexp(logits, dim=1)


class _FrozenHead(torch.autograd.Function):
    """Log-probabilities whose gradient with respect to the hidden states is kept from the forward pass.

    The vocabulary is gone through in tiles that stay in the cache, as flash attention goes through keys:
    logits are never in memory whole. With a running maximum m, Z = sum_j exp(z_j - m) and
    e = sum_j exp(z_j - m) z_j' W_j are rescaled whenever m grows; then d log p(y) / d h = z_y' W_y - e / Z.
    """

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, targets: torch.Tensor, head: Head) -> torch.Tensor:
        slopes = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        logp = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        for start in range(0, len(hidden), CHUNK):
            part = slice(start, start + CHUNK)
            into = None if slopes is None else slopes[part]
            logp[part] = _tiled(head, hidden[part], targets[part], into)
        if slopes is not None:
            ctx.save_for_backward(slopes)
        return logp

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (slopes,) = ctx.saved_tensors
        return upstream[:, None].to(slopes.dtype) * slopes, None, None


class Exponentials:
    """Sums of exp(z - m) over the tiles of a vocabulary, where m is the highest logit z so far.

    Args:
        hidden: `[P, D]`, of which there is a sum each.
        width: of the rows of the head's matrix that are summed with these weights; None where none are.
    """

    def __init__(self, hidden: torch.Tensor, width: int | None) -> None:
        self._highest = hidden.new_full((len(hidden), 1), float("-inf"), dtype=torch.float32)
        self._total = torch.zeros_like(self._highest)
        self._rows = None if width is None else self._total.new_zeros(len(hidden), width)

    def add(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The tile's exponentials, in the place of its logits, and the factor for earlier sums."""
        above = torch.maximum(self._highest, logits.amax(1, keepdim=True))
        fade = (self._highest - above).exp_()
        weights = logits.sub_(above).exp_()
        self._total.mul_(fade).add_(weights.sum(1, keepdim=True))
        self._highest = above
        return weights, fade

    def add_rows(
        self, weights: torch.Tensor, fade: torch.Tensor, matrix: torch.Tensor, slope: torch.Tensor | None
    ) -> None:
        """Add the weighted rows of a tile of the matrix, each by the slope of its soft cap."""
        assert self._rows is not None
        if slope is not None:
            weights *= slope
        self._rows.mul_(fade)
        if self._rows.dtype == matrix.dtype:
            self._rows.addmm_(weights, matrix)
        else:
            self._rows += weights.to(matrix.dtype) @ matrix

    def log_total(self) -> torch.Tensor:
        """`[P]` log-sum-exp of all logits."""
        return (self._highest + self._total.log())[:, 0]

    def mean(self, sums: torch.Tensor) -> torch.Tensor:
        """Sums with these weights, `[P, ...]`, as means under the softmax."""
        return sums / self._total

    def mean_row(self) -> torch.Tensor:
        """`[P, width]` mean of the matrix's rows under the softmax."""
        assert self._rows is not None
        return self.mean(self._rows)


def _tiled(
    head: Head, hidden: torch.Tensor, targets: torch.Tensor, slopes: torch.Tensor | None
) -> torch.Tensor:
    """log p `[P]`; d log p / d h goes into `slopes` `[P, D]`."""
    sums = Exponentials(hidden, None if slopes is None else hidden.shape[1])
    tile = tile_of(hidden)
    for first in range(0, len(head.weight), tile):
        piece = head.part(first, first + tile)
        logits = piece.logits(hidden).float()
        slope = None if slopes is None else slope_of(head, logits)
        weights, fade = sums.add(logits)
        if slopes is not None:
            sums.add_rows(weights, fade, piece.weight, slope)
    chosen, towards = _chosen(head, hidden, targets)
    if slopes is not None:
        slopes.copy_(towards - sums.mean_row()).mul_(head.scale)
    return chosen - sums.log_total()


def _chosen(head: Head, hidden: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The targets' logits `[P]`, and their gradients with respect to the scaled hidden states `[P, D]`."""
    rows = head.weight[targets]
    z = (hidden.float() * rows.float()).sum(1)
    if head.bias is not None:
        z = z + head.bias[targets].float()
    z = z * head.scale
    if head.cap is None:
        return z, rows.float()
    z = head.cap * torch.tanh(z / head.cap)
    return z, rows.float() * (1.0 - (z / head.cap).square())[:, None]


def tile_of(hidden: torch.Tensor) -> int:
    """How many tokens of the vocabulary are gone through at once for hidden states `[P, D]`."""
    return max(1, TILE_NUMBERS.get(hidden.device.type, TILE_NUMBERS["cuda"]) // max(1, len(hidden)))


def slope_of(head: Head, logits: torch.Tensor) -> torch.Tensor | None:
    """Derivative of the soft cap at the capped logits."""
    return None if head.cap is None else 1.0 - (logits.float() / head.cap).square()
