"""Rows as other programs and data sets write them: recognised without being told, read to the letter."""

from __future__ import annotations

import json
from typing import Any

import pytest

from luthier.errors import DataError
from luthier.examples import Message
from luthier.examples.formats import Conversation, convert_row, recognise_format

USER = {"role": "user", "content": "Where?"}
ANSWER = {"role": "assistant", "content": "Here."}
WORSE = {"role": "assistant", "content": "No idea."}
PAIR = {"chosen": "Here.", "rejected": "No idea."}
BOTH = ["No idea.", "Here."]
FIRST = ["Here.", "No idea."]
SQUAD = {"text": ["Here."], "answer_start": [0]}
GEMINI = [{"role": "user", "parts": [{"text": "Where?"}]}, {"role": "model", "parts": [{"text": "Here."}]}]
LABELLED = ("category", "class", "sentiment", "intent", "emotion", "target")
OWN = {"id": "3de14d444f65311d", "file": "f", "line": 1}

# What each says is asked "Where?" and answered "Here."; then what the row says besides.
WILD: list[tuple[str, dict[str, Any]]] = [
    ("luthier", OWN | {"messages": [USER, ANSWER]}),
    ("gemini", {"contents": GEMINI}),
    ("sharegpt", {"conversation": [{"from": "human", "value": "Where?"}, {"from": "gpt", "value": "Here."}]}),
    ("sharegpt", {"conversation": [USER, ANSWER | {"toxic": False}]}),
    ("sharegpt", {"conversations": [USER, {"from": "chatgpt", "value": "Here."}]}),
    ("messages", {"messages": [{"from": "human", "value": "Where?"}, {"from": "gpt", "value": "Here."}]}),
    ("messages", {"messages": json.dumps([USER, ANSWER])}),
    ("prompt/completion", {"prompt": json.dumps([USER]), "completion": json.dumps([ANSWER])}),
    ("instruction/response", {"instruction": "Where?", "response": "Here."}),
    ("instruction/response", {"instruction": "Where?", "input": "", "context": "", "response": "Here."}),
    ("question/answers", {"question": "Where?", "context": "", "answers": SQUAD}),
    ("question/answers", {"question": "Where?", "answers": json.dumps(SQUAD)}),
    ("question/answers", {"question": "Where?", "answers": ["Here.", "Here."]}),
    ("question/response", {"question": "Where?", "response": "Here."}),
    ("query/response", {"query": "Where?", "response": "Here."}),
    ("query/answer", {"Query": "Where?", "Answer": "Here."}),
    ("prompt/response", {"prompt": "Where?", "response": "Here."}),
    ("prompt/answer", {"prompt": "Where?", "answer": "Here."}),
    ("problem/solution", {"problem": "Where?", "solution": "Here."}),
    ("sentence/label", {"sentence": "Where?", "label": "Here."}),
    ("article/highlights", {"article": "Where?", "highlights": "Here."}),
    ("article/summary", {"article": "Where?", "summary": "Here."}),
    ("dialogue/summary", {"dialogue": "Where?", "summary": "Here."}),
    ("text/summary", {"text": "Where?", "summary": "Here."}),
    ("document/summary", {"document": "Where?", "summary": "Here."}),
    ("source/target", {"source": "Where?", "target": "Here."}),
    ("input_text/output_text", {"input_text": "Where?", "output_text": "Here."}),
    ("inputs/targets", {"inputs": "Where?", "targets": "Here."}),
    ("question/answerkey", {"question": "Where?", "answerKey": "Here."}),
    *((f"text/{name}", {"text": "Where?", name.title(): "Here."}) for name in LABELLED),
    (
        "messages",
        {"messages": [{"role": "User", "message": "Where?"}, {"role": "CHATBOT", "message": "Here."}]},
    ),
    (
        "messages",
        {"messages": [{"author": "user", "content": "Where?"}, {"author": "bot", "content": "Here."}]},
    ),
    (
        "messages",
        {"chat_messages": [{"sender": "human", "text": "Where?"}, {"sender": "AI ", "text": "Here."}]},
    ),
    (
        "sharegpt",
        {"conversations": [{"from": "Human", "value": "Where?"}, {"from": "bard", "value": "Here."}]},
    ),
    (
        "sharegpt",
        {"conversations": [{"from": "user", "value": "Where?"}, {"from": "bing", "value": "Here."}]},
    ),
    ("messages", {"messages": [{"role": None, "from": "human", "content": ["Wh", "ere?"]}, ANSWER]}),
    ("messages/label", {"messages": [USER, ANSWER], "label": True}),
    ("sharegpt/label", {"conversations": [USER, ANSWER], "label": "True"}),
    ("prompt/completion", {"prompt": ["Where?"], "completion": ["Here."]}),
    ("prompt/completion/label", {"prompt": "Where?", "completion": ["Here."], "label": 1}),
]

