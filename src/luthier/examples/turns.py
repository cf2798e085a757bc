"""Turns as files write them: a text, a message, or a list of messages. Errors have no place yet.

Messages come in the words of OpenAI (`role`, `content`, `tool_calls`), ShareGPT (`from`, `value`),
Anthropic (blocks of content) and of exports (`sender`, `author` or `speaker` beside `text` or `message`); a
list may mix them, and roles may be in capitals.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from luthier.errors import DataError
from luthier.examples.example import Message
from luthier.examples.strict_json import parse_json
from luthier.examples.tool_calls import ToolCall
from luthier.examples.tool_rows import read_calls, read_use

_CALL = "call"  # a turn whose text is a call
ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter", "customer"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "model", "bot", "chatbot", "ai", "agent"), "assistant"),
    **dict.fromkeys(("bard", "bing", "claude"), "assistant"),
    **dict.fromkeys(("function_call", "function-call", "tool_call"), _CALL),
    **dict.fromkeys(("tool", "function", "observation", "ipython"), "tool"),
    **dict.fromkeys(("function_response", "function-response", "tool_response", "tool-response"), "tool"),
}
_SPEAKERS = {name: role for name, role in ROLES.items() if role in ("system", "user", "assistant")}
SPEAKER = ("role", "from", "sender", "author", "speaker")  # keys that tell who says it
_SAID = ("content", "value", "text", "message")  # keys that tell what
SYSTEM_IN = ("system", "system_prompt")  # columns
_ROLE_FIX = "use system, user, assistant or tool; ShareGPT's human, gpt, function_call and observation do too"
_PYTHON = re.compile(r"\s*\[?\s*\{\s*'")
_REASONING = ("reasoning_content", "reasoning", "thinking")


def is_turn(row: Mapping[str, Any]) -> bool:
    """Whether a row is one turn of a conversation: it names who speaks, and not just some author."""
    return any(isinstance(row.get(key), str) and row[key].strip().lower() in ROLES for key in SPEAKER)


def system_of(row: Mapping[str, Any]) -> Any:
    """What a row's column of system prompts says; None where it has none, or an empty one."""
    return next((row[key] for key in SYSTEM_IN if row.get(key)), None)


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


