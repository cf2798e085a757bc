"""`Score` and `Grader`: what every grader returns, and what it looks like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from luthier.examples.example import Example


@dataclass(frozen=True)
class Score:
    """How good one answer is.

    Attributes:
        value: in [0, 1], or None when the answer could not be scored. Unscored is not wrong: such
            answers are counted and left out of the mean.
        reason: why it is unscored (always given then), or why it is less than right.
        detail: JSON values that help a reader, such as which fields are right.
    """

    value: float | None
    reason: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.value is None and not self.reason:
            raise ValueError("an unscored answer needs a reason")
        if self.value is not None and not 0.0 <= self.value <= 1.0:
            raise ValueError(f"a score lies in [0, 1], got {self.value!r}")


class Grader(Protocol):
    """Scores answers.

    Attributes:
        name: as written in a recipe, such as `json_fields`.
        metric: what a mean of its scores is called, such as `fields right`.
    """

    @property
    def name(self) -> str: ...

    @property
    def metric(self) -> str: ...

    def grade(self, answer: str, reference: str, example: Example) -> Score:
        """Score `answer`, which a candidate gave to `example`, against `reference`."""
        ...