# The same, and that "No idea." is worse.
PREFERRED: list[tuple[str, dict[str, Any]]] = [
    (
        "openai preference",
        {"input": {"messages": [USER]}, "preferred_output": [ANSWER], "non_preferred_output": [WORSE]},
    ),
    (
        "chosen/rejected",
        {
            "conversations": [{"from": "human", "value": "Where?"}],
            "chosen": {"from": "gpt", "value": "Here."},
            "rejected": {"from": "gpt", "value": "No idea."},
        },
    ),
    ("chosen/rejected", {"instruction": "Where?", "input": ""} | PAIR),
    ("chosen/rejected", {"question": "Where?"} | PAIR),
    ("chosen/rejected", {"chosen": json.dumps([USER, ANSWER]), "rejected": json.dumps([USER, WORSE])}),
    ("luthier", OWN | {"messages": [USER, ANSWER], "rejected": ["No idea."]}),
    (
        "luthier",
        OWN
        | {"line": "1", "messages": json.dumps([USER, ANSWER]), "rejected": '["No idea."]'}
        | {"wanted": "", "tools": "", "fields": ""},
    ),
    ("prompt/answers ranked", {"prompt": "Where?", "answers": BOTH, "ranks": [2, 1]}),
    ("prompt/responses ranked", {"prompt": [USER], "responses": FIRST, "scores": [0.5, -1]}),
    (
        "prompt/completions ranked",
        {"prompt": "Where?", "completions": [{"text": BOTH[0], "score": 1}, {"text": BOTH[1], "score": 2}]},
    ),
    (
        "instruction/completions ranked",
        {
            "instruction": "Where?",
            "completions": [
                {"response": BOTH[n], "overall_score": score} for n, score in enumerate((4, 7.5))
            ],
        },
    ),
    (
        "prompt/answers ranked",
        {"prompt": "Where?", "answers": [{"answer": BOTH[0], "rank": 2.0}, {"answer": BOTH[1], "rank": 1.0}]},
    ),
    ("prompt/answers ranked", {"prompt": "Where?", "answers": json.dumps(BOTH), "ratings": "[1, 5]"}),
    ("prompt/answers ranked", {"prompt": "Where?", "answers": BOTH, "scores": ["1", "5.5"]}),
    ("question/completions ranked", {"question": "Where?", "completions": BOTH, "scores": [1, 2]}),
    ("instruction/responses ranked", {"instruction": "Where?", "responses": FIRST, "rank": [1, 2]}),
    ("question/responses ranked", {"question": "Where?", "responses": FIRST, "rewards": [2, 1]}),
]


def convert(row: dict[str, Any]) -> Conversation:
    return convert_row(recognise_format([row], where="f"), json.loads(json.dumps(row)))


COVERED = {name for name, _ in WILD} | {name for name, _ in PREFERRED} | {"query/answers/tools"}


@pytest.mark.parametrize(("name", "row"), WILD)
def test_every_form_gives_the_same_conversation(name: str, row: dict[str, Any]) -> None:
    said = convert(row)
    assert recognise_format([row], where="f").name == name
    assert said.messages == (Message("user", "Where?"), Message("assistant", "Here."))
    assert (said.rejected, said.wanted, said.tools, said.fields) == ((), True, (), {})


