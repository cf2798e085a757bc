"""What "exact" means: the forest against plain Transformers, one sequence a row, in float64.

- Values: the largest difference over the largest value is at most 1e-5.
- Gradients, of a sum in which every prediction has a weight of its own: the norm of the difference over the
  norm is at most 1e-5, over all trained parameters together and for each one of them. Of a parameter whose
  gradient is next to nothing (a bias of keys has none) the error is measured against 10% of the whole norm.
- A model on which float32 cannot do that (plain Transformers misses it as well) may be missed by as much
  again as plain float32 misses it.

float64, because two float32 computations differ by the errors of both.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from tiny_models import plain_logprobs

from luthier.forest import logprobs

TOLERANCE = 1e-5
Flags = Sequence[Sequence[bool]]


def in_float64(model: torch.nn.Module) -> Any:
    """A copy of a model that computes in float64, or a plain copy where it cannot."""
    wide = copy.deepcopy(model).double()
    inner = wide.get_base_model() if hasattr(wide, "peft_config") else wide
    if inner._can_set_experts_implementation():
        inner.set_experts_implementation("eager")  # the grouped product has no float64
    try:
        with torch.no_grad():
            plain_logprobs(wide, [3, 4])
    except RuntimeError:  # a part that asks for float32
        return copy.deepcopy(model)
    return wide


def one_by_one(
    model: torch.nn.Module, sequences: Sequence[Sequence[int]], flags: Flags | None = None
) -> list[torch.Tensor]:
    """The flagged log-probabilities of each sequence in a row of its own."""
    values = [plain_logprobs(model, sequence) for sequence in sequences]
    if flags is None:
        return values
    return [v[torch.tensor(flag, dtype=torch.bool)] for v, flag in zip(values, flags, strict=True)]


def gradients(
    model: torch.nn.Module, values: Sequence[torch.Tensor], seed: int = 0
) -> dict[str, torch.Tensor]:
    """Of a sum with a weight for each prediction, of either sign: no two are interchangeable."""
    model.zero_grad()
    dice = torch.Generator().manual_seed(seed)
    total = sum((v * (torch.rand(len(v), generator=dice) * 3 - 1).to(v)).sum() for v in values)
    if torch.is_tensor(total) and total.requires_grad:
        total.backward()
    return {
        name: p.grad.clone() if p.grad is not None else torch.zeros_like(p)
        for name, p in model.named_parameters()
        if p.requires_grad
    }


def value_error(got: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> float:
    """Largest difference over largest value."""
    assert [len(v) for v in got] == [len(v) for v in expected]
    a, b = (torch.cat([v.detach().double() for v in values]) for values in (got, expected))
    return float((a - b).abs().max() / b.abs().max()) if len(a) else 0.0


def gradient_error(got: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> tuple[float, str]:
    """Largest norm of a difference over the norm, and of which parameter; "" stands for all of them."""
    assert got.keys() == expected.keys()
    norms = {name: float(g.double().norm()) for name, g in expected.items()}
    misses = {name: float((got[name].double() - g.double()).norm()) for name, g in expected.items()}
    whole = sum(norm**2 for norm in norms.values()) ** 0.5
    if whole == 0.0:
        return max(misses.values(), default=0.0), ""
    relative = {name: misses[name] / max(norms[name], 0.1 * whole) for name in norms}
    relative[""] = sum(miss**2 for miss in misses.values()) ** 0.5 / whole
    worst = max(relative, key=relative.__getitem__)
    return relative[worst], worst


def check(
    model: Any,
    sequences: Sequence[Sequence[int]],
    flags: Flags | None = None,
    *,
    tolerance: float = TOLERANCE,
    **options: Any,
) -> None:
    """Assert that `logprobs` is exact on these sequences, values and gradients."""
    wide = in_float64(model)
    values = logprobs(model, sequences, needed=flags, **options)
    slopes = gradients(model, values)
    assert all(v.dtype == torch.float32 for v in values)
    expected = one_by_one(wide, sequences, flags)
    wanted = gradients(wide, expected)
    off, (slope_off, name) = value_error(values, expected), gradient_error(slopes, wanted)
    if off <= tolerance and slope_off <= tolerance:
        return
    plain = one_by_one(model, sequences, flags)
    own_off, (own_slope_off, _) = (
        value_error(plain, expected),
        gradient_error(gradients(model, plain), wanted),
    )
    assert off <= max(tolerance, 2 * own_off), f"values off by {off:.1e}, plain float32 by {own_off:.1e}"
    assert slope_off <= max(tolerance, 2 * own_slope_off), (
        f"gradient of {name or 'all'} off by {slope_off:.1e}, plain float32 by {own_slope_off:.1e}"
    )
