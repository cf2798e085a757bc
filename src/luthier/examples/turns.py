"""Turns as files write them: a text, a message, or a list of messages. Errors have no place yet."""

from __future__ import annotations

import json
from typing import Any

from luthier.errors import DataError
from luthier.examples.example import Message

ROLES = {"developer": "system", "system": "system", "user": "user", "assistant": "assistant", "tool": "tool"}


def read_text(value: Any, name: str) -> str:
    """A value as text: JSON for lists, objects, numbers and booleans.

    Raises:
        DataError: it is null.
    """
    if isinstance(value, str):
        return value
    if value is None:
        raise DataError(f"{name} is null, expected text", fix=f"write {name}, or leave the example out")
    return json.dumps(value, ensure_ascii=False)


def read_content(value: Any, name: str) -> str:
    """The text of a message: a string, or OpenAI's list of text parts.

    Raises:
        DataError: it is neither.
    """
    if isinstance(value, str):
        return value
    parts = value if isinstance(value, list) else [value]
    if not all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in parts):
        raise DataError(
            f"{name} has no text content", fix="Luthier reads text only: no images, no bare tool calls"
        )
    return "".join(part["text"] for part in parts)


def read_chat(value: Any, name: str) -> list[Message]:
    """Messages from a list of them, or from a single one.

    Raises:
        DataError: it is no such list, or one of them cannot be read.
    """
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        raise DataError(f"{name} is not a list", fix=f'write "{name}": [{{"role": …, "content": …}}, …]')
    return [read_message(item, f"{name}[{number}]") for number, item in enumerate(value)]


def read_message(item: Any, name: str) -> Message:
    """One message.

    Raises:
        DataError: it is none, has an unknown role or weight, calls a tool, or is not text.
    """
    if not isinstance(item, dict) or "role" not in item:
        raise DataError(f"{name} is not a message", fix='write {"role": …, "content": …}')
    if item["role"] not in ROLES:
        raise DataError(f"{name} has role {item['role']!r}", fix=f"use one of {', '.join(ROLES)}")
    if item.get("tool_calls") or item.get("function_call"):
        raise DataError(f"{name} calls a tool", fix="Luthier trains on text answers; leave the example out")
    weight = item.get("weight")
    if weight not in (None, 0, 1):
        raise DataError(f"{name} has weight {weight!r}", fix="use 0 (context only) or 1 (train on it)")
    return Message(
        ROLES[item["role"]], read_content(item.get("content"), name), 1 if weight is None else int(weight)
    )
