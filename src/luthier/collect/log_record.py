"""What a record of a production log says: the request, the answer, and how it ended.

Recognised are OpenAI's chat completions with their requests (as pairs, as stored completions, as files of
the batch API), the Responses API, content blocks, Gemini's, Cohere's and Ollama's own words, exports of
proxies and tracers that hold `input` and `output`, `messages` and `response`, or bodies as JSON text, and
plain pairs of prompt and completion.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from luthier.collect.log_providers import as_chat_request, as_chat_response
from luthier.collect.log_stream import CUT, is_stream, join_chunks, parse_events
from luthier.collect.log_turns import Turn, function_of, read_turns, text_turn
from luthier.collect.log_wire import Values, is_body, is_wire, read_object, read_wire, unwrap
from luthier.collect.tally import NotTakenError

NOTHING_ASKED = "no request"
NOTHING_ANSWERED = "no answer"
CONTINUED = "goes on from an earlier response that is not in the record"
SEVERAL = "several prompts in one record"

# where a request and an answer are kept, the clearer name first
REQUESTS = (
    "request", "request_body", "requestBody", "backendRequestBody", "body", "kwargs", "inputs", "input",
    "prompt", "question", "query", "instruction", "user_input", "user_message", "user",
)  # fmt: skip
ANSWERS = (
    "response", "response_body", "responseBody", "backendResponseBody", "outputs", "output", "completion",
    "answer", "model_response", "bot_response", "generated_text", "reply", "assistant",
    "chunks", "events", "stream",
)  # fmt: skip
CHATS = ("messages", "conversation", "conversations", "turns", "thread", "chat")
_STREAMS = ("chunks", "events", "stream")  # as an option of a request, `stream` is true or false
_TEXT_KEYS = (
    "output_text",
    "text",
    "completion",
    "generated_text",
    "answer",
    "output",
    "content",
    "response",
)
_ASKED = ("messages", "input", "prompt", "question", "query")
_OPTIONS = ("tools", "functions", "instructions", "system", "model")


@dataclass
class Exchange:
    """One request with its answer.

    Attributes:
        asked, answered: turns as OpenAI's chat messages.
        tools: JSON schemas offered, as OpenAI's `tools`.
        finish: why the model stopped, as the provider calls it.
        model: who answered, where the record says so.
        codes: HTTP statuses.
        response: the answer as the provider sent it; {} where it is a text.
        used: names of the columns that were read.
    """

    asked: list[Turn] = field(default_factory=list)
    answered: list[Turn] = field(default_factory=list)
    tools: list[Any] = field(default_factory=list)
    finish: str | None = None
    model: str | None = None
    codes: list[Any] = field(default_factory=list)
    response: Values = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    @property
    def messages(self) -> list[Turn]:
        """The whole conversation."""
        return [*self.asked, *self.answered]


def unfold(record: Values) -> Values:
    """A record whose request and answer are inside one of its columns, without that fold."""
    known = (*REQUESTS, *ANSWERS, "messages", "choices")
    chat = next((key for key in CHATS if is_wire(read_wire(record.get(key)))), "messages")
    if chat != "messages":
        return {"messages" if key == chat else key: value for key, value in record.items()}
    if any(_is_filled(record, key) for key in known):
        return record
    for name, value in record.items():
        inner = read_object(value)
        if inner and any(_is_filled(inner, key) for key in known):
            return unfold({**{key: other for key, other in record.items() if key != name}, **inner})
    return record


def split_record(record: Values) -> tuple[Any, Any, set[str]]:
    """The request, the answer (None where there is none), and the columns that hold them."""
    request_key = next((key for key in REQUESTS if _is_filled(record, key)), None)
    answer_key = next((key for key in ANSWERS if _is_filled(record, key) and key != request_key), None)
    used = {key for key in (request_key, answer_key) if key} | {"messages", *_OPTIONS}
    request: Any = record if "messages" in record else None
    if request_key is not None and "messages" not in record:
        request = read_wire(record[request_key])
        if request_key in ("input", "prompt") and not is_body(request):
            request = {**record, request_key: request}
    if "choices" in record or (record.get("object") == "response" and "output" in record):
        return request, record, used | {"choices", "output"}
    if "stop_reason" in record and "content" in record:
        return request, record, used | {"content"}
    return request, None if answer_key is None else read_wire(record[answer_key]), used


def _is_filled(record: Values, key: str) -> bool:
    value = record.get(key)
    if key == "user" and "assistant" not in record:
        return False  # whose request it is, not what they said
    return value not in (None, "") and not (isinstance(value, bool) and key in _STREAMS)


def read_exchange(found: Exchange, record: Values, request: Any, answer: Any) -> None:
    """Fill in what was asked and answered, as far as it goes.

    Raises:
        NotTakenError: there is no request or no answer in it, or they are not in words.
    """
    request = unwrap(request, found.codes)
    _read_request(found, request)
    answer = unwrap(answer, found.codes)
    spoken = [n for n, turn in enumerate(found.asked) if turn["role"] == "assistant"]
    if answer is None and spoken:  # a whole conversation; what the user said last was not answered
        found.asked, found.answered = found.asked[: spoken[-1]], [found.asked[spoken[-1]]]
    else:
        _read_answer(found, answer)
    if not any(turn["role"] != "system" for turn in found.asked):
        raise NotTakenError(NOTHING_ASKED)
    for turn in found.asked:
        if turn.pop("refusal", False):
            turn["weight"] = 0
    names = [found.response.get("model"), *(_model_name(source) for source in (request, record))]
    found.model = next((name for name in names if isinstance(name, str) and name), None)


def _model_name(source: Any) -> Any:
    keys = (
        ("model", "request_model", "model_name", "modelName", "modelId")
        if isinstance(source, Mapping)
        else ()
    )
    return next((source[key] for key in keys if source.get(key)), None)


# --- the request ------------------------------------------------------------------------------------


def _read_request(found: Exchange, request: Any) -> None:
    if isinstance(request, str):
        found.asked = [text_turn("user", request)]
        return
    if isinstance(request, list):
        found.asked = read_turns(request)
        return
    if not isinstance(request, Mapping):
        raise NotTakenError(NOTHING_ASKED)
    request = as_chat_request(request)
    if request.get("previous_response_id") or ("messages" not in request and request.get("conversation")):
        raise NotTakenError(CONTINUED)
    asked = next((request[key] for key in _ASKED if request.get(key)), None)
    if asked is None and not is_body(request) and not any(key in request for key in _ASKED):
        asked = request  # an object of the application's own
    asked = read_wire(asked)
    if isinstance(asked, Mapping) and is_body(asked) and asked is not request:
        _read_request(found, asked)
    elif asked is None:
        raise NotTakenError(NOTHING_ASKED)
    elif isinstance(asked, list) and all(isinstance(item, str) for item in asked):
        if len(asked) > 1:
            raise NotTakenError(SEVERAL)
        found.asked = [text_turn("user", asked[0])]
    else:
        found.asked = read_turns(asked) if isinstance(asked, list) else [text_turn("user", asked)]
    system = request.get("instructions") or request.get("system")
    if system and not any(turn["role"] == "system" for turn in found.asked):
        found.asked = [*read_turns([{"role": "system", "content": system}]), *found.asked]
    found.tools = _tools(request) or found.tools


def _tools(request: Values) -> list[Any]:
    """The tools on offer in OpenAI's nested form, whatever form the request has them in."""
    tools = read_wire(request.get("tools")) or [{"function": f} for f in request.get("functions") or []]
    if not isinstance(tools, list):
        return []
    found = []
    for tool in tools:
        if not isinstance(tool, Mapping):
            continue
        function = function_of(tool)
        if isinstance(function.get("name"), str):
            parameters = function.get("parameters", function.get("input_schema"))
            own = {
                "name": function["name"],
                "description": function.get("description"),
                "parameters": parameters,
            }
            own = {key: value for key, value in own.items() if value is not None}
            found.append({"type": "function", "function": own})
    return found


