"""Where the recommended candidate still fails, for the card and the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from luthier.card.numbers import finite


@dataclass(frozen=True)
class Case:
    """One wrong answer."""

    where: str
    input: str
    reference: str
    answer: str


@dataclass(frozen=True)
class Kind:
    """Wrong answers that fail alike; `field` is None where the whole answer is wrong."""

    kind: str
    field: str | None
    n: int
    share: float | None
    collect: str
    cases: Sequence[Case]


@dataclass(frozen=True)
class Word:
    """A word whose requests fail more often than the rest."""

    word: str
    n: int
    wrong: int
    elsewhere: float | None


@dataclass(frozen=True)
class Failures:
    """The wrong answers of one candidate by kind, largest first."""

    candidate: str
    n: int
    wrong: int
    kinds: Sequence[Kind]
    words: Sequence[Word]

    @property
    def fields(self) -> list[tuple[str, int]]:
        """Kinds without the users' values: each field with the size of its largest kind."""
        largest: dict[str, int] = {}
        for kind in self.kinds:
            name = kind.field or "the whole answer"
            largest[name] = max(largest.get(name, 0), kind.n)
        return sorted(largest.items(), key=lambda item: -item[1])


def read_failures(raw: Any, recommended: str | None) -> Failures | None:
    """The failures of the recommended candidate, or of tuned; None where the record has neither."""
    if not isinstance(raw, Mapping):
        return None
    name = next((name for name in (recommended, "tuned") if isinstance(raw.get(name), Mapping)), None)
    if name is None:
        return None
    found = raw[name]
    return Failures(
        candidate=name,
        n=_whole(found.get("n")),
        wrong=_whole(found.get("wrong")),
        kinds=[_kind(kind) for kind in _mappings(found.get("kinds"))],
        words=[
            Word(_text(w.get("word")), _whole(w.get("n")), _whole(w.get("wrong")), finite(w.get("elsewhere")))
            for w in _mappings(found.get("words"))
        ],
    )


def _kind(raw: Mapping[str, Any]) -> Kind:
    return Kind(
        kind=_text(raw.get("kind")),
        field=_text(raw.get("field")) or None,
        n=_whole(raw.get("n")),
        share=finite(raw.get("share")),
        collect=_text(raw.get("collect")),
        cases=[
            Case(
                where=f"{case['file']}:{case.get('line')}" if case.get("file") else "",
                input=_text(case.get("input")),
                reference=_text(case.get("reference")),
                answer=_text(case.get("answer")),
            )
            for case in _mappings(raw.get("cases"))
        ],
    )


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    return [entry for entry in value if isinstance(entry, Mapping)] if isinstance(value, list) else []


def _whole(value: Any) -> int:
    return int(finite(value) or 0)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
