"""Gemini's and Vertex AI's conversations: `contents` made of `parts`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from luthier.errors import DataError
from luthier.examples.example import Message
from luthier.examples.tool_calls import ToolCall
from luthier.examples.tool_rows import read_calls
from luthier.examples.turns import read_cell, read_text

Values = Mapping[str, Any]
ROLES = {
    **{"user": "user", "model": "assistant", "assistant": "assistant", "system": "system"},
    **{"function": "tool", "tool": "tool"},
}
SYSTEM = ("systeminstruction", "system_instruction")


def from_contents(row: Values) -> list[Message]:
    """Turns of `contents` behind the `systemInstruction`.

    Raises:
        DataError: a turn has an unknown role, or a part is neither text nor a call nor its response.
    """
    turns = read_cell(row["contents"])
    if not isinstance(turns, list):
        raise DataError("contents is not a list", fix='write [{"role": "user", "parts": [{"text": …}]}, …]')
    messages = []
    system = next((read_cell(row[key]) for key in SYSTEM if row.get(key)), None)
    if system is not None:
        spelled = system if isinstance(system, dict) else {"parts": [{"text": read_text(system, SYSTEM[0])}]}
        messages += _turn({**spelled, "role": "system"}, "systemInstruction")
    for number, turn in enumerate(turns):
        messages += _turn(turn, f"contents[{number}]")
    return messages


def _turn(turn: Any, name: str) -> list[Message]:
    if not isinstance(turn, dict) or not isinstance(turn.get("parts"), list | dict):
        raise DataError(f"{name} is not a turn", fix='write {"role": "user", "parts": [{"text": …}]}')
    role = ROLES.get(turn.get("role", "user"))
    if role is None:
        raise DataError(f"{name} has role {turn['role']!r}", fix=f"use one of {', '.join(ROLES)}")
    parts = turn["parts"] if isinstance(turn["parts"], list) else [turn["parts"]]
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[ToolCall] = []
    results: list[Message] = []
    for number, part in enumerate(parts):
        place = f"{name}.parts[{number}]"
        call, result = _either(part, "functionCall"), _either(part, "functionResponse")
        if call is not None:
            calls += read_calls(call, place)
        elif result is not None:
            results.append(_result(result, place))
        elif isinstance(part, dict) and isinstance(part.get("text"), str):
            (thoughts if part.get("thought") is True else texts).append(part["text"])
        else:
            raise DataError(
                f"{place} has no text", fix="Luthier reads text only: no images, no sound, no files"
            )
    text = "".join(texts)
    if thoughts:
        text = f"<think>\n{''.join(thoughts).strip()}\n</think>\n\n{text}"
    said = text or not results
    spoken = Message("user" if role == "tool" else role, text, tool_calls=tuple(calls))
    return [*results, *([spoken] if said else [])]


def _either(part: Any, name: str) -> Any:
    """The value under a name in camel case or in snake case."""
    snake = name.replace("C", "_c").replace("R", "_r")
    return part.get(name, part.get(snake)) if isinstance(part, dict) else None


def _result(value: Any, name: str) -> Message:
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise DataError(f"{name} is not the response of a function", fix='write {"name": …, "response": …}')
    own = value.get("id")
    text = read_text(value.get("response"), f"{name}.response")
    return Message("tool", text, name=value["name"], tool_call_id=own if isinstance(own, str) else "")
