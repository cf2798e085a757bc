"""Tools and their calls as files write them: OpenAI's, Anthropic's, Gemini's and ShareGPT's spellings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from luthier.errors import DataError
from luthier.examples.strict_json import parse_json
from luthier.examples.tool_calls import ToolCall, write_json

Tools = tuple[Mapping[str, Any], ...]
_CALL_FORM = 'write {"name": "…", "arguments": {…}}'
_TOOL_FORM = 'write [{"type": "function", "function": {"name": "…", "parameters": {…}}}, …]'
_GEMINI_TYPES = {"STRING", "NUMBER", "INTEGER", "BOOLEAN", "ARRAY", "OBJECT"}


def read_calls(value: Any, name: str) -> tuple[ToolCall, ...]:
    """Calls from one or a list of them, or from their JSON text.

    Args:
        value: `{"name", "arguments"}`, alone or under `function` beside an `id`; `parameters` and `args`
            are other words for `arguments`, which may be an object or its JSON text.

    Raises:
        DataError: it is no call, or its arguments are not an object.
    """
    value = _parsed(value, name)
    items = value if isinstance(value, list) else [value]
    if not items:
        raise DataError(f"{name} holds no call", fix=_CALL_FORM)
    many = len(items) > 1 or isinstance(value, list)
    return tuple(_read_call(item, f"{name}[{n}]" if many else name) for n, item in enumerate(items))


def read_use(block: Mapping[str, Any], name: str) -> ToolCall:
    """Anthropic's `tool_use` block.

    Raises:
        DataError: as `read_calls`.
    """
    call = {"name": block.get("name"), "arguments": block.get("input"), "id": block.get("id")}
    return _read_call(call, name)


def read_tools(value: Any, name: str) -> Tools:
    """The tools on offer, each as `{"type": "function", "function": {…}}`; none from null, "" and [].

    Read are OpenAI's `tools` and `functions`, Anthropic's (`input_schema`) and Gemini's
    (`functionDeclarations`), also as JSON text.

    Raises:
        DataError: it is no list of tools with names.
    """
    if value in (None, "", []):
        return ()
    value = _parsed(value, name)
    items = value if isinstance(value, list) else [value]
    found: list[Mapping[str, Any]] = []
    for number, item in enumerate(items):
        found += _read_tool(item, f"{name}[{number}]")
    return tuple(found)


def are_tools(value: Any) -> bool:
    """Whether a column that happens to be called `tools` holds tools."""
    try:
        read_tools(value, "tools")
    except DataError:
        return False
    return True


def _parsed(value: Any, name: str) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return parse_json(value)
    except ValueError as error:
        raise DataError(
            f"{name} is not valid JSON: {error}", fix="repair it, or leave the example out"
        ) from None


def _read_call(item: Any, name: str) -> ToolCall:
    if not isinstance(item, dict):
        raise DataError(f"{name} is not a call", fix=_CALL_FORM)
    call = item["function"] if isinstance(item.get("function"), dict) else item
    tool = call.get("name")
    if not isinstance(tool, str) or not tool:
        raise DataError(f"{name} does not name a tool", fix=_CALL_FORM)
    given: Any = next(
        (call[key] for key in ("arguments", "parameters", "args") if call.get(key) is not None), {}
    )
    arguments = {} if given == "" else _parsed(given, f"{name}.arguments")
    if not isinstance(arguments, dict):
        raise DataError(f"{name}.arguments is not a JSON object", fix=_CALL_FORM)
    own = item.get("id")
    return ToolCall(tool, write_json(arguments), own if isinstance(own, str) else "")


def _read_tool(item: Any, name: str) -> list[Mapping[str, Any]]:
    if not isinstance(item, dict):
        raise DataError(f"{name} is not a tool", fix=_TOOL_FORM)
    declared = item.get("functionDeclarations", item.get("function_declarations"))
    if isinstance(declared, list):
        return [t for n, d in enumerate(declared) for t in _read_tool(_lower_types(d), f"{name}[{n}]")]
    tool = item.get("function", item)
    if not isinstance(tool, dict) or not isinstance(tool.get("name"), str) or not tool["name"]:
        raise DataError(f"{name} does not name a tool", fix=_TOOL_FORM)
    if "function" in item:
        return [item]
    if "input_schema" in tool:
        tool = {("parameters" if key == "input_schema" else key): value for key, value in tool.items()}
    return [{"type": "function", "function": tool}]


def _lower_types(value: Any) -> Any:
    """Gemini's schemas, which shout their types, as JSON Schema."""
    if isinstance(value, list):
        return [_lower_types(item) for item in value]
    if not isinstance(value, dict):
        return value
    lowered = {key: _lower_types(item) for key, item in value.items()}
    if lowered.get("type") in _GEMINI_TYPES:
        lowered["type"] = lowered["type"].lower()
    return lowered
