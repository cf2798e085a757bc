"""What the reinforcement methods share: ratios, the clipped surrogate, and estimates of the KL divergence.

Legend: y an answer that p_old wrote, p the model that is trained, p_ref the model before training, A how
much better than expected y turned out, T tokens.

    ratio      r = p(y) / p_old(y)
    surrogate  - min(r A, clip(r, 1 - low, 1 + high) A)      Schulman et al. 2017, arXiv 1707.06347, eq. 7
    k1         log p(y) - log p_ref(y)                       a KL estimate of either sign
    k3         p_ref(y) / p(y) - 1 - log (p_ref(y) / p(y))   another, never negative

At r = 1 the surrogate's gradient is - A grad log p(y), the policy gradient. A ratio that has moved by more
than `low` or `high` *in the direction of A* gets no further gradient; one that has moved the other way
still does.

Both estimates have KL(p || p_ref) as their mean over answers of p (http://joschu.net/blog/kl-approx.html).
Their gradients do not have its gradient as their mean, since they leave out that p also decides which
answers come: that of k1 is 0 on average, and that of k3 is the gradient of KL(p_ref || p). r k3, with r = 1
but its gradient kept, has the right one, (k3 + 1 - p_ref / p) grad log p = log (p / p_ref) grad log p
(arXiv 2512.02556).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from luthier.methods.method import Item, Rollout

Logps = Sequence[Sequence[torch.Tensor]]


def log_ratios(rollout: Rollout, logps: torch.Tensor) -> torch.Tensor:
    """`log p - log p_old` of each token, `[T]`: zeros with a gradient where the two are the same model."""
    old = logps.detach() if rollout.policy is None else rollout.policy.to(logps)
    return logps - old


def clipped_losses(
    ratios: torch.Tensor, advantages: torch.Tensor, *, low: float, high: float
) -> torch.Tensor:
    """The surrogate, of the shape of `ratios` (not their logarithms) and `advantages`."""
    return -torch.minimum(ratios * advantages, ratios.clamp(1 - low, 1 + high) * advantages)


def k3(logps: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Of each token, at least 0; of the shape, dtype and device of `logps`."""
    gap = reference.to(logps) - logps
    return torch.expm1(gap) - gap


def reference_of(reference: torch.Tensor | None) -> torch.Tensor:
    """The reference's log-probabilities.

    Raises:
        ValueError: there are none: they are never taken for 0.
    """
    if reference is None:
        raise ValueError("an answer without the reference's log-probabilities")
    return reference


def measure_update(
    items: Sequence[Item], logps: Logps, *, low: float, high: float, whole: bool = False
) -> dict[str, float]:
    """Numbers to log of an update, from the log-probabilities that its loss was given; {} without answers.

    Args:
        low, high: the clipping.
        whole: an answer has one ratio, not one for each token.

    Returns:
        approx_kl: from the model that wrote the answers to the one that is trained, nats per token (per
            answer where `whole`): the mean of r - 1 - log r.
        clip_fraction: share of the ratios whose gradient is cut off.
        entropy: mean of - log p, nats per token, an estimate while the ratios are near 1.
    """
    ratios, advantages, surprise = [], [], []
    for item, own in zip(items, logps, strict=True):
        if item.rollout is not None:
            values = own[0].detach()
            ratio, advantage = log_ratios(item.rollout, values), item.rollout.advantages.to(values)
            ratios.append(ratio.sum().view(1) if whole else ratio)
            advantages.append(advantage[:1] if whole else advantage)
            surprise.append(-values)
    if not ratios:
        return {}
    logs, better = torch.cat(ratios), torch.cat(advantages)
    moved = logs.exp()
    cut = ((moved > 1 + high) & (better > 0)) | ((moved < 1 - low) & (better < 0))
    return {
        "approx_kl": float((torch.expm1(logs) - logs).mean()),
        "clip_fraction": float(cut.float().mean()),
        "entropy": float(torch.cat(surprise).mean()),
    }
