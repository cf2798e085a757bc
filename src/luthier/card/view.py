"""What the card and the report know of a run: the folder's numbers, typed, with absence kept as None.

`luthier.card.reading.read_view` fills a `View` from a run folder. Nothing is computed here that a
stage should have measured; the properties only look things up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from luthier.card.doubtful import Doubtful
from luthier.card.failing import Failures
from luthier.card.meanings import method_of
from luthier.card.numbers import Interval, bare, price, quantity
from luthier.card.origins import Origin
from luthier.card.rewarded import Rewarded
from luthier.card.slicing import Slice
from luthier.recipe.probe_options import is_share


@dataclass(frozen=True)
class Candidate:
    """A row of scores.json: one thing the user could do. Tokens and seconds are means per request."""

    name: str
    score: Interval
    n: float | None
    unscored: float | None
    prompt_tokens: float | None
    answer_tokens: float | None
    seconds: float | None
    money: float | None = None
    currency: str | None = None
    perplexity: Interval = field(default_factory=lambda: Interval(None))

    @property
    def price(self) -> str:
        """What a thousand requests cost, at the recipe's prices."""
        return price(self.money, self.currency)


@dataclass(frozen=True)
class Pair:
    """A paired comparison on the same held-out examples: the difference is a minus b.

    Attributes:
        wins: share of the examples on which a scores higher, ties halved.
    """

    a: str
    b: str
    difference: Interval
    p: float | None
    p_adjusted: float | None
    test: str
    n: float | None
    wins: Interval = field(default_factory=lambda: Interval(None, None, None))

    @property
    def wins_tell_more(self) -> bool:
        """Whether the win rate says more than the difference; of scores that are 0 or 1 it says the same."""
        known = self.wins.value is not None and self.difference.value is not None
        return known and abs(2 * self.wins.value - 1 - self.difference.value) > 1e-9  # type: ignore[operator]

    @property
    def plain_test(self) -> str:
        """The name of the test in words."""
        words = {"mcnemar_midp": "mid-p McNemar", "paired_permutation": "paired permutation"}
        return words.get(self.test, self.test)


@dataclass(frozen=True)
class Gate:
    """One condition of the verdict; `passed` None: it could not be decided. `unit` as in numbers.quantity."""

    name: str
    measured: Interval
    threshold: float | None
    passed: bool | None
    reason: str
    unit: str

    @property
    def outcome(self) -> str:
        """`passed`, `failed` or `not decided`."""
        return {True: "passed", False: "failed", None: "not decided"}[self.passed]

    @property
    def shown_threshold(self) -> str:
        """The threshold in the gate's unit, without a plus sign."""
        return "none" if self.threshold is None else quantity(self.threshold, self.unit).removeprefix("+")


@dataclass(frozen=True)
class Ability:
    """One ability of a probe: a public suite asked before and after tuning."""

    name: str
    suite: str
    n: float | None
    base: float | None
    tuned: float | None
    difference: Interval


@dataclass(frozen=True)
class Part:
    """A row of a probe's own table: something that it measured besides, in a unit of its own."""

    name: str
    source: str
    unit: str
    n: float | None
    base: float | None
    tuned: float | None
    difference: Interval

    @property
    def value_unit(self) -> str:
        """The unit of base and tuned, for numbers.quantity."""
        return value_unit(self.unit)

    @property
    def difference_unit(self) -> str:
        """The unit of the difference, for numbers.quantity."""
        return difference_unit(self.unit)


def value_unit(unit: str) -> str:
    """The unit of base and tuned, for numbers.quantity."""
    return "percent" if is_share(unit) else unit


def difference_unit(unit: str) -> str:
    """The unit of a difference and a margin, for numbers.quantity."""
    return "points" if is_share(unit) else f"difference in {unit}"


@dataclass(frozen=True)
class Flip:
    """A question whose answer changed with tuning; `kind` is `lost` or `gained`."""

    kind: str
    question: str
    options: Sequence[str]
    reference: str
    base: str
    tuned: str


