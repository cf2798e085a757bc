"""What both sides train on: token ids, weights, batches and rates, written down once as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

RANK, ALPHA = 16, 32
BETA = 0.1  # of DPO
KL = 0.04  # of GRPO


@dataclass(frozen=True)
class Row:
    """One training sequence; `weights[t]` (0 or 1) belongs to `ids[t]`."""

    ids: tuple[int, ...]
    weights: tuple[float, ...]

    @property
    def needed(self) -> list[bool]:
        """Which of its `len - 1` next-token predictions the loss needs."""
        return [weight > 0 for weight in self.weights[1:]]


@dataclass(frozen=True)
class Plan:
    """A training run of one epoch.

    Attributes:
        objective: `sft`, `dpo` or `grpo`.
        examples: in file order, each one sequence, the preferred answer and the other, or the answers to one
            prompt; `batches` index them, one list per optimizer step.
        held_out: never trained on.
        rates: learning rate of every step.
        adapter: folder of the adapter that both sides start from, in PEFT's format.
    """

    objective: str
    examples: tuple[tuple[Row, ...], ...]
    held_out: tuple[tuple[Row, ...], ...]
    batches: tuple[tuple[int, ...], ...]
    rates: tuple[float, ...]
    peak: float
    seed: int
    batch_tokens: int
    adapter: str

    @property
    def steps(self) -> int:
        """Optimizer steps."""
        return len(self.batches)

    def batch(self, step: int) -> list[tuple[Row, ...]]:
        """Examples of one optimizer step."""
        return [self.examples[i] for i in self.batches[step]]

    def save(self, path: Path) -> None:
        """Write as JSON."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @staticmethod
    def load(path: Path) -> Plan:
        """Read what `save` wrote."""
        raw = json.loads(path.read_text(encoding="utf-8"))
        for side in ("examples", "held_out"):
            raw[side] = tuple(
                tuple(Row(tuple(row["ids"]), tuple(row["weights"])) for row in example)
                for example in raw[side]
            )
        raw["batches"] = tuple(map(tuple, raw["batches"]))
        raw["rates"] = tuple(raw["rates"])
        return Plan(**raw)


def tokens_of(example: Sequence[Row]) -> int:
    """Tokens of an example before sharing."""
    return sum(len(row.ids) for row in example)


def nearest_length(rows: Sequence[Row], length: int, count: int) -> list[Row]:
    """The `count` rows whose length is nearest to `length`, in their order.

    Raises:
        ValueError: there are fewer.
    """
    if count > len(rows):
        raise ValueError(f"{count} sequences are needed, the data has {len(rows)}: ask for fewer pairs")
    order = sorted(range(len(rows)), key=lambda i: (abs(len(rows[i].ids) - length), i))
    return [rows[i] for i in sorted(order[:count])]


def deal(lengths: Sequence[int], steps: int) -> list[list[int]]:
    """Indices dealt to `steps` batches of one size, so that every batch has short and long ones.

    From the longest to the shortest, forwards and backwards in turn. The two longest of a batch come
    first and last in it, so that borders between batches may be off by half their length.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    batches: list[list[int]] = [[] for _ in range(steps)]
    for start in range(0, len(order), steps):
        hands = batches if (start // steps) % 2 == 0 else batches[::-1]
        for hand, i in zip(hands, order[start : start + steps], strict=True):
            hand.append(i)
    return [[*batch[1:], batch[0]] for batch in batches]
