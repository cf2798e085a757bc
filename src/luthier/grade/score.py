"""`Score` and `Grader`: what every grader returns, and what it looks like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

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


Case = tuple[str, str, Example]  # answer, reference, example


@runtime_checkable
class GradesMany(Protocol):
    """A grader that is faster when it sees all answers at once."""

    def grade_many(self, cases: Sequence[Case]) -> list[Score]:
        """Score every case, in order."""
        ...


@runtime_checkable
class Rewards(Protocol):
    """A grader whose scores are a bounded view of something that can be learnt from better as it is."""

    def reward_many(self, cases: Sequence[Case]) -> list[float | None]:
        """The reward of every case, in order, on any scale; None where there is none."""
        ...


@runtime_checkable
class Summarises(Protocol):
    """A grader that has more to say of a candidate's answers than their mean score."""

    def summarise(self, rows: Sequence[Mapping[str, Any]], clusters: Sequence[str] | None) -> dict[str, Any]:
        """JSON values for the candidate's row of `scores.json`.

        Args:
            rows: the candidate's graded answers, as in `predictions/`.
            clusters: the source each example came from, None when every one has its own.
        """
        ...


@runtime_checkable
class Doubtful(Protocol):
    """A grader whose scores may be too unsure to decide anything: a judge.

    Attributes:
        gates: whether its scores may decide a gate of the verdict.
        gates_reason: why, or why not.
    """

    @property
    def gates(self) -> bool: ...

    @property
    def gates_reason(self) -> str: ...

    def about(self) -> dict[str, Any]:
        """What is known of the judge, for `scores.json`."""
        ...


def grade_all(grader: Grader, cases: Sequence[Case]) -> list[Score]:
    """Scores of all cases, in order, the way that suits the grader."""
    if isinstance(grader, GradesMany):
        return grader.grade_many(cases)
    return [grader.grade(*case) for case in cases]


def reward_all(grader: Grader, cases: Sequence[Case]) -> list[float | None]:
    """What to learn from all cases, in order: the score, unless the grader has a better reward."""
    if isinstance(grader, Rewards):
        return grader.reward_many(cases)
    return [score.value for score in grade_all(grader, cases)]
