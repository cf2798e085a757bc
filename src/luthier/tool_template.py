"""What one chat template does with tools: tried out on made-up ones, not guessed from its words."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from luthier.control_tokens import ControlTokens
from luthier.errors import DataError
from luthier.examples.tool_calls import ToolCall
from luthier.examples.written_calls import WAYS, Way, read_written_calls

Part = Literal["tools", "calls", "results"]
NAMES: dict[Part, str] = {
    "tools": "which tools are on offer",
    "calls": "calls of tools",
    "results": "what tools return",
}
Messages = Sequence[Mapping[str, Any]]
# Messages, whether an answer begins after them, whether arguments are given as text: the template's text.
Write = Callable[[Messages, bool, bool], str]
RESULT_ROLES = ("tool", "function", "ipython")


@dataclass(frozen=True)
class ToolTemplate:
    """What a template can show, and how.

    Attributes:
        shows: what of tools, calls and results appears in its text.
        arguments_as_text: it takes arguments as JSON text, and cannot take objects.
        end: what ends an answer that calls, where it is not what ends others.
        opening: what it writes before a first call; NUL stands for the tool's name.
        way: how calls are read back from it, None where that is not known.
    """

    shows: frozenset[Part] = frozenset()
    arguments_as_text: bool = False
    end: str | None = None
    opening: str = ""
    way: Way | None = None

    def read(self, written: str, tools: Sequence[Mapping[str, Any]]) -> tuple[str, tuple[ToolCall, ...]]:
        """The text and the calls of an answer that a model wrote; no calls where it made none."""
        if self.way is None:
            return written, ()
        before, calls = read_written_calls(written, self.way, tools)
        if not calls:
            return written, ()
        return before.rstrip().removesuffix(self.opening.replace("\0", calls[0].name).strip()), calls


def parts_used(messages: Messages) -> set[Part]:
    """What of tools a conversation shows."""
    used: set[Part] = set()
    for message in messages:
        if message.get("tools"):
            used.add("tools")
        if message.get("tool_calls"):
            used.add("calls")
        if message["role"] in RESULT_ROLES:
            used.add("results")
    return used


def offered(messages: Messages) -> Sequence[Mapping[str, Any]] | None:
    """The tools that ride on a conversation, see `Example.asked`; None where calls are not to be expected."""
    return next((message["tools"] for message in messages if message.get("tools") is not None), None)


def try_tools(write: Write, control: ControlTokens, usual: tuple[str, str, str]) -> ToolTemplate:
    """Show a template a tool, a call and a result, and look at what it writes.

    Args:
        usual: of other answers: what they begin with, what opens new ones only, and what ends them.
    """
    opening, opened, usual_end = usual
    nonce = control.nonce
    asked: dict[str, Any] = {"role": "user", "content": "q"}
    offer = [asked | {"tools": [_tool(nonce)]}]
    call = ToolCall(f"t{nonce}", json.dumps({f"k{nonce}": f"v{nonce}", "n": 3, "o": {"a": [1, "x"]}}))
    made = {"role": "assistant", "content": "", "tool_calls": [{"id": "call00000", **call.as_dict()}]}
    result = {"role": "tool", "content": f"r{nonce}", "name": call.name, "tool_call_id": "call00000"}
    shows: set[Part] = set()
    if f"t{nonce}" in _attempt(write, offer, True, False):
        shows.add("tools")
    as_text, written = False, ""
    for as_text in (False, True):
        written = _attempt(write, [asked, made], False, as_text)
        if _is_shown(call, written):
            shows.add("calls")
            break
    if f"r{nonce}" in _attempt(write, [asked, made, result], True, as_text):
        shows.add("results")
    if "calls" not in shows:
        return ToolTemplate(frozenset(shows))
    end = _end(written[written.rindex(f"v{nonce}") :], control, usual_end)
    head = _attempt(write, [asked], True, as_text)
    start = next((s for s in (head, head.removesuffix(opened)) if written.startswith(s)), "")
    text = written[len(start) :].partition(end)[0]
    way = next((way for way in WAYS if read_written_calls(text, way, [_tool(nonce)])[1] == (call,)), None)
    before = "" if way is None else read_written_calls(text, way, [_tool(nonce)])[0]
    own = before.removeprefix(opening).replace(call.name, "\0")
    return ToolTemplate(frozenset(shows), as_text, end, own, way)


def lost(message: Mapping[str, Any], written: str) -> str | None:
    """What of an answer that calls tools is not in the text that a template wrote for it.

    Args:
        message: marked as the text is.
    """
    content = message.get("content")
    if isinstance(content, str) and content.strip() and content.strip() not in written:
        return "the text beside the calls"
    for call in message["tool_calls"]:
        function = call["function"]
        if written.count(function["name"]) < sum(
            other["function"]["name"] == function["name"] for other in message["tool_calls"]
        ):
            return f"a call of {function['name']}"
        value = function["arguments"]
        for leaf in _leaves(json.loads(value) if isinstance(value, str) else value):
            spelled = {
                leaf.strip(),
                json.dumps(leaf, ensure_ascii=False)[1:-1].strip(),
                repr(leaf)[1:-1].strip(),
            }
            spelled.add(leaf.strip().replace("\\", "\\\\").replace("'", "\\'"))
            # the arguments may be given as JSON text, and written as a JSON string once more
            spelled |= {json.dumps(text, ensure_ascii=False)[1:-1] for text in spelled}
            if not any(text in written for text in spelled):
                return f"an argument of {function['name']}"
    return None


def _tool(nonce: str) -> dict[str, Any]:
    properties = {
        f"k{nonce}": {"type": "string", "description": "k"},
        "n": {"type": "integer", "description": "n"},
        "o": {"type": "object", "description": "o"},
    }
    parameters = {"type": "object", "properties": properties, "required": [f"k{nonce}"]}
    return {
        "type": "function",
        "function": {"name": f"t{nonce}", "description": "d", "parameters": parameters},
    }


def _attempt(write: Write, messages: Messages, generation: bool, as_text: bool) -> str:
    try:
        return write(messages, generation, as_text)
    except DataError:
        return ""


def _is_shown(call: ToolCall, written: str) -> bool:
    """Whether name and arguments are there, and not as Python prints a dictionary or JSON inside JSON."""
    arguments = json.loads(call.arguments)
    key = next(iter(arguments))
    whole = call.name in written and key in written and arguments[key] in written
    return whole and f"{{'{key}" not in written and f'\\"{key}' not in written


def _end(after: str, control: ControlTokens, usual: str) -> str:
    """What ends an answer whose last argument is followed by `after`: the usual end, else the last token."""
    if usual in after:
        return usual
    ends = control.find_all_special(after)
    return ends[-1] if ends else usual


def _leaves(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [leaf for key, item in value.items() for leaf in (key, *_leaves(item))]
    return [leaf for item in value for leaf in _leaves(item)] if isinstance(value, list) else []
