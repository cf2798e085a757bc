"""The learning rate: its automatic peak and its course over the steps."""

from __future__ import annotations

import math
from typing import Literal

FULL_RATE = 5e-5
LORA_FACTOR = 10.0
REFERENCE_WIDTH = 2000
WIDTH_POWER = 0.781
WARMUP_SHARE = 0.06


def peak_rate(setting: float | Literal["auto"], *, hidden_size: int) -> float:
    """The peak learning rate of a LoRA run.

    `auto` is the rule fitted in "LoRA Without Regret" (Schulman et al. 2025) over 14 models:
    10 x 5e-5 x (2000 / hidden size) ** 0.781, whatever the rank, with alpha 32 and scale alpha/rank.
    The exponent is the one given for Llama models; we use it for every architecture.
    """
    if setting != "auto":
        return float(setting)
    return float(LORA_FACTOR * FULL_RATE * (REFERENCE_WIDTH / hidden_size) ** WIDTH_POWER)


def rate_at(step: int, *, steps: int, peak: float) -> float:
    """Linear warm-up, then linear decay to zero (arXiv 2502.15938); steps count from 0."""
    warmup = max(1, math.ceil(WARMUP_SHARE * steps))
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (steps - step) / max(1, steps - warmup + 1)
