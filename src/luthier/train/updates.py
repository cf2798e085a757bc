"""What one step of training learns from, and in how many updates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from luthier.methods.method import Item


@dataclass(frozen=True)
class Updates:
    """The items of each optimizer update of a step.

    Attributes:
        parts: in order; each is a whole effective batch.
        numbers: what is known of the step beside, for its line of the metrics: rewards, say.
    """

    parts: Sequence[Sequence[Item]]
    numbers: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """Tokens before sharing, as often as they are trained on."""
        return sum(item.tokens for part in self.parts for item in part)

    @property
    def trained_tokens(self) -> int:
        """Those of them that have a loss."""
        return sum(item.trained_tokens for part in self.parts for item in part)


def as_given(items: list[Item], step: int) -> Updates:
    """One update with the items of the step: what every method does that learns from given answers."""
    return Updates([items])
