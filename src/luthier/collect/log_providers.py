"""Requests and answers of APIs with words of their own, in those of OpenAI: Gemini's and Cohere's.

What only thought a model is left out, as everywhere in logs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from luthier.collect.log_turns import FOREIGN, UNREADABLE, Turn
from luthier.collect.log_wire import Values, has_candidates, has_parts, is_cohere
from luthier.collect.tally import NotTakenError
from luthier.errors import DataError
from luthier.examples.contents import SYSTEM, from_contents
from luthier.examples.tool_rows import read_tools

_CAMEL = "systemInstruction"


def as_chat_request(request: Values) -> Values:
    """A request with `messages`, where it has Gemini's `contents` or Cohere's `message`; others as they are.

    Raises:
        NotTakenError: it holds more than words.
    """
    if has_parts(request.get("contents")):
        system = next((request[key] for key in (_CAMEL, *SYSTEM) if request.get(key)), None)
        asked = {"contents": request["contents"], **({SYSTEM[0]: system} if system else {})}
        return {**request, "messages": _turns(asked), "tools": _tools(request.get("tools"))}
    if is_cohere(request):
        first = [{"role": "system", "content": request["preamble"]}] if request.get("preamble") else []
        said = [*first, *(request["chat_history"] or ()), {"role": "user", "content": request["message"]}]
        return {**request, "messages": said}
    return request


def as_chat_response(response: Values) -> Values:
    """An answer with `choices`, where it has Gemini's `candidates`; others as they are.

    Raises:
        NotTakenError: it holds more than words.
    """
    if not has_candidates(response) or "choices" in response:
        return response
    choices = []
    for candidate in response["candidates"]:
        if not isinstance(candidate, Mapping):
            raise NotTakenError(UNREADABLE)
        content = candidate.get("content")
        finish = candidate.get("finishReason", candidate.get("finish_reason"))
        whole = isinstance(content, Mapping) and content.get("parts")
        turns = _turns({"contents": [{**content, "role": "model"}]}) if whole else []  # type: ignore[dict-item]
        said = turns[-1] if turns else {"role": "assistant", "content": ""}
        choices.append({"message": said, "finish_reason": finish})
    return {**response, "choices": choices, "model": response.get("modelVersion")}


def _turns(row: Mapping[str, Any]) -> list[Turn]:
    told = [{**turn, "parts": _spoken(turn.get("parts"))} for turn in row["contents"]]
    try:
        return [message.as_row() for message in from_contents({**row, "contents": told})]
    except DataError as error:
        raise NotTakenError(FOREIGN if "has no text" in error.message else UNREADABLE) from None


def _spoken(parts: Any) -> Any:
    """Parts without those that a model only thought."""
    if not isinstance(parts, list):
        return parts
    return [part for part in parts if not (isinstance(part, Mapping) and part.get("thought") is True)]


def _tools(tools: Any) -> list[Any]:
    try:
        return list(read_tools(tools, "tools"))
    except DataError:
        return []  # such as a search of the provider's own
