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

CHUNK = 256  # predictions whose [CHUNK, V] logits exist at once: 50 MB at V = 49,152 in fp32


@dataclass(frozen=True)
class Head:
    """A head `cap * tanh(scale * (h W^T + b) / cap)`, without cap where `cap` is None."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    scale: float
    cap: float | None

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
            for h, y in zip(hidden.split(CHUNK), targets.split(CHUNK), strict=True)
        ]
        return torch.cat(parts) if parts else hidden.new_zeros(0, dtype=torch.float32)
    result: torch.Tensor = _FrozenHead.apply(hidden, targets, head)  # type: ignore[no-untyped-call]
    return result


def _plain(head: Head, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    logits = head.logits(hidden).float()
    chosen = logits.gather(1, targets[:, None])[:, 0]
    return chosen - torch.logsumexp(logits, dim=1)


class _FrozenHead(torch.autograd.Function):
    """Log-probabilities whose gradient with respect to the hidden states is kept from the forward pass."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, targets: torch.Tensor, head: Head) -> torch.Tensor:
        slopes = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        logp = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        for start in range(0, len(hidden), CHUNK):
            part = slice(start, start + CHUNK)
            logits = head.logits(hidden[part])
            rows = torch.arange(len(logits), device=logits.device)
            total = torch.logsumexp(logits.float(), dim=1)
            logp[part] = logits[rows, targets[part]].float() - total
            if slopes is not None:
                slope = _slope(head, logits)
                weights = (logits.float() - total[:, None]).exp_().neg_()
                weights[rows, targets[part]] += 1.0
                if slope is not None:
                    weights *= slope
                slopes[part] = (weights.to(head.weight.dtype) @ head.weight).mul_(head.scale)
        if slopes is not None:
            ctx.save_for_backward(slopes)
        return logp

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (slopes,) = ctx.saved_tensors
        return upstream[:, None].to(slopes.dtype) * slopes, None, None


def _slope(head: Head, logits: torch.Tensor) -> torch.Tensor | None:
    """Derivative of the soft cap at the capped logits."""
    return None if head.cap is None else 1.0 - (logits.float() / head.cap).square()
