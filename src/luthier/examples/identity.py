"""Ids of examples: the same content has the same id in every file and run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from json.encoder import encode_basestring as _quote
from typing import Any

from luthier.examples.example import Message


def example_id(
    messages: Sequence[Message],
    rejected: Sequence[str] = (),
    wanted: bool = True,
    tools: Sequence[Mapping[str, Any]] = (),
) -> str:
    """16 hex digits of the sha256 of roles, texts, calls, tools and judgements.

    Ids of calls are drawn anew by whoever writes them, so they do not count.
    """
    if not (rejected or tools) and wanted and all(map(_is_plain, messages)):
        told = ", ".join([f"[{_quote(m.role)}, {_quote(m.content)}]" for m in messages])
        return _digest(f"[{told}]")  # what json.dumps writes, in a third of its time
    said: list[object] = [_said(message) for message in messages]
    if rejected or not wanted:
        said += [{"rejected": list(rejected), "wanted": wanted}]
    if tools:
        said += [{"tools": list(tools)}]
    return _digest(json.dumps(said, ensure_ascii=False))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _is_plain(message: Message) -> bool:
    return not (message.tool_calls or (message.name and message.role == "tool"))


def _said(message: Message) -> list[object]:
    called = [[call.name, call.arguments] for call in message.tool_calls]
    named = [message.name] if message.role == "tool" and message.name else []
    return [message.role, message.content, *([{"calls": called, "named": named}] if called or named else [])]
