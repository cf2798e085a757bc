"""A streamed answer, kept chunk by chunk in one record, joined to what it would have been whole."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from luthier.collect.tally import NotTakenError

CUT = "the stream was cut off"
_RESPONSE_ENDS = ("response.completed", "response.incomplete", "response.failed")


def parse_events(text: str) -> list[dict[str, Any]]:
    """The events of a text of server-sent events, `data: {…}` line by line.

    Raises:
        NotTakenError: one of them is no JSON object.
    """
    found = []
    for line in text.splitlines():
        if not line.startswith("data:") or line[5:].strip() in ("", "[DONE]"):
            continue
        try:
            event = json.loads(line[5:])
        except (ValueError, RecursionError):
            event = None
        if not isinstance(event, dict):
            raise NotTakenError(CUT)
        found.append(event)
    return found


def is_stream(value: Any) -> bool:
    """Whether a value is a list of chunks."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(item, dict) and _is_chunk(item) for item in value)
    )


def join_chunks(chunks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The whole response that chunks of one of the three protocols add up to.

    Raises:
        NotTakenError: the end is missing.
    """
    kinds = {str(chunk.get("type", "")) for chunk in chunks}
    if any(kind.startswith("response.") for kind in kinds):
        return _join_response_events(chunks)
    if "message_start" in kinds or "content_block_delta" in kinds:
        return _join_content_blocks(chunks)
    return _join_choices(chunks)


def _is_chunk(item: Mapping[str, Any]) -> bool:
    choices = item.get("choices")
    if isinstance(choices, list):
        return all(isinstance(choice, dict) and "message" not in choice for choice in choices)
    kind = str(item.get("type", ""))
    return kind.startswith(("response.", "message_", "content_block_")) or kind == "ping"


def _join_choices(chunks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": ""}
    calls: dict[int, dict[str, Any]] = {}
    finish = model = None
    for chunk in chunks:
        model = chunk.get("model") or model
        for choice in chunk.get("choices") or []:
            if choice.get("index", 0) != 0:
                continue
            finish = choice.get("finish_reason") or finish
            delta = choice.get("delta") or {}
            message["content"] += delta.get("content") or choice.get("text") or ""
            if delta.get("refusal"):
                message["refusal"] = (message.get("refusal") or "") + delta["refusal"]
            for part in delta.get("tool_calls") or []:
                _add_call(calls, part)
    if finish is None:
        raise NotTakenError(CUT)
    if calls:
        message["tool_calls"] = [calls[index] for index in sorted(calls)]
    return {"model": model, "choices": [{"index": 0, "message": message, "finish_reason": finish}]}


def _add_call(calls: dict[int, dict[str, Any]], part: Mapping[str, Any]) -> None:
    empty = {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
    call = calls.setdefault(int(part.get("index") or 0), empty)
    call["id"] = part.get("id") or call["id"]
    function = part.get("function") or {}
    call["function"]["name"] += function.get("name") or ""
    call["function"]["arguments"] += function.get("arguments") or ""


def _join_response_events(chunks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    last = next((c for c in reversed(chunks) if c.get("type") in _RESPONSE_ENDS), None)
    if last is None or not isinstance(last.get("response"), dict):
        raise NotTakenError(CUT)
    return dict(last["response"])


def _join_content_blocks(chunks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    blocks: dict[int, dict[str, Any]] = {}
    model = stop = None
    for chunk in chunks:
        kind, index = chunk.get("type"), int(chunk.get("index") or 0)
        delta = chunk.get("delta") or {}
        if kind == "message_start":
            model = (chunk.get("message") or {}).get("model")
        elif kind == "content_block_start":
            blocks[index] = dict(chunk.get("content_block") or {})
        elif kind == "content_block_delta":
            block = blocks.setdefault(index, {"type": "text", "text": ""})
            if "partial_json" in delta:
                block["partial"] = block.get("partial", "") + delta["partial_json"]
            else:
                block["text"] = block.get("text", "") + (delta.get("text") or "")
        elif kind == "message_delta":
            stop = delta.get("stop_reason") or stop
    if stop is None:
        raise NotTakenError(CUT)
    for block in blocks.values():
        if "partial" in block:
            block["input"] = _arguments(block.pop("partial"))
    content = [blocks[index] for index in sorted(blocks)]
    return {"model": model, "role": "assistant", "content": content, "stop_reason": stop}


def _arguments(text: str) -> Any:
    try:
        return json.loads(text or "{}")
    except (ValueError, RecursionError):
        raise NotTakenError(CUT) from None
