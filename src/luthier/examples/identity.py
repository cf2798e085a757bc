"""Ids of examples: the same content has the same id in every file and run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from json.encoder import encode_basestring as _quote
from typing import Any

from luthier.examples.example import Message

_UNESCAPED = bytes(byte for byte in range(32, 256) if byte not in b'"\\')


def example_id(
    messages: Sequence[Message],
    rejected: Sequence[str] = (),
    wanted: bool = True,
    tools: Sequence[Mapping[str, Any]] = (),
) -> str:
    """16 hex digits of the sha256 of roles, texts, calls, tools and judgements.

    Ids of calls are drawn anew by whoever writes them, so they do not count.
    """
    if not (rejected or tools) and wanted:
        told = [b"[%b, %b]" % (_quoted(m.role), _quoted(m.content)) for m in messages if _is_plain(m)]
        if len(told) == len(messages):
            return _digest(b"[%b]" % b", ".join(told))  # what json.dumps writes, in a fifth of its time
    said: list[object] = [_said(message) for message in messages]
    if rejected or not wanted:
        said += [{"rejected": list(rejected), "wanted": wanted}]
    if tools:
        said += [{"tools": list(tools)}]
    return _digest(json.dumps(said, ensure_ascii=False).encode())


def _digest(told: bytes) -> str:
    return hashlib.sha256(told).hexdigest()[:16]


def _quoted(text: str) -> bytes:
    """A text as JSON writes it."""
    told = text.encode()
    return _quote(text).encode() if told.translate(None, _UNESCAPED) else b'"%b"' % told


def _is_plain(message: Message) -> bool:
    return not (message.tool_calls or (message.name and message.role == "tool"))


def _said(message: Message) -> list[object]:
    called = [[call.name, call.arguments] for call in message.tool_calls]
    named = [message.name] if message.role == "tool" and message.name else []
    return [message.role, message.content, *([{"calls": called, "named": named}] if called or named else [])]
