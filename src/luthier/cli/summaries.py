"""Verdicts and comparisons for other programs: Markdown for a pull request, JUnit XML for a CI server."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any
from xml.etree import ElementTree

from luthier.errors import RecipeError


class Format(StrEnum):
    """How a result is written."""

    text = "text"
    markdown = "markdown"
    junit = "junit"
    json = "json"


WORDS = {
    "ship": "Ship",
    "do_not_ship": "Do not ship",
    "inconclusive": "Inconclusive",
    "better": "Better",
    "no_worse": "No worse",
    "worse": "Worse",
    "undecided": "Undecided",
}
MARKS = {True: "passed", False: "failed", None: "undecided"}
KIND_HEAD = ("what goes wrong", "before", "now", "mended", "points", "p (Holm)")
SLICE_HEAD = ("slice", "n", "before", "now", "points", "p (Holm)")
KINDS_SHOWN = 12
_CONTROL = dict.fromkeys([*range(9), 11, 12, *range(14, 32), 0xFFFE, 0xFFFF], "\ufffd")


def write_verdict(verdict: Mapping[str, Any], run: str, format: Format) -> str:
    """A verdict in one of the formats that are not for the screen."""
    gates = [(gate["name"], gate["passed"], gate["reason"]) for gate in verdict["gates"]] or [
        ("verdict", None, verdict["headline"])
    ]
    return _write(format, verdict, f"luthier verdict {run}", verdict["headline"], gates)


def write_comparison(result: Mapping[str, Any], format: Format) -> str:
    """A comparison of two runs in one of the formats that are not for the screen."""
    name = f"{result['new']['run']} against {result['old']['run']}"
    passed = {"better": True, "no_worse": True, "worse": False}.get(result["decision"])
    gates = [(result["metric"], passed, say_difference(result))]
    headline = f"{WORDS[result['decision']]}: {say_difference(result)}"
    title = f"luthier compare {name}"
    if format is Format.junit:
        return _junit(title, gates, _parts(result))
    text = _write(format, result, title, headline, gates)
    if format is Format.markdown:
        text += "".join(f"\n{line}\n" for line in map(_cell, [say_wins(result), *say_moved(result)]))
        if result["kinds"]:
            text += "\n" + _table(KIND_HEAD, kind_rows(result))
        if result["slices"]:
            text += "\n" + _table(SLICE_HEAD, slice_rows(result))
    return text


def say_moved(result: Mapping[str, Any]) -> list[str]:
    """What was mended and what got worse for sure, a line each; one line where neither was."""
    lines = []
    for word, changed in (("Mended", "better"), ("Worse", "worse")):
        found = [
            f"{kind['kind']} ({kind['old']} then, {kind['new']} now)"
            for kind in _of(result, "kinds", changed)
        ]
        found += [
            f"{row['field']} {row['value']} ({row['old']:.1%} then, {row['new']:.1%} now)"
            for row in _of(result, "slices", changed)
        ]
        lines += [f"{word}: {'; '.join(found)}."] if found else []
    return lines or ["No kind of failure and no slice changed for sure."]


def _of(result: Mapping[str, Any], what: str, changed: str) -> list[Mapping[str, Any]]:
    return [row for row in result[what] if row["changed"] == changed]


def kind_rows(result: Mapping[str, Any]) -> list[list[str]]:
    """A line per kind of failure, under `KIND_HEAD`."""
    return [
        [kind["kind"], str(kind["old"]), str(kind["new"]), str(kind["mended"]), _points(kind), _p(kind["p"])]
        for kind in result["kinds"][:KINDS_SHOWN]
    ]


def slice_rows(result: Mapping[str, Any]) -> list[list[str]]:
    """A line per slice, under `SLICE_HEAD`."""
    return [
        [
            f"{row['field']}: {row['value']}",
            str(row["n"]),
            f"{row['old']:.1%}",
            f"{row['new']:.1%}",
            _points(row),
            _p(row["p"]),
        ]
        for row in result["slices"]
    ]


def _parts(result: Mapping[str, Any]) -> list[tuple[str, str | None, str]]:
    """Name, change and numbers of every kind of failure and slice."""
    kinds = [
        (
            f"failures: {kind['kind']}",
            kind["changed"],
            f"{kind['old']} then, {kind['new']} now: {_points(kind)} points of all, p {_p(kind['p'])}",
        )
        for kind in result["kinds"][:KINDS_SHOWN]
    ]
    slices = [
        (
            f"slice {row['field']}: {row['value']}",
            row["changed"],
            f"{row['old']:.1%} then, {row['new']:.1%} now: {_points(row)} points, p {_p(row['p'])}",
        )
        for row in result["slices"]
    ]
    return kinds + slices


def _points(row: Mapping[str, Any]) -> str:
    if row["difference"] is None:
        return "undefined"
    bounds = "" if row["low"] is None else f" [{100 * row['low']:+.1f}, {100 * row['high']:+.1f}]"
    return f"{100 * row['difference']:+.1f}{bounds}"


def say_difference(result: Mapping[str, Any]) -> str:
    """One line: how far the newer run is from the older, on how many examples."""
    if result["difference"] is None:
        return "the difference is undefined"
    return (
        f"{_points(result)} points on {result['n']} examples, p {_p(result['p'])}; "
        f"a loss of {100 * result['margin']:.1f} points is accepted"
    )


def say_wins(result: Mapping[str, Any]) -> str:
    """One line: on how many examples the newer run does better, and how often that makes it win."""
    wins = result["wins"]
    told = f"{wins['better']} answers became better, {wins['worse']} worse"
    if wins["low"] is None:
        return told + "."
    bounds = f"[{100 * wins['low']:.1f}, {100 * wins['high']:.1f}]"
    return f"{told}: the new one wins {wins['rate']:.1%} {bounds}, a tie being half a win."


def _write(
    format: Format,
    whole: Mapping[str, Any],
    title: str,
    headline: str,
    gates: Sequence[tuple[str, bool | None, str]],
) -> str:
    if format is Format.json:
        return json.dumps(whole, indent=1, ensure_ascii=False)
    if format is Format.junit:
        return _junit(title, gates)
    if format is Format.markdown:
        rows = [[name, MARKS[passed], reason] for name, passed, reason in gates]
        return f"## {_cell(headline)}\n\n" + _table(["gate", "", "why"], rows)
    raise RecipeError(f"{format} is for the screen", fix="use markdown, junit or json")


def _junit(
    title: str,
    gates: Sequence[tuple[str, bool | None, str]],
    parts: Sequence[tuple[str, str | None, str]] = (),
) -> str:
    """Undecided is an error, not a skipped test: CI servers pass what is skipped.

    Parts decide nothing, so one that got worse is skipped with its numbers.
    """
    failures = sum(passed is False for _, passed, _ in gates)
    errors = sum(passed is None for _, passed, _ in gates)
    skipped = sum(changed == "worse" for _, changed, _ in parts)
    counts = {"tests": str(len(gates) + len(parts)), "failures": str(failures), "errors": str(errors)}
    counts |= {"skipped": str(skipped)} if skipped else {}
    suite = ElementTree.Element("testsuite", {"name": _plain(title), **counts})
    for name, passed, reason in gates:
        case = ElementTree.SubElement(suite, "testcase", {"classname": "luthier", "name": _plain(name)})
        if passed is True:
            ElementTree.SubElement(case, "system-out").text = _plain(reason)
        else:
            kind = "failure" if passed is False else "error"
            ElementTree.SubElement(case, kind, {"message": _plain(reason)})
    for name, changed, told in parts:
        case = ElementTree.SubElement(suite, "testcase", {"classname": "luthier.parts", "name": _plain(name)})
        if changed == "worse":
            ElementTree.SubElement(case, "skipped", {"message": _plain(f"worse: {told}")})
        else:
            ElementTree.SubElement(case, "system-out").text = _plain(told)
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _plain(text: str) -> str:
    """Without the characters that XML cannot hold."""
    return text.translate(_CONTROL).encode("utf-8", "replace").decode("utf-8")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines) + "\n"


def _cell(text: str) -> str:
    """Text of the user's data in a cell: no markup of its own."""
    escaped = text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "\\`")
    return " ".join(escaped.split())


def _p(value: float | None) -> str:
    return "undefined" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"
