"""Scores by field, for the card and the report: in each slice tuned against what is best there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from luthier.card.numbers import Interval, finite
from luthier.evidence.slices import ALPHA


@dataclass(frozen=True)
class Slice:
    """The examples with one value of a field.

    Attributes:
        n: examples that tuned was scored on.
        alternative: the candidate that scores best here without tuning; empty where there is none.
        best, tuned: their scores.
        difference: tuned minus the best alternative, paired.
        p_adjusted: over all slices and alternatives (Holm); None where the slice is too small to test.
    """

    field: str
    value: str
    n: int
    alternative: str
    best: float | None
    tuned: float | None
    difference: Interval
    p_adjusted: float | None

    @property
    def is_worse(self) -> bool:
        """Whether tuned is worse here for sure."""
        lost = self.difference.value is not None and self.difference.value < 0
        return lost and self.p_adjusted is not None and self.p_adjusted <= ALPHA

    @property
    def finding(self) -> str:
        """What the test says, in words."""
        if self.p_adjusted is None:
            return "too small to test"
        return "worse" if self.is_worse else "better" if self._is_better else "no difference shown"

    @property
    def _is_better(self) -> bool:
        gained = self.difference.value is not None and self.difference.value > 0
        return gained and self.p_adjusted is not None and self.p_adjusted <= ALPHA


def read_slices(raw: Any) -> list[Slice]:
    """The rows of a table from `slices` of `scores.json`, in the order of the record."""
    if not isinstance(raw, Mapping):
        return []
    scores: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for row in _mappings(raw.get("scores")):
        scores.setdefault(_key(row), {})[str(row.get("candidate"))] = row
    pairs = {(*_key(row), str(row.get("b"))): row for row in _mappings(raw.get("paired"))}
    return [_slice(key, own, pairs) for key, own in scores.items()]


def _slice(
    key: tuple[str, str],
    scores: Mapping[str, Mapping[str, Any]],
    pairs: Mapping[tuple[str, str, str], Mapping[str, Any]],
) -> Slice:
    values = {name: finite(row.get("score")) for name, row in scores.items()}
    others = [name for name, value in values.items() if name != "tuned" and value is not None]
    best = max(others, key=lambda name: values[name] or 0.0, default="")
    pair = pairs.get((*key, best), {})
    size = scores.get("tuned") or next(iter(scores.values()))
    return Slice(
        field=key[0],
        value=key[1],
        n=int(finite(size.get("n")) or 0),
        alternative=best,
        best=values.get(best),
        tuned=values.get("tuned"),
        difference=Interval(*(finite(pair.get(end)) for end in ("difference", "low", "high"))),
        p_adjusted=finite(pair.get("p_adjusted")),
    )


def _key(row: Mapping[str, Any]) -> tuple[str, str]:
    return str(row.get("field")), str(row.get("value"))


def _mappings(value: Any) -> Sequence[Mapping[str, Any]]:
    return [row for row in value if isinstance(row, Mapping)] if isinstance(value, list) else []
