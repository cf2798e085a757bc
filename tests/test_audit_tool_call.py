"""Calls of tools against the tools on offer: planted faults are told, what may be called is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from luthier.audit import audit_examples
from luthier.audit.finding import Finding
from luthier.examples import read_examples

CITY = {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1}}
WEATHER = {
    "name": "get_weather",
    "parameters": {"type": "object", "properties": CITY, "required": ["city"], "additionalProperties": False},
}
BARE = {"name": "get_time"}  # takes what it is given


def row(*calls: tuple[str, Any], tools: Any = (WEATHER, BARE)) -> dict[str, Any]:
    said = [{"type": "function", "function": {"name": n, "arguments": json.dumps(a)}} for n, a in calls]
    turns = [{"role": "user", "content": "How is it in Cork?"}, {"role": "assistant", "tool_calls": said}]
    return {"messages": turns, "tools": [{"type": "function", "function": tool} for tool in tools]}


def look(tmp_path: Path, *rows: dict[str, Any]) -> list[Finding]:
    path = tmp_path / "calls.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    audit = audit_examples({"all": read_examples(path).examples})
    assert not audit.failed
    return [finding for finding in audit.findings if finding.check == "tool_call"]


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        (
            "get_wether",
            {"city": "Cork"},
            "calls 'get_wether', which is not on offer (did you mean get_weather?)",
        ),
        ("book", {}, "calls 'book', which is not on offer (on offer: 'get_weather, get_time')"),
        ("get_weather", {}, "'get_weather': arguments: 'city' is a required property"),
        ("get_weather", {"city": 3}, "'get_weather': city: 3 is not of type 'string'"),
        ("get_weather", {"city": None}, "'get_weather': city: None is not of type 'string'"),
        ("get_weather", {"city": "Cork", "days": 0}, "'get_weather': days: 0 is less than the minimum of 1"),
        ("get_weather", {"city": "Cork", "unit": "C"}, "('unit' was unexpected)"),
    ],
)
def test_a_call_that_cannot_be_made_is_told(name: str, arguments: Any, told: str, tmp_path: Path) -> None:
    good = row(("get_weather", {"city": "Cork"}))
    (found,) = look(tmp_path, good, row((name, arguments)), good)
    assert told in found.message
    assert (found.severity, found.score, found.examples[0].line) == ("error", 1.0, 2)


def test_faults_of_several_calls_are_one_finding(tmp_path: Path) -> None:
    calls = ("a", {}), ("get_weather", {}), ("get_weather", {"city": 1, "days": 0}), ("a", {})
    (found,) = look(tmp_path, row(*calls))
    assert found.score == 4 and found.message.endswith("; …")


def test_calls_that_can_be_made_are_quiet(tmp_path: Path) -> None:
    fine = [
        row(("get_weather", {"city": "Cork", "days": 2}), ("get_time", {"anything": [1]})),
        row(("get_weather", {"city": "Cork", "days": None})),  # as Parquet writes what is left out
        row(("book", {}), tools=()),  # what is on offer stands elsewhere
        row(("odd", {"a": 1}), tools=[{"name": "odd", "parameters": {"type": "no such type"}}]),
        row(("far", {"a": 1}), tools=[{"name": "far", "parameters": {"$ref": "https://example.org/a"}}]),
    ]
    assert look(tmp_path, *fine) == []


def test_a_wrong_call_in_an_earlier_turn_is_told_too(tmp_path: Path) -> None:
    told = row(("get_weather", {}))
    told["messages"] += [{"role": "tool", "content": "4 mm"}, {"role": "assistant", "content": "It rains."}]
    (found,) = look(tmp_path, told)
    assert "required" in found.message
