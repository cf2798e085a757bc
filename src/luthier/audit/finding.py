"""What a check is given and what it returns."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from luthier.examples.answers import AnswerKind
from luthier.examples.example import Example
from luthier.examples.groups import Cluster
from luthier.examples.wording import normalise, request_text

if TYPE_CHECKING:
    from luthier.audit.suite_index import SuiteIndex
    from luthier.examples.duplicates import Alike

Severity = Literal["error", "warning", "info"]


class NotApplicableError(Exception):
    """A check has nothing to look at here, such as leakage between sides when there is one side."""


@dataclass(frozen=True)
class Finding:
    """One fault. Checks of single examples give one finding each, so their count means something.

    Attributes:
        check: name of the check.
        severity: `error` spoils training or its measurement, `warning` may, `info` is worth knowing.
        score: how strong the evidence is or how large the fault; its meaning is the check's. None: no scale.
        message: what was found.
        fix: what to do about it.
        examples: where, in reading order; empty when it concerns all of them.
        total: how many there are, where `examples` are the first ones only.
    """

    check: str
    severity: Severity
    score: float | None
    message: str
    fix: str
    examples: tuple[Example, ...] = ()
    total: int | None = None

    def as_json(self) -> dict[str, Any]:
        """The finding as an item of `audit.json`."""
        more = {} if self.total is None else {"total": self.total}
        return {
            "check": self.check,
            "severity": self.severity,
            "score": None if self.score is None else round(self.score, 4),
            "message": self.message,
            "fix": self.fix,
            "examples": [{"file": e.file, "line": e.line} for e in self.examples],
            **more,
        }


@dataclass(frozen=True, eq=False)
class Material:
    """Everything that checks look at; what several of them need is computed once.

    Attributes:
        sides: examples by side (`train`, `validation`, `test`), or all of them under `all`.
        system: the recipe's system prompt, given to examples without their own.
        tokens: counts an example's tokens with the chosen model's template; None when no model is chosen.
        special_tokens: the tokenizer's, as text.
        max_tokens: longest example that is trained on whole.
        answer_kind: `label`, `json` or `text`.
        test_share: share that will be held out when there is no `test` side yet.
        schema: the JSON Schema that answers must be valid under; None where nobody gave one.
        labels: what an answer may be, to the letter; empty where nobody said.
        suites: the public suites, to look for in what is trained on; None where they are not at hand.
    """

    sides: Mapping[str, Sequence[Example]]
    system: str | None
    tokens: Callable[[Example], int] | None
    special_tokens: Sequence[str]
    max_tokens: int | None
    answer_kind: AnswerKind
    test_share: float = 0.3
    schema: Mapping[str, Any] | None = None
    labels: Sequence[str] = ()
    suites: SuiteIndex | None = None

    @functools.cached_property
    def all(self) -> tuple[Example, ...]:
        """Every example, side after side."""
        return tuple(example for side in self.sides.values() for example in side)

    @functools.cached_property
    def side_of(self) -> tuple[str, ...]:
        """The side of each example of `all`."""
        return tuple(name for name, side in self.sides.items() for _ in side)

    @functools.cached_property
    def texts(self) -> tuple[Sequence[str], ...]:
        """All that is written in each example of `all`."""
        return tuple(example.texts for example in self.all)

    @functools.cached_property
    def joined_texts(self) -> tuple[str, ...]:
        """All that is written in each example of `all`, in one text: to be asked for what is rare."""
        return tuple(map("\n".join, self.texts))

    @functools.cached_property
    def requests(self) -> tuple[str, ...]:
        """Normalised request of each example of `all`."""
        return tuple(map(request_text, self.all))

    @functools.cached_property
    def answers(self) -> tuple[str, ...]:
        """Normalised answer of each example of `all`."""
        return tuple(normalise(example.answer) for example in self.all)

    @functools.cached_property
    def same_requests(self) -> tuple[Cluster, ...]:
        """Examples with the same request after normalisation, at least two together."""
        found: dict[str, list[int]] = {}
        for position, request in enumerate(self.requests):
            found.setdefault(request, []).append(position)
        return tuple(Cluster(tuple(members), 1.0) for members in found.values() if len(members) > 1)

    @functools.cached_property
    def alike(self) -> Alike:
        """Clusters of requests that look alike, and of those that say the same; equal ones are in both."""
        from luthier.examples.duplicates import find_alike

        return find_alike(self.requests)

    @property
    def like_requests(self) -> tuple[Cluster, ...]:
        """Clusters of near-duplicates, those with the same request included."""
        return self.alike.near


def shown(text: str, limit: int = 60) -> str:
    """A text on one line and in quotes, cut to `limit` characters."""
    line = " ".join(text.split())
    return repr(line if len(line) <= limit else line[: limit - 1] + "…")


def counted(n: int, noun: str) -> str:
    """`1 example`, `2 examples`."""
    plural = noun[:-1] + "ies" if noun.endswith("y") else noun + ("es" if noun.endswith("s") else "s")
    return f"{n} {noun if n == 1 else plural}"