@pytest.mark.parametrize(("name", "row"), PREFERRED)
def test_every_form_of_preference_says_the_same(name: str, row: dict[str, Any]) -> None:
    said = convert(row)
    assert recognise_format([row], where="f").name == name
    assert said.messages == (Message("user", "Where?"), Message("assistant", "Here."))
    assert (said.rejected, said.wanted, said.fields) == (("No idea.",), True, {})


def test_reasoning_stands_before_the_answer_as_models_write_it() -> None:
    expected = "<think>\nHm.\n</think>\n\nHere."
    for key in ("reasoning_content", "reasoning", "thinking"):
        assert convert({"messages": [USER, ANSWER | {key: "Hm.\n"}]}).messages[1].content == expected
    blocks = [{"type": "thinking", "thinking": "Hm.", "signature": "x"}, {"type": "text", "text": "Here."}]
    assert (
        convert({"messages": [USER, {"role": "assistant", "content": blocks}]}).messages[1].content
        == expected
    )
    parts = [{"text": "Hm.", "thought": True}, {"text": "Here."}]
    row = {"contents": [{"role": "user", "parts": [{"text": "Where?"}]}, {"role": "model", "parts": parts}]}
    assert convert(row).messages[1].content == expected
    assert convert({"messages": [USER, ANSWER | {"thinking": None}]}).messages[1].content == "Here."


def test_refusals_names_and_trained_turns() -> None:
    row = {
        "messages": [
            USER | {"name": "Ann"},
            ANSWER | {"train": False},
            USER,
            {"role": "assistant", "content": None, "refusal": "I cannot."},
        ]
    }
    messages = convert(row).messages
    assert [(m.content, m.weight, m.name) for m in messages] == [
        ("Where?", 1, "Ann"), ("Here.", 0, ""), ("Where?", 1, ""), ("I cannot.", 1, ""),
    ]  # fmt: skip


def test_system_instructions_of_gemini() -> None:
    turns = [{"parts": [{"text": "Where?"}]}, {"role": "model", "parts": {"text": "Here."}}]
    for name in ("systemInstruction", "system_instruction"):
        row = {name: {"parts": [{"text": "Be brief."}]}, "contents": turns, "generationConfig": {"topK": 1}}
        said = convert(row)
        assert [(m.role, m.content) for m in said.messages] == [
            ("system", "Be brief."), ("user", "Where?"), ("assistant", "Here."),
        ]  # fmt: skip
        assert said.fields == {"generationConfig": {"topK": 1}}


def test_squad_asks_about_its_context_and_keeps_other_answers() -> None:
    answers = {"text": ["Here.", "there"], "answer_start": [0, 3]}
    said = convert(
        {"id": "5", "title": "T", "context": "It is here.", "question": "Where?", "answers": answers}
    )
    assert [m.content for m in said.messages] == ["It is here.\n\nWhere?", "Here."]
    assert said.fields == {"id": "5", "title": "T", "answers": answers}


def test_dolly_puts_its_context_before_the_instruction() -> None:
    row = {"instruction": "Where?", "context": "It is here.", "response": "Here.", "category": "closed_qa"}
    said = convert(row)
    assert said.messages[0].content == "It is here.\n\nWhere?"
    assert said.fields == {"category": "closed_qa"}
    history = row | {"history": json.dumps([["Hi", "Hello"]]), "input": "Today.", "context": ""}
    assert [m.content for m in convert(history).messages] == ["Hi", "Hello", "Where?\n\nToday.", "Here."]


def test_columns_that_did_not_ask_stay_fields() -> None:
    row = {"prompt": "Where?", "chosen": "Here.", "rejected": "No idea.", "question": "old", "input": "x"}
    assert convert(row).fields == {"question": "old", "input": "x"}
    whole = {"question": "in words", "chosen": [USER, ANSWER], "rejected": [USER, WORSE]}
    assert convert(whole).messages[0].content == "Where?"


TOOL = {"type": "function", "function": {"name": "weather", "parameters": {}}}


def test_a_column_called_tools_may_be_something_else() -> None:
    row = {"question": "Where?", "answer": "Here.", "tools": "hammer, saw"}
    assert convert(row).fields == {"tools": "hammer, saw"}
    offered = convert(row | {"tools": json.dumps([TOOL])})
    assert (offered.fields, offered.tools) == ({}, (TOOL,))


