"""The learning rate: its automatic peak and its course over the steps."""

from __future__ import annotations

import math
from typing import Literal

from luthier.recipe import AdapterKind

FULL_RATE = 5e-5
LORA_FACTOR = 10.0
REFERENCE_WIDTH = 2000
WIDTH_POWER = 0.781
PREFIX_RATE = 1e-2
PROMPT_RATE = 3e-2
WARMUP_SHARE = 0.06


def peak_rate(
    setting: float | Literal["auto"],
    *,
    hidden_size: int,
    kind: AdapterKind = "lora",
    rank: int = 16,
    pace: float = 1.0,
) -> float:
    """The peak learning rate of a run, for AdamW.

    `auto` for LoRA is the rule fitted in "LoRA Without Regret" (Schulman et al. 2025) over 14 models:
    10 x 5e-5 x (2000 / hidden size) ** 0.781, whatever the rank, with alpha 32 and scale alpha/rank.
    The exponent is the one given for Llama models; we use it for every architecture.

    - full: the same rule without its factor 10, which is the ratio that it states between the two.
    - dora: as lora. Its paper (arXiv 2402.09353, table 8) trains with rates from half of LoRA's to the same.
    - rslora: lora's divided by sqrt(rank). Its scale alpha/sqrt(rank) (arXiv 2312.03732) is sqrt(rank)
      times lora's; Adam's steps do not depend on the scale, so that the first updates of the weights are
      then those of lora at the same alpha. Ours, not the paper's.
    - prefix, prompt: 1e-2 and 3e-2, whatever the width: those of PEFT's own examples of prefix and prompt
      tuning, without a reparametrising network. A virtual token's numbers have the size of activations and
      embeddings, not of weights.

    Args:
        pace: multiplies `auto`: the method's, see `Method.pace`.
    """
    if setting != "auto":
        return float(setting)
    if kind == "prefix":
        return pace * PREFIX_RATE
    if kind == "prompt":
        return pace * PROMPT_RATE
    full = FULL_RATE * (REFERENCE_WIDTH / hidden_size) ** WIDTH_POWER
    if kind == "full":
        return float(pace * full)
    return float(pace * LORA_FACTOR * full / (math.sqrt(rank) if kind == "rslora" else 1.0))


def rate_at(step: int, *, steps: int, peak: float) -> float:
    """Linear warm-up, then linear decay to zero (arXiv 2502.15938); steps count from 0."""
    warmup = max(1, math.ceil(WARMUP_SHARE * steps))
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (steps - step) / max(1, steps - warmup + 1)