@dataclass(frozen=True)
class Probe:
    """A paired measurement of something tuning may have damaged. `finding` is None when unknown."""

    name: str
    unit: str
    n: float | None
    base: float | None
    tuned: float | None
    difference: Interval
    lost: float | None
    gained: float | None
    margin: float | None
    finding: str | None
    reason: str
    accuracy: tuple[float | None, float | None]
    abilities: Sequence[Ability]
    flips: Sequence[Flip]
    examples: Sequence[Mapping[str, Any]]
    parts: Sequence[Part] = ()
    worse: str = ""
    caption: str = ""

    @property
    def is_share(self) -> bool:
        """Whether base and tuned are shares shown as percent (not losses in nats, say)."""
        return is_share(self.unit)

    @property
    def higher_is_worse(self) -> bool:
        """Which way is for the worse; losses rise, scores fall, and a probe can say otherwise."""
        return self.worse == "higher" or (not self.worse and not self.is_share)

    @property
    def is_trend(self) -> bool:
        """Whether it was measured without a margin, so that it decides nothing."""
        return self.margin is None and self.finding != "failed"

    @property
    def shown_margin(self) -> str:
        """The margin in the unit of a difference, without a sign."""
        if self.margin is None:
            return "none"
        return quantity(self.margin, self.difference_unit).removeprefix("+")

    @property
    def bare_margin(self) -> str:
        """The same without a unit's name, for a table that names the unit once."""
        return "none" if self.margin is None else bare(self.margin, self.difference_unit).removeprefix("+")

    @property
    def value_unit(self) -> str:
        """The unit of base and tuned, for numbers.quantity."""
        return value_unit(self.unit)

    @property
    def difference_unit(self) -> str:
        """The unit of the difference and the margin, for numbers.quantity."""
        return difference_unit(self.unit)

    @property
    def plain_finding(self) -> str:
        """The finding in words."""
        if self.is_trend and self.finding:
            return "a trend, without a margin"
        words = {
            "worse": "worse beyond the margin",
            "within_margin": "within the margin",
            "not_powered": "not decided: too few items to tell",
            "failed": "the probe failed to run",
        }
        return words.get(self.finding or "", self.finding or "not decided")


@dataclass(frozen=True)
class Training:
    """Curves as (step, value) pairs, and train/summary.json as it stands."""

    losses: Sequence[tuple[float, float]]
    validation: Sequence[tuple[float, float]]
    rates: Sequence[tuple[float, float]]
    summary: Mapping[str, Any]
    best_step: float | None
    seconds: float | None
    rewarded: Rewarded | None = None


@dataclass(frozen=True)
class Finding:
    """One audit finding; `places` are `file:line`."""

    check: str
    severity: str
    message: str
    fix: str
    places: Sequence[str]


@dataclass(frozen=True)
class Audit:
    """audit.json: findings, checks that ran and found nothing, and checks that did not run, with why."""

    findings: Sequence[Finding]
    clean: Sequence[str]
    failed: Sequence[tuple[str, str]]
    skipped: Sequence[tuple[str, str]]
    examples: float | None

    def by_severity(self) -> list[tuple[str, list[tuple[str, list[Finding]]]]]:
        """Findings by severity (error, warning, info, then anything else) and in it by check."""
        grouped: dict[str, dict[str, list[Finding]]] = {"error": {}, "warning": {}, "info": {}}
        for finding in self.findings:
            grouped.setdefault(finding.severity, {}).setdefault(finding.check, []).append(finding)
        return [(severity, list(checks.items())) for severity, checks in grouped.items() if checks]


@dataclass(frozen=True)
class Source:
    """A file the examples came from."""

    file: str
    sha256: str
    format: str
    examples: float | None
    left_out: float | None


@dataclass(frozen=True)
class Data:
    """data/manifest.json: sources, sides (name, number of examples, sha256) and how they were split.

    `unwanted` are the sides with more examples, whose answer should not be given, and how many.
    """

    sources: Sequence[Source]
    sides: Sequence[tuple[str, float | None, str]]
    method: str
    near_duplicate_clusters: float | None
    origins: Sequence[Origin] = ()
    unwanted: Sequence[tuple[str, float]] = ()

    def size_of(self, side: str) -> float | None:
        """Examples on one side of the split."""
        return next((n for name, n, _ in self.sides if name == side), None)


