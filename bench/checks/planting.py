"""A file of examples with pairs planted in it, and what was flagged of them."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.checks.lookalikes import Change
from bench.checks.rates import Tally
from luthier.audit.finding import Finding, Material
from luthier.examples.answers import AnswerKind
from luthier.examples.example import Example, Message

ANSWERS = ("billing", "delivery", "refund", "account")


@dataclass
class Planted:
    """Texts and the pairs among them of which is known whether they mean the same.

    Attributes:
        texts: the originals first, then what was made of them.
        pairs: by kind, positions of an original and of what was made of it.
        faults: the kinds that mean the same.
    """

    texts: list[str]
    pairs: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    faults: set[str] = field(default_factory=set)

    def plant(self, kind: str, change: Change, places: Sequence[int], rng: random.Random) -> None:
        """Add a changed copy of each of these texts that the change applies to."""
        for place in places:
            changed = change(self.texts[place], rng)
            if changed is not None:
                self.pairs.setdefault(kind, []).append((place, len(self.texts)))
                self.texts.append(changed)

    def tallies(self, linked: Mapping[int, set[int]]) -> list[Tally]:
        """How many pairs of each kind were linked."""
        return [
            Tally(kind, sum(b in linked.get(a, ()) for a, b in pairs), len(pairs), kind in self.faults)
            for kind, pairs in self.pairs.items()
        ]

    def stray_links(self, linked: Mapping[int, set[int]]) -> int:
        """Texts linked to one that is neither its original nor made of the same one."""
        origin = list(range(len(self.texts)))
        for pairs in self.pairs.values():
            for a, b in pairs:
                origin[b] = a
        return sum(any(origin[a] != origin[b] for b in others) for a, others in linked.items())


def plant_pairs(
    texts: Sequence[str],
    faults: Mapping[str, Change],
    others: Mapping[str, Change],
    *,
    each: int,
    seed: int,
) -> Planted:
    """Up to `each` pairs of every kind, every original in one pair at most.

    Kinds that few texts allow choose first.
    """
    rng = random.Random(seed)
    planted = Planted(list(texts), faults=set(faults))
    free = set(range(len(texts)))
    changes = {**faults, **others}
    able = {
        kind: [place for place in range(len(texts)) if change(texts[place], random.Random(place)) is not None]
        for kind, change in changes.items()
    }
    for kind in sorted(changes, key=lambda kind: len(able[kind])):
        places = [place for place in able[kind] if place in free]
        chosen = rng.sample(places, min(each, len(places)))
        free -= set(chosen)
        planted.plant(kind, changes[kind], chosen, rng)
    planted.pairs = {kind: planted.pairs[kind] for kind in changes if kind in planted.pairs}
    return planted


def example(text: str, answer: str, line: int, *, file: str = "planted.jsonl") -> Example:
    """A request and its answer."""
    return Example(f"{file}-{line}", (Message("user", text), Message("assistant", answer)), file, line)


def material(sides: Mapping[str, Sequence[Example]], kind: AnswerKind = "label", **more: Any) -> Material:
    """What a check is given."""
    return Material(
        sides=sides,
        system=None,
        tokens=None,
        special_tokens=(),
        max_tokens=None,
        answer_kind=kind,
        **more,
    )


def linked_lines(findings: Sequence[Finding]) -> dict[int, set[int]]:
    """By line, the other lines that a finding puts beside it."""
    linked: dict[int, set[int]] = {}
    for finding in findings:
        lines = {one.line for one in finding.examples}
        for line in lines:
            linked.setdefault(line, set()).update(lines - {line})
    return linked
