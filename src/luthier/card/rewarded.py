"""A model's own answers while an online method trains it: what they were worth, how far it moved, samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from luthier.card.numbers import finite
from luthier.card.plain_text import clean_text
from luthier.record import Record

ROLLOUTS = "train/rollouts"
SHOWN = 4  # requests whose answers can be read
# what is drawn: its name, its column for the answers it learns from, and for those to held-out requests
_PANELS = (
    ("Reward", "reward", "validation_reward"),
    ("Score of held-out answers", "", "validation_score"),
    ("Divergence from the start (KL), nats per answer", "kl", ""),
    ("Length, tokens", "length", "validation_answer_tokens"),
    ("Different answers, share", "distinct", "validation_distinct"),
)
Curve = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Panel:
    """A number over steps, as (step, value) pairs: of sampled answers, and of greedy held-out ones."""

    name: str
    learnt: Curve
    held_out: Curve


@dataclass(frozen=True)
class Samples:
    """The first answer sampled for one request, in the first and in the last step that asked it."""

    where: str
    steps: tuple[int, int]
    answers: tuple[str, str]
    rewards: tuple[float | None, float | None]


@dataclass(frozen=True)
class Rewarded:
    """What the report shows of it."""

    panels: Sequence[Panel]
    samples: Sequence[Samples]


def read_rewarded(record: Record, metrics: Sequence[Mapping[str, Any]]) -> Rewarded | None:
    """From `train/metrics.jsonl` and `train/rollouts/`; None where nothing was rewarded.

    Args:
        metrics: the lines of `metrics.jsonl`.
    """
    panels = [Panel(name, curve_of(metrics, own), curve_of(metrics, held)) for name, own, held in _PANELS]
    if not panels[0].learnt:
        return None
    return Rewarded([p for p in panels if p.learnt or p.held_out], _read_samples(record))


def curve_of(metrics: Sequence[Mapping[str, Any]], column: str) -> Curve:
    """A column over steps, where both are numbers."""
    pairs = [(finite(row.get("step")), finite(row.get(column))) for row in metrics]
    return [(step, value) for step, value in pairs if step is not None and value is not None]


def _read_samples(record: Record) -> list[Samples]:
    """Of requests that the first steps asked, those that were asked again; the earliest are shown."""
    files = sorted((record / ROLLOUTS).glob("*.jsonl")) if (record / ROLLOUTS).is_dir() else []
    first: dict[str, tuple[int, Mapping[str, Any]]] = {}
    last: dict[str, tuple[int, Mapping[str, Any]]] = {}
    for file in files:
        step, seen = int(file.stem) if file.stem.isdecimal() else 0, set()
        for row in record.read_jsonl(f"{ROLLOUTS}/{file.name}"):
            where = row.get("where") if isinstance(row, dict) else None
            if isinstance(where, str) and where not in seen:
                seen.add(where)
                first.setdefault(where, (step, row))
                last[where] = (step, row)
    again = [where for where in first if last[where][0] > first[where][0]]
    return [_samples(where, first[where], last[where]) for where in again[:SHOWN]]


def _samples(
    where: str, first: tuple[int, Mapping[str, Any]], last: tuple[int, Mapping[str, Any]]
) -> Samples:
    (early, before), (late, after) = first, last
    return Samples(
        clean_text(PurePath(where).name),
        (early, late),
        (clean_text(str(before.get("answer"))), clean_text(str(after.get("answer")))),
        (finite(before.get("reward")), finite(after.get("reward"))),
    )