def test_provenance_is_an_object_or_the_words_of_its_source() -> None:
    row = {"prompt": "Where?", "completion": "Here."}
    for value in ({"source": "web", "license": "CC0"}, '{"source": "web", "license": "CC0"}'):
        assert convert(row | {"provenance": value}).provenance == {"source": "web", "licence": "CC0"}
    assert convert(row | {"Provenance": "web"}).provenance == {"source": "web"}
    assert convert(row | {"provenance": ""}).provenance == convert(row).provenance == {}
    assert convert({"text": "a", "provenance": "web"}).provenance == {"source": "web"}


def test_a_judgement_of_a_conversation() -> None:
    turns = {"conversations": [USER, ANSWER]}
    assert [convert(turns | {"kto_tag": tag}).wanted for tag in (True, False, "false", None)] == [
        True,
        False,
        False,
        True,
    ]


CALL = {"id": "c1", "function": {"name": "weather", "arguments": "{}"}}


def chat(*turns: Any) -> dict[str, Any]:
    return {"messages": [USER, *turns]}


def calling(arguments: Any) -> dict[str, Any]:
    return ANSWER | {"tool_calls": [{"function": {"name": "f", "arguments": arguments}}]}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (chat(calling("{")), "messages[1].tool_calls[0].arguments is not valid JSON"),
        (chat(calling("[1]")), "messages[1].tool_calls[0].arguments is not a JSON object"),
        (chat(calling('{"a": 1, "a": 2}')), "appears twice"),
        (chat(ANSWER | {"tool_calls": "weather()"}), "messages[1].tool_calls is not valid JSON"),
        (chat(ANSWER | {"function_call": {"arguments": "{}"}}), "function_call does not name a tool"),
        (chat(ANSWER | {"content": "", "tool_calls": []}), "the answer is empty"),
        (
            chat(
                calling("{}") | {"tool_calls": [CALL]},
                {"role": "tool", "tool_call_id": "c9", "content": ""},
                ANSWER,
            ),
            "messages[2] is the result of call 'c9', which nobody made",
        ),
        (chat({"role": "tool", "tool_call_id": 7, "content": ""}, ANSWER), "messages[1].tool_call_id is 7"),
        (chat({"role": "tool", "content": None}, ANSWER), "messages[1] has no text: its content is null"),
        (chat(ANSWER | {"content": [{"type": "image", "source": {}}]}), "messages[1] has no text content"),
        (chat(ANSWER | {"role": ["assistant"]}), "messages[1] has role ['assistant']"),
        ({"messages": "[{]"}, "messages is not a list"),
        (chat(ANSWER) | {"tools": "hammer"}, "tools is not valid JSON"),
        (chat(ANSWER) | {"tools": [{"type": "function"}]}, "tools[0] does not name a tool"),
        (chat(ANSWER) | {"functions": [7]}, "functions[0] is not a tool"),
        (chat(ANSWER) | {"provenance": ["web"]}, "provenance is a list"),
        (
            {"conversations": [{"from": "human", "value": "x"}, {"from": "function_call", "value": "f()"}]},
            "conversations[1] is not valid JSON",
        ),
        ({"conversations": [{"from": "wizard", "value": "x"}]}, "conversations[0] is from 'wizard'"),
        ({"contents": "x"}, "contents is not a list"),
        ({"contents": [{"role": "user", "text": "x"}]}, "contents[0] is not a turn"),
        ({"contents": [{"role": "wizard", "parts": []}]}, "contents[0] has role 'wizard'"),
        ({"contents": [{"role": "user", "parts": [{"inlineData": {}}]}]}, "contents[0].parts[0] has no text"),
        (
            {"contents": [{"role": "user", "parts": [{"functionResponse": {}}]}]},
            "is not the response of a function",
        ),
        ({"input": "x", "preferred_output": [ANSWER], "non_preferred_output": [WORSE]}, "input is a str"),
        (
            {"input": {"messages": [USER]}, "preferred_output": [USER], "non_preferred_output": [WORSE]},
            "preferred_output is not one message of the assistant",
        ),
        (
            {"input": {"messages": [USER]}, "preferred_output": [ANSWER], "non_preferred_output": [ANSWER]},
            "same answer",
        ),
        ({"prompt": "q", "answers": ["a", "b"]}, "nothing says which of answers is better"),
        ({"prompt": "q", "answers": ["a", "b"], "ranks": [1]}, "ranks has 1 values for 2 answers"),
        ({"prompt": "q", "answers": ["a", "b"], "ranks": [1, 1]}, "two answers are equally good"),
        ({"prompt": "q", "answers": ["a", "b"], "scores": [1, "x"]}, "scores[1] is 'x', expected a number"),
        ({"prompt": "q", "answers": ["a"], "ranks": [1]}, "answers holds 1 answers"),
        ({"prompt": "q", "answers": ["a", 7], "ranks": [1, 2]}, "answers[1] is not text"),
        ({"prompt": "q", "answers": "a", "ranks": [1, 2]}, "answers is not a list"),
        ({"question": "q", "answers": {"text": [], "answer_start": []}}, "answers is empty"),
        ({"query": "q", "answers": "7", "tools": "[]"}, "answers is not a call"),
        (OWN | {"messages": [USER, ANSWER], "fields": "x"}, "fields is not an object"),
    ],
)
def test_bad_rows_say_what_is_wrong(row: dict[str, Any], expected: str) -> None:
    with pytest.raises(DataError) as caught:
        convert(row)
    assert expected in caught.value.message
    assert caught.value.fix


