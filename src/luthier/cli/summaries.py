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
    text = _write(format, result, f"luthier compare {name}", headline, gates)
    if format is Format.markdown and result["kinds"]:
        rows = [[kind["kind"], str(kind["old"]), str(kind["new"]), _p(kind["p"])] for kind in result["kinds"]]
        text += "\n" + _table(["what goes wrong", "before", "now", "p (Holm)"], rows[:10])
    return text


def say_difference(result: Mapping[str, Any]) -> str:
    """One line: how far the newer run is from the older, on how many examples."""
    if result["difference"] is None:
        return "the difference is undefined"
    bounds = "" if result["low"] is None else f" [{100 * result['low']:+.1f}, {100 * result['high']:+.1f}]"
    return (
        f"{100 * result['difference']:+.1f}{bounds} points on {result['n']} examples, p {_p(result['p'])}; "
        f"a loss of {100 * result['margin']:.1f} points is accepted"
    )


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


def _junit(title: str, gates: Sequence[tuple[str, bool | None, str]]) -> str:
    """Undecided is an error, not a skipped test: CI servers pass what is skipped."""
    failures = sum(passed is False for _, passed, _ in gates)
    errors = sum(passed is None for _, passed, _ in gates)
    counts = {"tests": str(len(gates)), "failures": str(failures), "errors": str(errors)}
    suite = ElementTree.Element("testsuite", {"name": _plain(title), **counts})
    for name, passed, reason in gates:
        case = ElementTree.SubElement(suite, "testcase", {"classname": "luthier", "name": _plain(name)})
        if passed is True:
            ElementTree.SubElement(case, "system-out").text = _plain(reason)
        else:
            kind = "failure" if passed is False else "error"
            ElementTree.SubElement(case, kind, {"message": _plain(reason)})
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
