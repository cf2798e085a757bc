"""What both sides train on: token ids, weights, batches and rates, written down once as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

BATCH = 8
RANK, ALPHA = 16, 32


@dataclass(frozen=True)
class Row:
    """One training sequence; `weights[t]` (0 or 1) belongs to `ids[t]`."""

    ids: tuple[int, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True)
class Plan:
    """A training run of one epoch.

    Attributes:
        rows: in file order; `batches` index them, one list per optimizer step.
        rates: learning rate of every step.
        adapter: folder of the adapter that both sides start from, in PEFT's format.
    """

    rows: tuple[Row, ...]
    batches: tuple[tuple[int, ...], ...]
    rates: tuple[float, ...]
    seed: int
    batch_tokens: int
    adapter: str

    @property
    def steps(self) -> int:
        """Optimizer steps."""
        return len(self.batches)

    def batch(self, step: int) -> list[Row]:
        """Rows of one optimizer step."""
        return [self.rows[i] for i in self.batches[step]]

    def save(self, path: Path) -> None:
        """Write as JSON."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @staticmethod
    def load(path: Path) -> Plan:
        """Read what `save` wrote."""
        raw = json.loads(path.read_text(encoding="utf-8"))
        raw["rows"] = tuple(Row(tuple(row["ids"]), tuple(row["weights"])) for row in raw["rows"])
        raw["batches"] = tuple(map(tuple, raw["batches"]))
        raw["rates"] = tuple(raw["rates"])
        return Plan(**raw)


def nearest_length(rows: Sequence[Row], length: int, count: int) -> list[Row]:
    """The `count` rows whose length is nearest to `length`, in their order.

    Raises:
        ValueError: there are fewer.
    """
    if count > len(rows):
        raise ValueError(f"{count} sequences are needed, the data has {len(rows)}: ask for fewer pairs")
    order = sorted(range(len(rows)), key=lambda i: (abs(len(rows[i].ids) - length), i))
    return [rows[i] for i in sorted(order[:count])]
