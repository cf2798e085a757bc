"""What of a large file is kept: the first findings of each kind, and a sample of the examples."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from luthier.audit.finding import Finding, Severity
from luthier.examples.example import Example

FINDINGS_KEPT = 1000  # of each check and severity
SEED = 20250101
Kind = tuple[str, Severity]


class Kept:
    """The first findings of each check and severity, and how many there are."""

    def __init__(self) -> None:
        self.counts: Counter[Kind] = Counter()
        self._findings: dict[Kind, list[Finding]] = defaultdict(list)

    def add(self, findings: Iterable[Finding]) -> None:
        """Count findings, and keep those that there is room for."""
        for finding in findings:
            if self.reserve(finding.check, finding.severity):
                self.fill([finding])

    def reserve(self, check: str, severity: Severity) -> bool:
        """Count a finding; whether there is room to keep it."""
        self.counts[check, severity] += 1
        return self.counts[check, severity] <= FINDINGS_KEPT

    def fill(self, findings: Iterable[Finding]) -> None:
        """Keep findings that were counted already."""
        for finding in findings:
            self._findings[finding.check, finding.severity].append(finding)

    def drop(self, check: str) -> None:
        """Forget the findings of a check."""
        for kind in [kind for kind in self.counts if kind[0] == check]:
            del self.counts[kind]
            self._findings.pop(kind, None)

    def findings(self, check: str) -> list[Finding]:
        """What was kept of a check."""
        return [f for (name, _), found in self._findings.items() if name == check for f in found]


class Sample:
    """As many examples as there is room for, each with the same chance: the same ones in every run.

    Vitter's reservoir ("Random sampling with a reservoir", 1985, algorithm R).
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._seen = 0
        self._held: list[tuple[int, Example]] = []
        self._random = random.Random(SEED)

    def add(self, examples: Sequence[Example]) -> None:
        """Let examples take the place of others by chance."""
        for example in examples:
            if self._seen < self._room:
                self._held.append((self._seen, example))
            elif (place := int(self._random.random() * (self._seen + 1))) < self._room:
                self._held[place] = self._seen, example
            self._seen += 1

    def placed(self) -> list[tuple[int, Example]]:
        """The sample in the order of the file, with positions among all examples."""
        return sorted(self._held, key=lambda held: held[0])

    def examples(self) -> tuple[Example, ...]:
        """The sample in the order of the file."""
        return tuple(example for _, example in self.placed())
