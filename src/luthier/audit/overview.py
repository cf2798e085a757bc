"""What an audit looked at, and what its number of examples can show: told beside the findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from luthier.audit.finding import Finding
from luthier.audit.too_few_examples import detectable_difference
from luthier.examples.example import Example
from luthier.examples.row import Problem

PROBLEMS_SHOWN = 1000  # rows that could not be read, with a finding each; all are counted
LEAST_TESTED = 8  # below, no true difference shows


def overview(
    sides: Mapping[str, Sequence[Example]],
    *,
    test_share: float,
    read: Sequence[Mapping[str, Any]],
    examples: int | None = None,
) -> dict[str, Any]:
    """Further keys of `audit.json`: `read`, `sides` and `power`.

    Args:
        sides: as the audit was given them.
        test_share: share that will be held out when there is no `test` side yet.
        read: for each file `file`, `format`, `examples`, `left_out`, and perhaps `described` in words.
        examples: how many there are of the one side, where it holds a sample of them.
    """
    counts = {side: len(own) for side, own in sides.items()}
    asked = [e for own in sides.values() for e in own if e.wanted and e.request]
    if "test" in sides:
        tested = sum(e.wanted and bool(e.request) for e in sides["test"])
    else:
        tested = round(test_share * len(asked))
        if examples is not None and len(counts) == 1:
            (side,) = sides
            tested = round(tested * examples / max(1, counts[side]))
            counts[side] = examples
    return {
        "read": [{"described": file["format"], **file} for file in read],
        "sides": counts,
        "power": power(tested, is_split="test" in sides) if asked else None,
    }


def power(tested: int, *, is_split: bool) -> dict[str, Any]:
    """What `tested` held-out examples can show; `is_split`: whether they are held out already."""
    found = detectable_difference(tested) if tested >= LEAST_TESTED else None
    return {
        "test_examples": tested,
        "after_split": not is_split,
        "detectable_difference": None if found is None else round(found, 4),
    }


def say_power(told: Mapping[str, Any] | None) -> str:
    """`with 40 test examples you can detect a 22-point difference`; empty where nothing is asked."""
    if told is None:
        return ""
    n, found = told["test_examples"], told["detectable_difference"]
    which = f"{n:,} test example{'' if n == 1 else 's'}" + (" after the split" if told["after_split"] else "")
    if found is None:
        return f"with {which} you can detect no difference at all"
    points = f"{100 * found:.1f}" if found < 0.0995 else f"{100 * found:.0f}"
    return f"with {which} you can detect a {points}-point difference"


def find_unreadable(problems: Sequence[Problem]) -> tuple[Finding, ...]:
    """One finding per row that could not be read: nothing that is left out goes unsaid. There is no score."""
    findings = []
    for problem in problems:
        file, _, line = problem.where.rpartition(":")
        place = (file, int(line)) if file and line.isdigit() else (problem.where, 1)
        nothing = Example("", (), *place)
        fix = problem.fix or "correct the row, or leave it out"
        findings.append(Finding("unreadable", "error", None, problem.message, fix, (nothing,)))
    return tuple(findings)


def add_findings(told: Mapping[str, Any], unreadable: Sequence[Finding], count: int) -> dict[str, Any]:
    """The content of `audit.json` with the rows that could not be read, before the others.

    Args:
        unreadable: the first of them.
        count: how many there are.
    """
    return {
        **told,
        "findings": [*(finding.as_json() for finding in unreadable), *told["findings"]],
        "summary": {"unreadable": count, **told["summary"]},
        "severities": {**told["severities"], "error": told["severities"]["error"] + count},
    }
