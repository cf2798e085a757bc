"""Tools, their calls and results in every spelling: read the same, kept in rows, told apart by ids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_forms_wild import ANSWER, USER, WORSE, convert

from luthier.errors import DataError
from luthier.examples import Example, Message, read_examples
from luthier.examples.formats import Conversation
from luthier.examples.read import example_id
from luthier.examples.tool_calls import ToolCall, read_answer, write_answer

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Today's weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Köln"}'}}
ASKED = Message("user", "Weather?")
CALLED = Message("assistant", "", tool_calls=(ToolCall("weather", '{"city": "Köln"}', "c1"),))
TOLD = Message("tool", "21 °C", tool_call_id="c1")
SAID = Message("assistant", "It is 21 °C.")


def without_ids(said: Conversation) -> tuple[Message, ...]:
    blank = [
        Message(m.role, m.content, m.weight, tuple(ToolCall(c.name, c.arguments) for c in m.tool_calls))
        for m in said.messages
    ]
    return tuple(blank)


BARE = without_ids(Conversation((ASKED, CALLED, TOLD, SAID), None, {}, (), True, (), {}))
SHAREGPT = [
    {"from": "human", "value": "Weather?"},
    {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "Köln"}}'},
    {"from": "observation", "value": "21 °C"},
    {"from": "gpt", "value": "It is 21 °C."},
]
OPENAI = [
    {"role": "user", "content": "Weather?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c1", "content": "21 °C"},
    {"role": "assistant", "content": "It is 21 °C."},
]
WITH_TOOLS: list[dict[str, Any]] = [
    {"messages": OPENAI, "tools": [TOOL], "parallel_tool_calls": False},
    {"messages": OPENAI, "tools": json.dumps([TOOL]), "parallel_tool_calls": False},
    {
        "messages": [
            OPENAI[0],
            {
                "role": "assistant",
                "content": None,
                "function_call": {"name": "weather", "arguments": '{"city":"Köln"}'},
            },
            {"role": "function", "name": "weather", "content": "21 °C"},
            OPENAI[3],
        ],
        "functions": [TOOL["function"]],
    },
    {"conversations": SHAREGPT, "tools": json.dumps([TOOL["function"]])},
    {
        "conversations": [
            SHAREGPT[0],
            SHAREGPT[1] | {"from": "tool_call"},
            SHAREGPT[2] | {"from": "function_response"},
            SHAREGPT[3],
        ],
        "tools": [TOOL],
    },
    {
        "conversations": [SHAREGPT[0], SHAREGPT[1], SHAREGPT[2] | {"from": "tool"}, SHAREGPT[3]],
        "tools": [TOOL],
    },
    {
        "contents": [
            {"role": "user", "parts": [{"text": "Weather?"}]},
            {"role": "model", "parts": [{"functionCall": {"name": "weather", "args": {"city": "Köln"}}}]},
            {"role": "user", "parts": [{"functionResponse": {"name": "weather", "response": "21 °C"}}]},
            {"role": "model", "parts": [{"text": "It is "}, {"text": "21 °C."}]},
        ],
        "tools": [
            {
                "functionDeclarations": [
                    TOOL["function"]
                    | {
                        "parameters": {
                            "type": "OBJECT",
                            "properties": {"city": {"type": "STRING"}},
                            "required": ["city"],
                        }
                    }
                ]
            }
        ],
    },
    {
        "messages": [
            OPENAI[0],
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Köln"}}],
            },
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "21 °C"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "It is 21 °C."}]},
        ],
        "tools": [
            {
                "name": "weather",
                "description": "Today's weather",
                "input_schema": TOOL["function"]["parameters"],  # type: ignore[index]
            }
        ],
    },
]


@pytest.mark.parametrize("row", WITH_TOOLS)
def test_calls_results_and_tools_are_the_same_in_every_spelling(row: dict[str, Any]) -> None:
    said = convert(row)
    assert without_ids(said) == BARE
    assert said.tools == (TOOL,)
    assert set(said.fields) == set(row) & {"parallel_tool_calls"}


def test_ids_and_names_of_calls_are_kept() -> None:
    assert convert(WITH_TOOLS[0]).messages == (ASKED, CALLED, TOLD, SAID)
    assert convert(WITH_TOOLS[2]).messages[2].name == "weather"
    assert convert(WITH_TOOLS[7]).messages == (ASKED, CALLED, TOLD, SAID)


def test_the_answer_may_be_a_call() -> None:
    row = {"messages": OPENAI[:2], "tools": [TOOL]}
    assert convert(row).messages == (ASKED, CALLED)
    xlam = {
        "id": 7,
        "query": "Weather?",
        "answers": '[{"name": "weather", "arguments": {"city": "Köln"}}]',
        "tools": json.dumps([TOOL["function"]]),
    }
    said = convert(xlam)
    assert (without_ids(said), said.tools, said.fields) == (BARE[:2], (TOOL,), {"id": 7})


def test_an_answer_and_the_call_after_it_are_one_message() -> None:
    turns = [SHAREGPT[0], {"from": "gpt", "value": "I look."}, SHAREGPT[1], SHAREGPT[1], *SHAREGPT[2:]]
    messages = convert({"conversations": turns}).messages
    assert [m.role for m in messages] == ["user", "assistant", "tool", "assistant"]
    assert (messages[1].content, len(messages[1].tool_calls)) == ("I look.", 2)
    kept_apart = [SHAREGPT[0], {"from": "gpt", "value": "I look.", "weight": 0}, SHAREGPT[1]]
    assert [m.weight for m in convert({"conversations": kept_apart}).messages] == [1, 0, 1]


def test_results_in_blocks_come_before_what_the_user_says_with_them() -> None:
    calls = [
        {"type": "text", "text": "I look."},
        {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Köln"}},
        {"type": "tool_use", "id": "c2", "name": "weather", "input": {}},
    ]
    results = [
        {"type": "tool_result", "tool_use_id": "c2", "content": [{"type": "text", "text": "none"}]},
        {"type": "tool_result", "tool_use_id": "c1", "content": "21 °C"},
        {"type": "text", "text": "So?"},
    ]
    row = {
        "system": [{"type": "text", "text": "Be brief."}],
        "messages": [
            OPENAI[0],
            {"role": "assistant", "content": calls},
            {"role": "user", "content": results},
            ANSWER,
        ],
    }
    messages = convert(row).messages
    assert [(m.role, m.text) for m in messages] == [
        ("system", "Be brief."),
        ("user", "Weather?"),
        (
            "assistant",
            'I look.\n{"calls": [{"name": "weather", "arguments": {"city": "Köln"}}, '
            '{"name": "weather", "arguments": {}}]}',
        ),
        ("tool", "none"),
        ("tool", "21 °C"),
        ("user", "So?"),
        ("assistant", "Here."),
    ]
    assert [m.tool_call_id for m in messages[3:5]] == ["c2", "c1"]


def test_openai_preferences_keep_tools_calls_and_settings() -> None:
    row = {
        "input": {"messages": [OPENAI[0]], "tools": [TOOL], "parallel_tool_calls": True},
        "preferred_output": [OPENAI[1]],
        "non_preferred_output": [WORSE],
        "source": "app",
    }
    said = convert(row)
    assert (said.messages, said.rejected, said.tools) == ((ASKED, CALLED), ("No idea.",), (TOOL,))
    assert said.fields == {"source": "app", "parallel_tool_calls": True}
    swapped = row | {"preferred_output": [WORSE], "non_preferred_output": [OPENAI[1]]}
    assert convert(swapped).rejected == ('{"name": "weather", "arguments": {"city": "Köln"}}',)


def test_files_name_the_line_of_a_bad_call(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    rows = [
        {"messages": OPENAI[:2], "tools": [TOOL]},
        {"messages": [USER, ANSWER | {"tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(DataError, match=r"calls.jsonl:2: messages\[1\].tool_calls\[0\].arguments"):
        read_examples(path)
    read = read_examples(path, strict=False)
    assert (len(read.examples), read.problems[0].where) == (1, f"{path}:2")


def example(**more: Any) -> Example:
    return Example("i", (ASKED, CALLED, TOLD, SAID), "f", 1, **more)


def test_rows_keep_calls_tools_and_provenance() -> None:
    full = example(tools=(TOOL,), provenance={"source": "web", "synthetic": True}, fields={"a": 1}, group="g")
    row = json.loads(json.dumps(full.as_row()))
    assert Example.from_row(row) == full
    assert row["messages"][1]["tool_calls"] == [
        {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Köln"}'}}
    ]
    plain = Example("i", (Message("user", "q"), Message("assistant", "a")), "f", 1)
    assert plain.as_row() == {
        "id": "i",
        "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
        "file": "f",
        "line": 1,
    }


def test_ids_tell_calls_and_tools_apart_but_not_the_ids_of_calls() -> None:
    other_id = Message("assistant", "", tool_calls=(ToolCall("weather", '{"city": "Köln"}', "c2"),))
    other_city = Message("assistant", "", tool_calls=(ToolCall("weather", '{"city": "Bonn"}', "c1"),))
    assert example_id((ASKED, CALLED)) == example_id((ASKED, other_id))
    assert len({example_id((ASKED, m)) for m in (CALLED, other_city, SAID)}) == 3
    assert example_id((ASKED, SAID), tools=(TOOL,)) != example_id((ASKED, SAID))
    assert example_id((Message("user", "Where?"), Message("assistant", "Here."))) == "3de14d444f65311d"


def test_the_input_holds_what_tools_returned_since_the_user_spoke() -> None:
    assert example().input == "Weather?\n21 °C"
    assert Example("i", (ASKED, CALLED), "f", 1).input == "Weather?"
    assert Example("i", (ASKED, CALLED, TOLD, SAID, ASKED, SAID), "f", 1).input == "Weather?"


def test_the_answer_of_a_call_is_its_json() -> None:
    asked = Example("i", (ASKED, CALLED), "f", 1)
    assert asked.answer == '{"name": "weather", "arguments": {"city": "Köln"}}'
    assert asked.texts == ["Weather?", asked.answer]
    call = ToolCall("f", "{}")
    for content, calls in (
        ("", (call,)),
        ("", (call, call)),
        ("I look\nhere.\n", (call,)),
        ("Just words", ()),
    ):
        assert read_answer(write_answer(content, calls)) == (content, calls)


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "f"}',
        '{"name": "f", "arguments": []}',
        '{"name":"f", "arguments": {}}',
        "[]",
        "7",
        "",
        '{"arguments": {}, "name": "f"}',
        '{"calls": [{"name": "f", "arguments": {}}]}',
        '\n{"name": "f", "arguments": {}}',
        "[",
    ],
)
def test_other_texts_are_no_calls(text: str) -> None:
    assert read_answer(text) == (text, ())