def read_cell(value: Any) -> Any:
    """The list or object that a table's cell holds as JSON; anything else as it is."""
    if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{"):
        return value
    try:
        return parse_json(value)
    except ValueError:
        return value


def read_turns_cell(value: Any) -> Any:
    """As `read_cell`, for a column that may hold a text as well: only what is messages is taken for them."""
    if isinstance(value, str) and value.lstrip()[:1] not in ("[", "{"):
        return value
    found = read_cell(value)
    turns = found if isinstance(found, list) else [found]
    spelled = bool(turns) and all(isinstance(t, dict) and ({"role", "from"} & t.keys()) for t in turns)
    return found if spelled else value


def read_content(value: Any, name: str) -> str:
    """The text of a message: a string, or a list of text parts.

    Raises:
        DataError: it is neither.
    """
    if isinstance(value, str):
        return value
    if value is None:
        raise DataError(f"{name} has no text: its content is null", fix="write it, or leave the example out")
    texts = []
    for part in value if isinstance(value, list) else [value]:
        text = part.get("text") if isinstance(part, dict) else part
        if not isinstance(text, str):
            only = "Luthier reads text only: no images, no sound, no files"
            raise DataError(
                f"{name} has no text content", fix=only if isinstance(part, dict) else "write it as text"
            )
        texts.append(text)
    return "".join(texts)


def read_chat(value: Any, name: str) -> list[Message]:
    """Messages from a list of them, from a single one, or from a table's cell that holds either as JSON.

    An answer and the calls that follow it as turns of their own become one message.

    Raises:
        DataError: it is no such list, or one of them cannot be read.
    """
    value = read_cell(value)
    if isinstance(value, dict):
        value = [value]
    if isinstance(value, str) and _PYTHON.match(value):
        raise DataError(
            f"{name} is written as Python prints it, not as JSON", fix="write the cell with json.dumps"
        )
    if not isinstance(value, list):
        raise DataError(f"{name} is not a list", fix=f'write "{name}": [{{"role": …, "content": …}}, …]')
    messages: list[Message] = []
    for number, item in enumerate(value):
        if (plain := _plain_turn(item)) is not None:
            messages.append(plain)
            continue
        place = f"{name}[{number}]"
        for message in read_turn(item, place):
            _check_result(message, messages, place)
            if messages and _continues(messages[-1], message, item):
                calls = (*messages[-1].tool_calls, *message.tool_calls)
                messages[-1] = replace(messages[-1], tool_calls=calls)
            else:
                messages.append(message)
    return messages


def read_turn(item: Any, name: str) -> list[Message]:
    """The messages that one turn of a file stands for; more than one where results are blocks of a turn.

    Raises:
        DataError: it is none, has an unknown role or weight, or is not text.
    """
    if (plain := _plain_turn(item)) is not None:
        return [plain]
    said = _spelled_alike(item, name)
    role = ROLES[said["role"]]
    weight = _weight(said, name)
    content = said.get("content")
    if role == _CALL:
        return [Message("assistant", "", weight, read_calls(content, name), said.get("name") or "")]
    if role == "assistant":
        return [_read_answer(said, weight, name)]
    results = [block for block in _blocks(content) if block.get("type") == "tool_result"]
    if results:
        return _read_results(content, results, role, name)
    if role == "tool" and isinstance(content, dict | list) and not _blocks(content):
        content = json.dumps(content, ensure_ascii=False)
    named, answered = _own_text(said, "name", name), _own_text(said, "tool_call_id", name)
    return [Message(role, read_content(content, name), weight, name=named, tool_call_id=answered)]


def _plain_turn(item: Any) -> Message | None:
    """A turn that has a role and a text alone, as nearly all have, in a tenth of the time; else None."""
    if type(item) is not dict or len(item) != 2:
        return None
    role, content = item.get("role"), item.get("content")
    if type(role) is not str or type(content) is not str or role not in _SPEAKERS:
        return None
    return Message(_SPEAKERS[role], content)


def _spelled_alike(item: Any, name: str) -> dict[str, Any]:
    """The turn with `role` and `content`, its role a known one."""
    who = _first_of(SPEAKER, item) if isinstance(item, dict) else None
    if who is None:
        raise DataError(f"{name} is not a message", fix='write {"role": …, "content": …}')
    own = item[who].strip().lower() if isinstance(item[who], str) else None
    if own not in ROLES:
        told = "has role" if who == "role" else "is from"
        raise DataError(f"{name} {told} {item[who]!r}", fix=_ROLE_FIX)
    words = _first_of(_SAID, item)
    if who != "role" and words is None:
        raise DataError(f"{name} is not a turn", fix='write {"from": "human", "value": …}')
    said = {**item, "role": own, "content": None if words is None else item[words]}
    if who == "from" and words == "value" and not _blocks(said["content"]) and ROLES[own] != _CALL:
        said["content"] = read_text(said["content"], name)
    return said


def _first_of(keys: Sequence[str], item: Mapping[str, Any]) -> str | None:
    """The first key that has a value; where none has, the first that is there."""
    there = [key for key in keys if key in item]
    return next((key for key in there if item[key] is not None), there[0] if there else None)


def _weight(said: Mapping[str, Any], name: str) -> int:
    weight = said.get("weight")
    if weight is None and isinstance(said.get("train"), bool):  # axolotl's word for it
        weight = int(said["train"])
    if weight not in (None, 0, 1):
        raise DataError(f"{name} has weight {weight!r}", fix="use 0 (context only) or 1 (train on it)")
    return 1 if weight is None else int(weight)


def _own_text(said: Mapping[str, Any], key: str, name: str) -> str:
    value = said.get(key)
    if value is not None and not isinstance(value, str):
        raise DataError(f"{name}.{key} is {value!r}, expected text", fix=f"write {key} as text")
    return value or ""


def _blocks(content: Any) -> list[dict[str, Any]]:
    """Content as a list of typed blocks, or nothing where it is none."""
    typed = (
        isinstance(content, list) and content and all(isinstance(b, dict) and "type" in b for b in content)
    )
    return content if typed else []


def _read_answer(said: Mapping[str, Any], weight: int, name: str) -> Message:
    content = said.get("content")
    calls: tuple[ToolCall, ...] = ()
    if said.get("tool_calls"):
        calls = read_calls(said["tool_calls"], f"{name}.tool_calls")
    elif said.get("function_call"):
        calls = read_calls(said["function_call"], f"{name}.function_call")
    thoughts = "".join(t for key in _REASONING if isinstance(t := said.get(key), str) and t)
    blocks = _blocks(content)
    if blocks:
        thoughts += "".join(b["thinking"] for b in blocks if isinstance(b.get("thinking"), str))
        uses = [block for block in blocks if block.get("type") == "tool_use"]
        calls += tuple(read_use(block, f"{name}.content") for block in uses)
        content = [b for b in blocks if b.get("type") not in ("tool_use", "thinking", "redacted_thinking")]
    if content is None and isinstance(said.get("refusal"), str):
        content = said["refusal"]
    text = "" if calls and content in (None, []) else read_content(content, name)
    if thoughts:  # as the models that think write it, and as their templates read it
        text = f"<think>\n{thoughts.strip()}\n</think>\n\n{text}"
    return Message("assistant", text, weight, calls, _own_text(said, "name", name))


def _read_results(content: Any, results: Sequence[Mapping[str, Any]], role: str, name: str) -> list[Message]:
    read = []
    for block in results:
        value = block.get("content")
        text = "" if value is None else read_content(value, f"{name}.content")
        read.append(Message("tool", text, tool_call_id=_own_text(block, "tool_use_id", name)))
    rest = [block for block in content if block.get("type") != "tool_result"]
    return [*read, Message(role, read_content(rest, name))] if rest else read


def _continues(before: Message, message: Message, item: Any) -> bool:
    """Whether a turn of calls belongs to the answer before it."""
    role = item[_first_of(SPEAKER, item) or "role"]
    return (
        ROLES[role.strip().lower()] == _CALL
        and before.role == "assistant"
        and before.weight == message.weight
        and before.name == message.name
    )


def _check_result(message: Message, before: Sequence[Message], name: str) -> None:
    if not message.tool_call_id:
        return
    made = {call.id for turn in before for call in turn.tool_calls if call.id}
    if made and message.tool_call_id not in made:
        raise DataError(
            f"{name} is the result of call {message.tool_call_id!r}, which nobody made",
            fix=f"use the id of a call before it: {', '.join(sorted(made)[:5])}",
        )
