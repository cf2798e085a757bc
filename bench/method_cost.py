"""What a training took, as both tables of `python -m bench methods` tell it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

COST_HEAD = ["steps", "rate", "seconds", "memory, GB"]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a training took.

    Attributes:
        seconds: of training alone.
        memory: peak resident bytes of training.
        n: held-out examples that were scored.
    """

    steps: int
    tokens: int
    seconds: float
    memory: int
    rate: float
    n: int

    def cells(self) -> list[str]:
        """As `COST_HEAD` says."""
        return [str(self.steps), f"{self.rate:.1e}", f"{self.seconds:.0f}", f"{self.memory / 1e9:.1f}"]


def cost_of(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What `Cost` holds of a training's summary."""
    return {
        "steps": summary["steps"],
        "tokens": summary["tokens"],
        "seconds": summary["seconds"],
        "memory": summary["peak_memory_bytes"],
        "rate": summary["learning_rate"],
    }