# --- the answer -------------------------------------------------------------------------------------


def _read_answer(found: Exchange, answer: Any) -> None:
    if isinstance(answer, str) and answer.lstrip().startswith("data:"):
        answer = parse_events(answer)
        if not is_stream(answer):
            raise NotTakenError(CUT)
    if is_stream(answer):
        answer = join_chunks(answer)
    if isinstance(answer, list) and len(answer) == 1 and is_body(answer[0]):
        answer = answer[0]
    if answer in (None, "", [], {}):
        raise NotTakenError(NOTHING_ANSWERED)
    if isinstance(answer, list):
        found.answered = read_turns(answer) if is_wire(answer) else [text_turn("assistant", answer)]
    elif isinstance(answer, Mapping):
        _read_response(found, answer)
    else:
        found.answered = [text_turn("assistant", answer)]
    if not found.answered or found.answered[-1]["role"] != "assistant":
        raise NotTakenError(NOTHING_ANSWERED)


def _read_response(found: Exchange, response: Values) -> None:
    found.response = response = as_chat_response(response)
    choices = response.get("choices")
    if isinstance(choices, list):
        if not choices or not isinstance(choices[0], Mapping):
            raise NotTakenError(NOTHING_ANSWERED)
        first = choices[0]
        found.finish = first.get("finish_reason")
        message = first.get("message", first.get("text"))
        if message is None:
            raise NotTakenError(NOTHING_ANSWERED)
        found.answered = (
            read_turns([message]) if isinstance(message, Mapping) else [text_turn("assistant", message)]
        )
    elif isinstance(response.get("output"), list) and is_wire(response["output"]):
        details = response.get("incomplete_details")
        found.finish = details.get("reason") if isinstance(details, Mapping) else response.get("status")
        found.answered = read_turns(response["output"])
    elif isinstance(response.get("messages"), list) and response["messages"]:
        found.answered = read_turns(response["messages"][-1:])
    elif isinstance(response.get("message"), Mapping):
        found.finish = response.get("done_reason") or response.get("finish_reason")
        found.answered = read_turns([response["message"]])
    elif "role" in response and ("content" in response or "tool_calls" in response):
        found.finish = response.get("stop_reason") or response.get("finish_reason")
        found.answered = read_turns([response])
    elif text := next((response[k] for k in _TEXT_KEYS if isinstance(response.get(k), str)), None):
        if len(response) == 1 or is_body(response):
            found.finish = response.get("finish_reason") or response.get("done_reason")
            found.answered = [text_turn("assistant", text)]
        else:
            found.answered = [text_turn("assistant", dict(response))]
    elif not response.get("error"):
        found.answered = [text_turn("assistant", dict(response))]
