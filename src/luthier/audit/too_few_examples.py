"""Too few examples to tell a real gain from chance."""

from __future__ import annotations

import math

from luthier.audit.finding import Finding, Material, Severity

DISCORDANT = 0.2
WARN_ABOVE, TELL_ABOVE = 0.15, 0.10
_Z_ALPHA, _Z_POWER = 1.96, 0.84


def find_too_few_examples(material: Material) -> list[Finding]:
    """At most one finding; score is the smallest gain in accuracy that the test examples can show.

    Without a `test` side, the share that will be held out is counted.
    """
    if "test" in material.sides:
        return too_few(len(material.sides["test"]), "test examples")
    return too_few(round(material.test_share * len(material.all)), "test examples after the split")


def too_few(n: int, counted: str) -> list[Finding]:
    """At most one finding for `n` examples to test with, called `counted`."""
    difference = detectable_difference(n)
    if difference <= TELL_ABOVE:
        return []
    severity: Severity = "warning" if difference > WARN_ABOVE else "info"
    needed = examples_needed(TELL_ABOVE)
    told = counted.replace("examples", "example", 1) if n == 1 else counted
    visible = f"only a difference of {difference * 100:.0f} points or more" if n >= 8 else "no difference"
    return [
        Finding(
            check="too_few_examples",
            severity=severity,
            score=difference,
            message=f"with {n} {told}, {visible} can be detected",
            fix=f"collect more: about {needed} test examples show {TELL_ABOVE * 100:.0f} points",
        )
    ]


def detectable_difference(n: int) -> float:
    """Smallest true difference between two candidates that n paired test examples show 4 times in 5.

    McNemar's test at 5% with 80% power (Connor, "Sample size for testing differences in proportions for
    the paired-sample design", 1987), where the two disagree on a share p = 0.2 of the examples:
    d = (1.96 sqrt(p) + 0.84 sqrt(p - d^2)) / sqrt(n). The formula ends at d = sqrt(p) = 0.45.
    """
    if n < 1:
        return 1.0
    low, high = 0.0, math.sqrt(DISCORDANT)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if middle * math.sqrt(n) < _spread(middle) else (low, middle)
    return high


def examples_needed(difference: float) -> int:
    """Test examples that show a difference 4 times in 5; the inverse of `detectable_difference`."""
    return math.ceil((_spread(difference) / difference) ** 2)


def _spread(difference: float) -> float:
    return _Z_ALPHA * math.sqrt(DISCORDANT) + _Z_POWER * math.sqrt(DISCORDANT - difference**2)