def test_a_judgement_of_turns_is_not_left_beside_them() -> None:
    for listed in ("messages", "conversations"):
        assert convert({listed: [USER, ANSWER], "label": False}).wanted is False
        assert convert({listed: [USER, ANSWER], "label": 0}).fields == {"label": 0}
    for label in (0, "0", "false"):
        assert convert({"prompt": "Where?", "completion": "Here.", "label": label}).wanted is False
    assert convert({"prompt": "Where?", "completion": "Here.", "label": 2}).fields == {"label": 2}


def test_a_column_of_system_prompts_is_one_whatever_it_is_called() -> None:
    row = {"id": 1, "system_prompt": "Be brief.", "question": "Where?", "response": "Here."}
    said = convert(row)
    assert [(m.role, m.content) for m in said.messages] == [
        ("system", "Be brief."), ("user", "Where?"), ("assistant", "Here."),
    ]  # fmt: skip
    assert said.fields == {"id": 1}
    assert len(convert(row | {"system_prompt": ""}).messages) == 2
    whole = {"system_prompt": "Be brief.", "chosen": [USER, ANSWER], "rejected": [USER, WORSE]}
    assert (len(convert(whole).messages), convert(whole).rejected) == (3, ("No idea.",))


def test_what_a_turn_lacks_is_named() -> None:
    for row, says, fix in (
        ({"messages": [USER, ANSWER | {"content": None}]}, "its content is null", "write it"),
        ({"messages": "[{'role': 'user', 'content': 'Where?'}]"}, "as Python prints it", "json.dumps"),
        ({"prompt": "Where?", "completion": ["Here.", "There."]}, "holds 2 texts", "`completions`"),
        ({"messages": [USER, {"role": "robot", "content": "x"}]}, "has role 'robot'", "use system, user"),
        ({"prompt": "q", "answers": BOTH, "scores": ["1", "N/A"]}, "scores[1] is 'N/A'", "scores"),
    ):
        with pytest.raises(DataError) as caught:
            convert(row)
        assert says in caught.value.message
        assert fix in (caught.value.fix or "")


@pytest.mark.parametrize(
    "beside",
    [{"labels": ["a", "b"]}, {"role": "prompter", "parent_id": None}, {"sender": "human", "uuid": "1"}],
)
def test_a_text_with_labels_or_a_speaker_is_not_plain(beside: dict[str, Any]) -> None:
    rows = [{"text": "Where is it?"} | beside] * 3
    with pytest.raises(DataError, match=f"not recognised: text, {next(iter(beside))}"):
        recognise_format(rows, where="f")
    for kept in ({"url": "u"}, {"author": "Ann"}, {"sender": "a@b.c"}):
        assert recognise_format([{"text": "It is here."} | kept], where="f").name == "text"
