"""Training labels that are doubtful, as training's losses tell, for the report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from luthier.card.numbers import finite, percent

MOST_SHOWN = 20
MOST_EPOCHS = 5
NOT_SEEN = "not seen"


@dataclass(frozen=True)
class Label:
    """One of them; `epochs`: the probability of its answer, its loss, and what this answer's usually is."""

    where: str
    input: str
    answer: str
    epochs: Sequence[tuple[str, str, str]]

    def at(self, epoch: int) -> tuple[str, str, str]:
        """Of an epoch, from 1."""
        return self.epochs[epoch - 1] if epoch <= len(self.epochs) else (NOT_SEEN, "", "")


@dataclass(frozen=True)
class Doubtful:
    """What `train/doubtful.json` says: the first labels of `n`, at some epochs; or why none was judged."""

    says: str
    reason: str
    judged: float | None
    n: int
    epochs: Sequence[int]
    labels: Sequence[Label]


def read_doubtful(raw: Any) -> Doubtful | None:
    """None where the record holds nothing of it: it is older, or nothing was trained."""
    if not isinstance(raw, Mapping):
        return None
    found = [row for row in _list(raw.get("found")) if isinstance(row, Mapping)]
    labels = [_label(row) for row in found[:MOST_SHOWN]]
    return Doubtful(
        says=_text(raw.get("says")),
        reason=_text(raw.get("reason")),
        judged=finite(raw.get("judged")),
        n=len(found),
        epochs=_some(max((len(label.epochs) for label in labels), default=0)),
        labels=labels,
    )


def _some(epochs: int) -> list[int]:
    """The first, the last, and those evenly between them."""
    if epochs <= MOST_EPOCHS:
        return list(range(1, epochs + 1))
    return [1 + round(k * (epochs - 1) / (MOST_EPOCHS - 1)) for k in range(MOST_EPOCHS)]


def _label(row: Mapping[str, Any]) -> Label:
    places = [place for place in _list(row.get("examples")) if isinstance(place, Mapping)]
    file, line = (places[0].get("file"), places[0].get("line")) if places else (None, None)
    return Label(
        where=f"{PurePath(_text(file)).name}:{line}" if file else "",
        input=_text(row.get("input")),
        answer=_text(row.get("answer")),
        epochs=[
            (_chance(loss), _loss(loss), _loss(usual))
            for loss, usual in zip(_list(row.get("losses")), _list(row.get("usual")), strict=False)
        ],
    )


def _chance(loss: Any) -> str:
    """The probability that a loss in nats stands for."""
    value = finite(loss)
    return NOT_SEEN if value is None else percent(math.exp(-value))


def _loss(loss: Any) -> str:
    value = finite(loss)
    return "" if value is None else f"{value:.2f}"


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
