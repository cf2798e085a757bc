"""Telling what was sent to an API from what an application says: wrappers, bodies, turns, JSON texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from luthier.examples.strict_json import parse_json

Values = Mapping[str, Any]
_OBJECTS = ("chat.completion", "text_completion", "response", "chat.completion.chunk")
_BODIES = ("inputBodyJson", "outputBodyJson", "body")  # the first two are those of Bedrock's logs
_ROLES = ("system", "developer", "user", "assistant", "tool", "function")


def unwrap(value: Any, codes: list[Any]) -> Any:
    """A body without what carries it over HTTP."""
    value = read_wire(value)
    while isinstance(value, Mapping) and _is_carried(value):
        codes += [value[key] for key in ("status_code", "status") if key in value]
        value = read_wire(value[next(key for key in _BODIES if key in value)])
    return value


def read_wire(value: Any) -> Any:
    """A JSON text as what it says where that is a request, a response or turns; other texts stay texts."""
    if not isinstance(value, str) or value.lstrip()[:1] not in ("{", "["):
        return value
    try:
        parsed = parse_json(value)
    except ValueError:
        return value
    return parsed if is_body(parsed) or is_wire(parsed) else value


def read_object(value: Any) -> Values:
    """An object, or the object that a JSON text is; else an empty one."""
    if isinstance(value, str) and value.lstrip()[:1] == "{":
        try:
            value = parse_json(value)
        except ValueError:
            return {}
    return value if isinstance(value, Mapping) else {}


def _is_carried(value: Values) -> bool:
    """Whether `body` is what was sent, and not a word of the application's own, as in a mail."""
    http = ("status_code", "status", "url", "method", "headers", "custom_id", "request_id")
    if any(isinstance(value.get(key), Mapping) for key in _BODIES[:2]):
        return True
    return "body" in value and (any(key in value for key in http) or is_body(read_wire(value["body"])))


def is_body(value: Any) -> bool:
    """Whether an object is a request or a response, and no answer that happens to be JSON."""
    if not isinstance(value, Mapping):
        return False
    if is_wire(value.get("messages")) or is_wire(value.get("choices")) or _is_carried(value):
        return True
    if value.get("object") in _OBJECTS or value.get("type") in ("message", "error"):
        return True
    if value.get("role") in _ROLES and ("content" in value or "tool_calls" in value):
        return True
    return _is_of_provider(value) or any(
        marks <= value.keys() for marks in ({"finish_reason"}, {"model", "input"}, {"model", "prompt"})
    )


def _is_of_provider(value: Values) -> bool:
    """Whether an object has the words of Gemini, Cohere or Ollama."""
    finished = isinstance(value.get("done"), bool) and "response" in value
    return has_parts(value.get("contents")) or is_cohere(value) or has_candidates(value) or finished


def is_wire(value: Any) -> bool:
    """Whether a list holds turns, items, choices or chunks."""
    marks = ("role", "from", "choices", "type", "message", "delta", "finish_reason")
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(item, Mapping) and any(mark in item for mark in marks) for item in value)
    )


def has_parts(value: Any) -> bool:
    """Whether a list holds Gemini's turns."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(t, Mapping) and "parts" in t for t in value)
    )


def is_cohere(value: Values) -> bool:
    """Whether an object is a request of Cohere's first chat API."""
    history = value.get("chat_history", False)
    return isinstance(value.get("message"), str) and (history is None or isinstance(history, list))


def has_candidates(value: Values) -> bool:
    """Whether an object is an answer of Gemini."""
    marks, listed = ("content", "finishReason", "finish_reason"), value.get("candidates")
    return isinstance(listed, list) and any(
        isinstance(item, Mapping) and any(mark in item for mark in marks) for item in listed
    )
