"""Records of production logs in every variant, written by hand after the documentation of each."""

from __future__ import annotations

import json
from typing import Any

from luthier.collect.log_outcome import CUT_OFF, FAILED, FILTERED, REFUSED
from luthier.collect.log_record import CONTINUED, NOTHING_ANSWERED, NOTHING_ASKED, SEVERAL
from luthier.collect.log_stream import CUT
from luthier.collect.log_turns import BUILT_IN, FOREIGN

Rows = list[dict[str, Any]]


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def said(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def completion(text: Any, finish: str = "stop", **message: Any) -> dict[str, Any]:
    """OpenAI's chat completion as its API sends it; made on 2025-10-09."""
    told = {"role": "assistant", "content": text, "refusal": None, "annotations": [], **message}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1760000000,
        "model": "big-1",
        "choices": [{"index": 0, "message": told, "finish_reason": finish, "logprobs": None}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
        "system_fingerprint": None,
    }


def response(*output: dict[str, Any], status: str = "completed", **more: Any) -> dict[str, Any]:
    """An answer of OpenAI's Responses API."""
    return {
        "object": "response",
        "status": status,
        "model": "big-2",
        "error": None,
        "output": list(output),
        **more,
    }


def spoken(text: str) -> dict[str, Any]:
    """An item of the Responses API."""
    content = [{"type": "output_text", "text": text, "annotations": []}]
    return {"type": "message", "id": "m", "status": "completed", "role": "assistant", "content": content}


def chunks(*texts: str, finish: str | None = "stop") -> Rows:
    deltas: Rows = [{"role": "assistant", "content": ""}, *({"content": text} for text in texts), {}]
    return [
        {
            "object": "chat.completion.chunk",
            "model": "big-1",
            "choices": [{"index": 0, "delta": d, "finish_reason": finish if d == {} else None}],
        }
        for d in deltas
    ]


def sse(events: Rows) -> str:
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n"


def pair(asked: str, answer: Any, **more: Any) -> dict[str, Any]:
    """One line of a log."""
    answer = completion(answer) if isinstance(answer, str) else answer
    return {"request": {"model": "big", "messages": [user(asked)]}, "response": answer, **more}


CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"town": "Bern"}'}}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
HI = [user("hi"), said("hello")]
VARIANTS: dict[str, tuple[Rows, list[dict[str, Any]]]] = {
    "request and response": ([{"request": {"messages": HI[:1]}, "response": completion("hello")}], HI),
    "bodies as JSON texts": (
        [
            {
                "request": json.dumps({"model": "m", "messages": HI[:1]}),
                "response": json.dumps(completion("hello")),
            }
        ],
        HI,
    ),
    "body and response as a batch has them": (
        [
            {
                "custom_id": "1",
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {"model": "m", "messages": HI[:1]},
                "response": {"status_code": 200, "request_id": "r", "body": completion("hello")},
                "error": None,
            }
        ],
        HI,
    ),
    "a batch's input and output": (
        [
            {"custom_id": "1", "response": {"status_code": 200, "body": completion("hello")}, "error": None},
            {"custom_id": "1", "method": "POST", "body": {"messages": HI[:1]}},
        ],
        HI,
    ),
    "stored completions": ([{**completion("hello"), "messages": HI[:1], "metadata": {"a": "b"}}], HI),
    "legacy completions": (
        [{"prompt": "hi", "choices": [{"text": "hello", "index": 0, "finish_reason": "stop"}]}],
        HI,
    ),
    "responses, flat": (
        [
            response(
                {"type": "reasoning", "summary": []}, spoken("hello"), input="hi", instructions="Be kind."
            )
        ],
        [{"role": "system", "content": "Be kind."}, *HI],
    ),
    "responses with a call and its result": (
        [
            {
                "request": {
                    "input": [
                        {"role": "user", "content": [{"type": "input_text", "text": "weather?"}]},
                        {
                            "type": "function_call",
                            "call_id": "c1",
                            "name": "weather",
                            "arguments": '{"town": "Bern"}',
                        },
                        {"type": "function_call_output", "call_id": "c1", "output": "sun"},
                    ],
                    "tools": [{"type": "function", "name": "weather", "parameters": {"type": "object"}}],
                },
                "response": response(spoken("It is sunny.")),
            }
        ],
        [
            user("weather?"),
            {**said(""), "tool_calls": [CALL]},
            {"role": "tool", "content": "sun", "tool_call_id": "c1"},
            said("It is sunny."),
        ],
    ),
    "an answer that calls a tool": (
        [
            {
                "request": {"messages": [user("weather?")], "tools": [TOOL]},
                "response": completion(None, "tool_calls", tool_calls=[CALL]),
            }
        ],
        [user("weather?"), {**said(""), "tool_calls": [CALL]}],
    ),
    "content blocks": (
        [
            {
                "request": {"system": "Be kind.", "messages": [user("weather?")]},
                "response": {
                    "type": "message",
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "hm"},
                        {"type": "text", "text": "Let me see."},
                        {"type": "tool_use", "id": "c1", "name": "weather", "input": {"town": "Bern"}},
                    ],
                    "stop_reason": "tool_use",
                },
            }
        ],
        [
            {"role": "system", "content": "Be kind."},
            user("weather?"),
            {**said("Let me see."), "tool_calls": [CALL]},
        ],
    ),
    "a proxy's messages and response": (
        [
            {
                "messages": HI[:1],
                "response": completion("hello"),
                "status": "success",
                "startTime": "2026-01-01",
            }
        ],
        HI,
    ),
    "a tracer's input and output": (
        [{"input": {"messages": HI[:1]}, "output": said("hello"), "level": "DEFAULT", "model": "m"}],
        HI,
    ),
    "a tracer's input and output as texts": (
        [{"input": json.dumps(HI[:1]), "output": json.dumps(said("hello"))}],
        HI,
    ),
    "request_body and response_body": (
        [
            {
                "request_body": {"messages": HI[:1]},
                "response_body": completion("hello"),
                "response_status": 200,
            }
        ],
        HI,
    ),
    "inputs and outputs": ([{"inputs": {"question": "hi"}, "outputs": {"output": "hello"}}], HI),
    "prompt and completion": ([{"prompt": "hi", "completion": "hello"}], HI),
    "an answer that is JSON and looks like a wrapper": (
        [{"prompt": "hi", "response": '{"subject": "a", "body": "b"}'}],
        [user("hi"), said('{"subject": "a", "body": "b"}')],
    ),
    "an answer that is an object": (
        [{"input": {"ticket": "late"}, "output": {"team": "a", "urgent": True}}],
        [user('{"ticket": "late"}'), said('{"team": "a", "urgent": true}')],
    ),
    "a record within a record": (
        [
            {
                "time": "2026-01-01",
                "properties": {"backendRequestBody": {"messages": HI[:1]}, "response": "hello"},
            }
        ],
        HI,
    ),
    "a record within a record, as a text": (
        [{"line": 3, "payload": json.dumps({"query": "hi", "reply": "hello"})}],
        HI,
    ),
    "user and assistant": ([{"user": "hi", "assistant": "hello"}], HI),
    "a conversation that its user ended": (
        [{"conversation": [*HI, user("thanks")], "thread": "t1"}],
        HI,
    ),
    "from and value": (
        [{"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]}],
        HI,
    ),
    "whole conversations": ([{"messages": HI}], HI),
    "chunks": ([{"request": {"messages": HI[:1], "stream": True}, "response": chunks("hel", "lo")}], HI),
    "server-sent events": ([{"request": {"messages": HI[:1]}, "response": sse(chunks("hel", "lo"))}], HI),
    "events of the Responses API": (
        [
            {
                "request": {"input": "hi"},
                "response": [
                    {"type": "response.output_text.delta", "delta": "hel"},
                    {"type": "response.completed", "response": response(spoken("hello"))},
                ],
            }
        ],
        HI,
    ),
    "streamed content blocks": (
        [
            {
                "request": {"messages": [user("weather?")]},
                "response": [
                    {"type": "message_start", "message": {"model": "m"}},
                    {
                        "type": "content_block_start",
                        "index": 0,
                        "content_block": {"type": "text", "text": ""},
                    },
                    {
                        "type": "content_block_delta",
                        "index": 0,
                        "delta": {"type": "text_delta", "text": "So."},
                    },
                    {
                        "type": "content_block_start",
                        "index": 1,
                        "content_block": {"type": "tool_use", "id": "c1", "name": "weather", "input": {}},
                    },
                    {"type": "content_block_delta", "index": 1, "delta": {"partial_json": '{"town": '}},
                    {"type": "content_block_delta", "index": 1, "delta": {"partial_json": '"Bern"}'}},
                    {"type": "message_delta", "delta": {"stop_reason": "tool_use"}},
                ],
            }
        ],
        [user("weather?"), {**said("So."), "tool_calls": [CALL]}],
    ),
    "chunks of calls": (
        [
            {
                "request": {"messages": [user("weather?")]},
                "response": [
                    {
                        "choices": [
                            {"index": 0, "delta": {"tool_calls": [{"index": 0, **CALL, "function": part}]}}
                        ]
                    }
                    for part in ({"name": "weather", "arguments": '{"town": '}, {"arguments": '"Bern"}'})
                ]
                + [{"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}],
            }
        ],
        [user("weather?"), {**said(""), "tool_calls": [CALL]}],
    ),
}


LEFT_OUT = {
    FAILED: [
        {"request": {"messages": [user("a")]}, "response": {"error": {"message": "overloaded"}}},
        {"request": {"messages": [user("a")]}, "response": None, "error": "timeout"},
        {"body": {"messages": [user("a")]}, "response": {"status_code": 429, "body": {"error": {"code": 1}}}},
        pair("a", "half", status="failure"),
        {"input": "a", "output": "b", "level": "ERROR", "statusMessage": "no"},
        {"request_body": {"messages": [user("a")]}, "response_body": completion("b"), "response_status": 500},
        {"request": {"input": "a"}, "response": response(spoken("b"), status="failed")},
    ],
    REFUSED: [
        pair("a", completion(None, refusal="I'm sorry.")),
        pair("a", "I'm sorry, but I can't assist with that request."),
        {
            "request": {"input": "a"},
            "response": response({**spoken(""), "content": [{"type": "refusal", "refusal": "No."}]}),
        },
        pair(
            "a", {"role": "assistant", "content": [{"type": "text", "text": "No"}], "stop_reason": "refusal"}
        ),
    ],
    FILTERED: [pair("a", completion("Well", "content_filter"))],
    CUT_OFF: [
        pair("a", completion("Once upon", "length")),
        pair(
            "a",
            {"role": "assistant", "content": [{"type": "text", "text": "Once"}], "stop_reason": "max_tokens"},
        ),
        {
            "request": {"input": "a"},
            "response": response(
                spoken("Once"), status="incomplete", incomplete_details={"reason": "max_output_tokens"}
            ),
        },
        {"request": {"messages": [user("a")]}, "response": chunks("Once", finish="length")},
    ],
    CUT: [{"request": {"messages": [user("a")]}, "response": chunks("Once", finish=None)}],
    NOTHING_ANSWERED: [
        pair("a", completion("  ")),
        {"request": {"messages": [user("a")]}, "response": {"choices": []}},
        {"messages": [user("a")]},
    ],
    NOTHING_ASKED: [
        {**completion("b"), "user": "u-17"},
        {"foo": 1, "response": "x"},
        {"request": {"messages": []}, "response": completion("b")},
    ],
    CONTINUED: [{"request": {"input": "a", "previous_response_id": "r"}, "response": response(spoken("b"))}],
    SEVERAL: [{"prompt": ["a", "b"], "completion": "c"}],
    FOREIGN: [
        {
            "request": {
                "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]
            },
            "response": completion("a cat"),
        }
    ],
    BUILT_IN: [{"request": {"input": "a"}, "response": response({"type": "web_search_call"}, spoken("b"))}],
}
