"""Turns as logs hold them, made into OpenAI's chat messages.

Read are chat completions, items of the Responses API, and messages of content blocks (`tool_use`,
`tool_result`). What a model only thought is left out: it is not what the user was told.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from luthier.collect.tally import NotTakenError
from luthier.examples.turns import ROLES

Turn = dict[str, Any]
FOREIGN = "holds an image, a sound or a file"
UNREADABLE = "holds a turn that is no message"
BUILT_IN = "calls a tool of the provider's own, whose work is not in the log"

_TEXTS = ("text", "input_text", "output_text", "summary_text")
_THOUGHTS = ("reasoning", "thinking", "redacted_thinking")
_MEDIA = (
    "image",
    "image_url",
    "input_image",
    "audio",
    "input_audio",
    "file",
    "input_file",
    "document",
    "video",
)
_SPEAKERS = ("human", "customer", "ai", "model", "gpt", "bot", "chatbot", "agent", "developer", "function")
_ROLES = {name: ROLES[name] for name in _SPEAKERS}  # of the names that logs use, where OpenAI has others


def text_turn(role: str, value: Any) -> Turn:
    """A turn of text; an object is its JSON."""
    return {
        "role": role,
        "content": value if isinstance(value, str) else json.dumps(value, ensure_ascii=False),
    }


def read_turns(items: Sequence[Any]) -> list[Turn]:
    """Messages from a list of turns; one that the provider marked as a refusal has `refusal` besides.

    Raises:
        NotTakenError: one of them is no text, no call of a tool and no result of one.
    """
    turns: list[Turn] = []
    for item in items:
        for turn in _read_turn(item):
            last = turns[-1] if turns else None
            if last and "tool_calls" in turn and last["role"] == "assistant" and not turn["content"]:
                last["tool_calls"] = [*last.get("tool_calls", ()), *turn["tool_calls"]]
            else:
                turns.append(turn)
    return turns


def _read_turn(item: Any) -> list[Turn]:
    if isinstance(item, str):
        return [text_turn("user", item)]
    if not isinstance(item, Mapping):
        raise NotTakenError(UNREADABLE)
    kind = item.get("type")
    if kind in _THOUGHTS:
        return []
    if kind == "function_call":
        return [_calling("", [_call(item.get("call_id"), item.get("name"), item.get("arguments"))])]
    if kind == "function_call_output":
        return [_result(item.get("call_id"), item.get("output"))]
    if isinstance(kind, str) and kind.endswith("_call"):
        raise NotTakenError(BUILT_IN)
    if "from" in item and "role" not in item:
        item = {**item, "role": item["from"], "content": item.get("value", item.get("content"))}
    if "content" not in item and isinstance(item.get("message"), str):
        item = {**item, "content": item["message"]}
    role = item.get("role") or (kind if kind in _ROLES else None)
    if not isinstance(role, str):
        raise NotTakenError(UNREADABLE)
    role = role.strip().lower()
    return _of_role(_ROLES.get(role, role), item)


def _of_role(role: str, item: Mapping[str, Any]) -> list[Turn]:
    content = item.get("content")
    if item.get("refusal"):
        return [{"role": role, "content": str(item["refusal"]), "refusal": True}]
    parts = content if isinstance(content, list) else [content]
    refusal = "".join(str(part.get("refusal", "")) for part in _of_kind(parts, "refusal"))
    if refusal:
        return [{"role": role, "content": refusal, "refusal": True}]
    text = "".join(map(_text_of, parts))
    calls = [*_wire_calls(item), *map(_block_call, _of_kind(parts, "tool_use"))]
    results = [_result(p.get("tool_use_id"), p.get("content")) for p in _of_kind(parts, "tool_result")]
    if role == "tool":
        return [_result(item.get("tool_call_id"), text, item.get("name"))]
    if calls:
        return [_calling(text, calls)]
    if results:
        return [*results, *([text_turn(role, text)] if text.strip() else [])]
    turn = text_turn(role, text)
    if item.get("weight") == 0:
        turn["weight"] = 0
    return [turn]


def _kind(part: Any) -> str:
    return str(part.get("type", "")) if isinstance(part, Mapping) else ""


def _of_kind(parts: Sequence[Any], kind: str) -> list[Mapping[str, Any]]:
    return [part for part in parts if isinstance(part, Mapping) and part.get("type") == kind]


def _text_of(part: Any) -> str:
    """The text of a part of a message's content; none of a call, a result or a thought."""
    if part is None:
        return ""
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping):
        return json.dumps(part, ensure_ascii=False)
    kind = _kind(part)
    if kind in _MEDIA or "image_url" in part:
        raise NotTakenError(FOREIGN)
    if kind in (*_THOUGHTS, "tool_use", "tool_result"):
        return ""
    if (kind in _TEXTS or not kind) and isinstance(part.get("text"), str):
        return str(part["text"])
    raise NotTakenError(UNREADABLE)


def _wire_calls(item: Mapping[str, Any]) -> list[Turn]:
    calls = item.get("tool_calls") or []
    if not calls and isinstance(item.get("function_call"), Mapping):  # the form before tools
        calls = [{"function": item["function_call"]}]
    if not isinstance(calls, list) or not all(isinstance(call, Mapping) for call in calls):
        raise NotTakenError(UNREADABLE)
    found = []
    for call in calls:
        function = function_of(call)
        arguments = function.get("arguments", function.get("args"))
        found.append(_call(call.get("id"), function.get("name"), arguments))
    return found


def function_of(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a call or a tool says under `function`, or without it."""
    own = value.get("function")
    return own if isinstance(own, Mapping) else value


def _block_call(part: Mapping[str, Any]) -> Turn:
    return _call(part.get("id"), part.get("name"), part.get("input"))


def _call(key: Any, name: Any, arguments: Any) -> Turn:
    """A call as OpenAI writes it; the arguments are a JSON text."""
    if not isinstance(name, str) or not name:
        raise NotTakenError(UNREADABLE)
    if not isinstance(arguments, str):
        arguments = json.dumps({} if arguments is None else arguments, ensure_ascii=False)
    call: Turn = {"id": key} if isinstance(key, str) and key else {}
    return call | {"type": "function", "function": {"name": name, "arguments": arguments or "{}"}}


def _calling(text: str, calls: list[Turn]) -> Turn:
    return {"role": "assistant", "content": text, "tool_calls": calls}


def _result(key: Any, content: Any, name: Any = None) -> Turn:
    parts = content if isinstance(content, list) else [content]
    if all(isinstance(part, str | Mapping) and (isinstance(part, str) or "text" in part) for part in parts):
        text = "".join(map(_text_of, parts))
    else:
        text = "" if content is None else json.dumps(content, ensure_ascii=False)
    turn = {"role": "tool", "content": text}
    named = {"tool_call_id": key, "name": name}
    return turn | {field: value for field, value in named.items() if isinstance(value, str) and value}
