"""One trial: its values, how far it got, and the file that remembers it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from luthier.record import write_json
from luthier.sweep.space import Metric

State = Literal["open", "stopped", "done", "failed"]
FILE = "trial.json"
STATES = {
    "open": "under way",
    "stopped": "stopped early",
    "done": "trained to the end",
    "failed": "failed",
}


@dataclass(frozen=True)
class Measured:
    """A trial where it was compared with the others.

    Attributes:
        step: optimizer steps done.
        now: the metric of the weights as they were.
        best: the best of `now` and of the ends of epochs before it, by which trials are ranked.
    """

    step: int
    now: float | None
    best: float | None


@dataclass
class Trial:
    """What is known of a trial; all of it is in `trial.json` of its folder.

    Attributes:
        number: from 1.
        changes: values by dotted key.
        key: hash of everything that decides its result.
        planned_steps: 0 until it has begun.
        steps: done so far.
        seconds: of training so far.
        rungs: one for each comparison it took part in while it was open.
        course: step and metric, at every end of an epoch and every comparison.
        best: the metric of the weights that were kept, once it is done.
        reason: why it ended.
    """

    number: int
    changes: Mapping[str, Any]
    key: str
    folder: Path
    state: State = "open"
    planned_steps: int = 0
    steps: int = 0
    seconds: float = 0.0
    rungs: list[Measured] = field(default_factory=list)
    course: list[tuple[int, float]] = field(default_factory=list)
    best: float | None = None
    reason: str | None = None

    @property
    def value(self) -> float | None:
        """The metric: of the kept weights, or where it stood when it was compared last; None if it failed."""
        if self.state == "failed":
            return None
        return self.best if self.state == "done" or not self.rungs else self.rungs[-1].best

    def value_at(self, rung: int) -> float | None:
        """What it is ranked by at a comparison; one that had ended before counts with its end."""
        return self.rungs[rung].best if rung < len(self.rungs) else self.best

    def as_json(self) -> dict[str, Any]:
        """Everything but where it is."""
        return {name: value for name, value in asdict(self).items() if name != "folder"}

    def save(self) -> None:
        """Write `trial.json`, atomically."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / FILE, self.as_json())

    @classmethod
    def load(cls, number: int, changes: Mapping[str, Any], key: str, folder: Path) -> Trial:
        """As its file says; a fresh one where there is none, or it is of another key."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            raw = json.loads((folder / FILE).read_text(encoding="utf-8"))
            if raw["key"] == key:
                raw["rungs"] = [Measured(**one) for one in raw["rungs"]]
                raw["course"] = [(step, value) for step, value in raw["course"]]
                return cls(folder=folder, **raw)
        return cls(number, dict(changes), key, folder)


def better(values: list[float | None], metric: Metric) -> float | None:
    """The best of the values that there are."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    return max(known) if metric == "validation_score" else min(known)
