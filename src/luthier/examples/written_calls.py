"""Calls as models write them: read back from an answer, whatever its template's way to write them is.

A way to write calls is a function from a text to the calls found in it, each with its place. Which one a
model uses is tried out with its template, never guessed (`tool_template`).
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from luthier.errors import DataError
from luthier.examples.tool_calls import ToolCall, write_json
from luthier.examples.tool_rows import read_calls

Tools = Sequence[Mapping[str, Any]]
Found = tuple[int, int, ToolCall]  # where it starts, where it ends, what it is
Way = Callable[[str, Tools], Iterator[Found]]

_OBJECT = re.compile(r'\{\s*"(?:name|arguments|parameters|type|id|function)"')
_NAMED = re.compile(  # the name outside of the arguments: gpt-oss; DeepSeek; Kimi; Mistral
    r"(?:to=functions\.(?P<a>[\w.-]+)[^{]*?"
    r"|(?:function)?<｜tool▁sep｜>(?P<b>[\w.-]+)\s*(?:```json)?"
    r"|functions\.(?P<c>[\w.-]+?)(?::\d+)?<\|tool_call_argument_begin\|>"
    r"|\[TOOL_CALLS\]\s*(?P<d>[\w.-]+)(?:\[CALL_ID\]\w+)?\s*(?:\[ARGS\])?)\s*(?=\{)"
)
_TAGGED = (
    (r"<function=([^>\s]+)>(.*?)</function>", r"<parameter=([^>]+)>\n?(.*?)\n?</parameter>"),
    (r'<(?:\w+:)?invoke name="([^"]+)">(.*?)</(?:\w+:)?invoke>',
     r'<(?:\w+:)?parameter name="([^"]+)"[^>]*>(.*?)</(?:\w+:)?parameter>'),
    (r"<tool_call>([^\s<{]+)\s*(.*?)</tool_call>",
     r"<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)</arg_value>"),
)  # fmt: skip
_PYTHON = {"True": True, "False": False, "None": None}
_QUOTE = '<|"|>'
_QUOTED_OR_BRACE = re.compile(r'<\|"\|>.*?<\|"\|>|[{}]', re.DOTALL)
_BARE_KEY = re.compile(r'([{,]\s*)([^\s{}\[\],:"]+)\s*:')
_LIST = re.compile(r"\[\s*[A-Za-z_][\w.]*\(.*\)\s*\]", re.DOTALL)
_BETWEEN = re.compile(r"(?:[\s,;\[\]`]|</?[^<>\s]+(?:\s[^<>]*)?>|\[/?[A-Z_]+\])*")


def read_written_calls(text: str, way: Way, tools: Tools) -> tuple[str, tuple[ToolCall, ...]]:
    """What stands before the first call, and the calls; no calls where other words follow one."""
    found = list(way(text, tools))
    if not found:
        return text, ()
    gaps = zip([end for _, end, _ in found], [start for start, _, _ in found[1:]] + [len(text)], strict=True)
    if not all(_BETWEEN.fullmatch(text[end:start]) for end, start in gaps):
        return text, ()
    return text[: found[0][0]], tuple(call for _, _, call in found)


def _objects(text: str, tools: Tools) -> Iterator[Found]:
    """`{"name": …, "arguments": {…}}`, in whatever stands around it: Qwen, Llama, Granite, Mistral, ..."""
    at = 0
    while match := _OBJECT.search(text, at):
        at = match.end()
        try:
            value, end = json.JSONDecoder().raw_decode(text, match.start())
            (call,) = read_calls(value, "call")
        except (ValueError, RecursionError, DataError):
            continue
        yield match.start(), end, ToolCall(call.name, call.arguments)
        at = end


def _named(text: str, tools: Tools) -> Iterator[Found]:
    """A name, some control tokens, and the arguments as JSON: gpt-oss, DeepSeek, Kimi, Mistral."""
    for match in _NAMED.finditer(text):
        try:
            value, end = json.JSONDecoder().raw_decode(text, match.end())
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            yield match.start(), end, ToolCall(next(filter(None, match.groups())), write_json(value))


def _tagged(call: str, argument: str) -> Way:
    """A tag around the call and one around each argument: Qwen3-Coder, GLM, ..."""
    calls, arguments = re.compile(call, re.DOTALL), re.compile(argument, re.DOTALL)

    def find(text: str, tools: Tools) -> Iterator[Found]:
        for match in calls.finditer(text):
            known = _properties(match[1], tools)
            given = {m[1]: _typed(m[2], known.get(m[1])) for m in arguments.finditer(match[2])}
            yield match.start(), match.end(), ToolCall(match[1], write_json(given))

    return find


def _bare_keys(text: str, tools: Tools) -> Iterator[Found]:
    """`call:weather{city:<|"|>Köln<|"|>,n:3}`: keys without quotes, texts in a control token (Gemma 4)."""
    for match in re.finditer(r"call:([\w.-]+)(?=\{)", text):
        depth, end = 0, match.end()
        for piece in _QUOTED_OR_BRACE.finditer(text, match.end()):
            depth += {"{": 1, "}": -1}.get(piece[0], 0)
            if not depth:
                end = piece.end()
                break
        parts = text[match.end() : end].split(_QUOTE)
        for n, part in enumerate(parts):
            parts[n] = write_json(part) if n % 2 else _BARE_KEY.sub(r'\1"\2":', part)
        try:
            value = json.loads("".join(parts))
        except (ValueError, RecursionError):
            continue
        yield match.start(), end, ToolCall(match[1], write_json(value))


def _pythonic(text: str, tools: Tools) -> Iterator[Found]:
    """`[weather(city='Köln')]`: LFM2, Llama 4, ..."""
    match = _LIST.search(text)
    if match is None:
        return
    try:
        tree = ast.parse(match[0], mode="eval").body
        for call in tree.elts if isinstance(tree, ast.List) else []:
            if not isinstance(call, ast.Call) or call.args:
                return
            given = {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
            yield match.start(), match.end(), ToolCall(ast.unparse(call.func), write_json(given))
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return


WAYS: tuple[Way, ...] = (_objects, _named, *(_tagged(*pair) for pair in _TAGGED), _bare_keys, _pythonic)


def _properties(name: str, tools: Tools) -> dict[str, Any]:
    """The schemas of a tool's arguments, as far as they are told."""
    for tool in tools:
        told = tool.get("function")
        if isinstance(told, dict) and told.get("name") == name and isinstance(told.get("parameters"), dict):
            found = told["parameters"].get("properties")
            return dict(found) if isinstance(found, dict) else {}
    return {}


def _typed(text: str, schema: Any) -> Any:
    """A value that was written without quotes: text where the schema says so, or where it is no JSON."""
    if isinstance(schema, dict) and schema.get("type") == "string":
        return text
    if text in _PYTHON:
        return _PYTHON[text]  # templates that print a value as Python does
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