@dataclass(frozen=True)
class Answered:
    """One line of a predictions file, clipped for display."""

    answer: str
    score: float | None
    confidence: float | None
    reason: str
    fields: Mapping[str, float]


@dataclass(frozen=True)
class Field:
    """One field of a JSON answer: the reference's text, and each side's text and whether it is right."""

    name: str
    reference: str
    base: tuple[str, bool | None]
    tuned: tuple[str, bool | None]


@dataclass(frozen=True)
class Row:
    """One held-out example as two candidates answered it. `kind`: better, worse, wrong, right, unscored."""

    id: str
    where: str
    input: str
    reference: str
    base: Answered
    tuned: Answered
    kind: str
    fields: Sequence[Field]

    @property
    def difference(self) -> float | None:
        """Score of tuned minus score of base."""
        if self.base.score is None or self.tuned.score is None:
            return None
        return self.tuned.score - self.base.score


@dataclass(frozen=True)
class Comparison:
    """The embedded rows, how many of each kind the whole test set holds, and who is compared."""

    base_name: str
    tuned_name: str
    rows: Sequence[Row]
    counts: Mapping[str, int]

    @property
    def total(self) -> int:
        """Examples that both candidates answered."""
        return sum(self.counts.values())


@dataclass(frozen=True)
class Confidence:
    """Confident and wrong: `n` wrong `of` the confident, by the verdict, and the answers (worst first)."""

    candidate: str
    n: float | None
    of: int | None
    share: float | None
    threshold: float | None
    points: Sequence[tuple[float, bool]]
    examples: Sequence[tuple[str, str, str, Answered]]


@dataclass(frozen=True)
class Missing:
    """Something the record does not hold, and why that matters or where it would come from."""

    what: str
    why: str


@dataclass(frozen=True)
class View:
    """A run folder, read once. Every part that the folder lacks is None or empty."""

    name: str
    model: str
    recipe: Mapping[str, Any]
    recipe_text: str
    environment: Mapping[str, Any]
    decision: str | None
    headline: str
    recommended: str | None
    reasons: Sequence[str]
    gates: Sequence[Gate]
    metric: str
    grader: str
    candidates: Sequence[Candidate]
    pairs: Sequence[Pair]
    detectable: float | None
    level: float | None
    probes: Mapping[str, Probe]
    training: Training | None
    confidence: Confidence | None
    comparison: Comparison | None
    audit: Audit | None
    data: Data | None
    missing: Sequence[Missing] = field(default=())
    failures: Failures | None = None
    trust: Sequence[tuple[str, str]] = field(default=())
    curve: Sequence[tuple[str, str]] = field(default=())
    slices: Sequence[Slice] = field(default=())
    review: Sequence[tuple[str, str]] = field(default=())
    doubtful: Doubtful | None = None

    @property
    def method(self) -> str:
        """What the recipe trains by: `sft`, `dpo`, ..."""
        return method_of(self.recipe)

    def candidate(self, name: str | None) -> Candidate | None:
        """The candidate of that name, where it was measured."""
        return next((c for c in self.candidates if c.name == name), None)

    def pair(self, a: str, b: str) -> Pair | None:
        """The comparison a minus b, turned around where it was recorded as b minus a."""
        for pair in self.pairs:
            if (pair.a, pair.b) == (a, b):
                return pair
            if (pair.a, pair.b) == (b, a):
                return Pair(a, b, pair.difference.shifted(-1), pair.p, pair.p_adjusted, pair.test, pair.n)
        return None

    @property
    def alternative(self) -> Candidate | None:
        """The best-scoring candidate that is not `tuned`."""
        scored = [c for c in self.candidates if c.name != "tuned" and c.score.value is not None]
        return max(scored, key=lambda c: c.score.value or 0.0, default=None)

    @property
    def gain(self) -> Pair | None:
        """`tuned` against the best alternative, where both were measured and compared."""
        return self.pair("tuned", self.alternative.name) if self.alternative else None

    @property
    def decided(self) -> str:
        """The decision in plain words."""
        words = {
            "ship": "Ship the tuned model.",
            "do_not_ship": "Do not ship the tuned model.",
            "inconclusive": "Not decided yet.",
        }
        return words.get(self.decision or "", "No verdict in this record.")
