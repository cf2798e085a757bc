"""Calls of tools: one immutable form for every spelling, and the text that graders compare.

The text of a call is `{"name": …, "arguments": {…}}` on one line, that of several `{"calls": […]}` with a
list of these, so that graders of JSON objects read either. Arguments are in the order of the alphabet: two
texts are the same when they call the same. Ids are left out, since they are drawn anew with every call. A
`ToolCall` keeps the order of its arguments, which a model learns to write.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ToolCall:
    """One call of a tool.

    Attributes:
        name: of the tool.
        arguments: a JSON object as `write_json` spells it.
        id: what the tool's result names; empty where the file gave none.
    """

    name: str
    arguments: str = "{}"
    id: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The call as chat templates expect it: the arguments are an object."""
        call = {"name": self.name, "arguments": json.loads(self.arguments)}
        return {**({"id": self.id} if self.id else {}), "type": "function", "function": call}

    def as_row(self) -> dict[str, Any]:
        """The call as OpenAI's files have it: the arguments are a JSON text."""
        call = {"name": self.name, "arguments": self.arguments}
        return {**({"id": self.id} if self.id else {}), "type": "function", "function": call}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> ToolCall:
        """The inverse of `as_row` and of `as_dict`."""
        call = row["function"]
        arguments = call["arguments"]
        if not isinstance(arguments, str):
            arguments = write_json(arguments)
        return cls(call["name"], arguments, row.get("id", ""))


def link(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Messages as dictionaries in which every call has an id, and every result that id and the tool's name.

    What is told stays as it is. Ids are `call00000`, `call00001`, ... of the conversation's calls: nine
    letters and digits, which every template takes. A result without one belongs to the first call that waits.
    """
    linked: list[dict[str, Any]] = []
    waiting: dict[str, str] = {}
    count = 0
    for message in messages:
        told = dict(message)
        if told.get("tool_calls"):
            calls = []
            for call in told["tool_calls"]:
                calls.append({**call, "id": call.get("id") or f"call{count:05d}"})
                waiting[calls[-1]["id"]] = call["function"]["name"]
                count += 1
            told["tool_calls"] = calls
        elif told["role"] == "tool":
            answered = told.get("tool_call_id") or next(
                (own for own, name in waiting.items() if told.get("name") in (None, name)), ""
            )
            name = told.get("name") or waiting.get(answered, "")
            told |= {key: value for key, value in (("tool_call_id", answered), ("name", name)) if value}
            waiting.pop(answered, None)
        linked.append(told)
    return linked


def renumber(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The messages with ids of `link` in place of their own."""
    own: dict[str, str] = {}
    count = 0
    renamed = []
    for message in messages:
        told = dict(message)
        if told.get("tool_calls"):
            for call in told["tool_calls"]:
                own[call["id"]] = f"call{count:05d}"
                count += 1
            told["tool_calls"] = [{**call, "id": own[call["id"]]} for call in told["tool_calls"]]
        if told.get("tool_call_id"):
            told["tool_call_id"] = own.get(told["tool_call_id"], told["tool_call_id"])
        renamed.append(told)
    return renamed


def write_json(value: Any) -> str:
    """JSON on one line, keys in their order, letters as they are."""
    return json.dumps(value, ensure_ascii=False)


def write_calls(calls: Sequence[ToolCall]) -> str:
    """Calls as the text that stands for them: one JSON object."""
    told = [f'{{"name": {write_json(call.name)}, "arguments": {_sorted(call.arguments)}}}' for call in calls]
    return told[0] if len(told) == 1 else f'{{"calls": [{", ".join(told)}]}}'


def _sorted(arguments: str) -> str:
    return json.dumps(json.loads(arguments), ensure_ascii=False, sort_keys=True)


def write_answer(content: str, calls: Sequence[ToolCall]) -> str:
    """What an answer says: its text, and under it on a line of its own what it calls."""
    if not calls:
        return content
    return f"{content}\n{write_calls(calls)}" if content.strip() else write_calls(calls)


def read_answer(text: str) -> tuple[str, tuple[ToolCall, ...]]:
    """The inverse of `write_answer`, but for ids; a text whose last line is no such call is content alone."""
    content, line_break, last = text.rpartition("\n")
    if line_break and not content.strip():
        return text, ()
    try:
        found = json.loads(last) if last[:1] == "{" else None
    except (ValueError, RecursionError):
        return text, ()
    listed = found.get("calls") if isinstance(found, dict) else None
    calls = [_read_call(item) for item in (listed if isinstance(listed, list) else [found])]
    known = tuple(call for call in calls if call is not None)
    if not known or len(known) < len(calls) or write_calls(known) != last:
        return text, ()
    return content, known


def _read_call(value: Any) -> ToolCall | None:
    if not isinstance(value, dict) or list(value) != ["name", "arguments"]:
        return None
    name, arguments = value["name"], value["arguments"]
    if not isinstance(name, str) or not isinstance(arguments, dict):
        return None
    return ToolCall(name, write_json(arguments))
