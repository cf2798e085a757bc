"""Each form of examples becomes the same kind of conversation, or says what is wrong with a row."""

import json
from typing import Any

import pytest
from test_forms_wild import COVERED

from luthier.errors import DataError
from luthier.examples.formats import FORMATS, convert_row, recognise_format


def convert(row: dict[str, Any]) -> list[tuple[str, str]]:
    messages, *_ = convert_row(recognise_format([row], where="f"), row)
    return [(m.role, m.content) for m in messages]


ASKED = [("user", "Where?"), ("assistant", "Here.")]
ROWS = [
    (
        "messages",
        {"messages": [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "Here."}]},
    ),
    (
        "sharegpt",
        {"conversations": [{"from": "human", "value": "Where?"}, {"from": "gpt", "value": "Here."}]},
    ),
    ("prompt/completion", {"prompt": "Where?", "completion": "Here."}),
    ("chosen/rejected", {"prompt": "Where?", "chosen": "Here.", "rejected": "No idea."}),
    ("prompt/completion/label", {"prompt": "Where?", "completion": "Here.", "label": True}),
    (
        "prompt/completion",
        {
            "prompt": [{"role": "user", "content": "Where?"}],
            "completion": [{"role": "assistant", "content": "Here."}],
        },
    ),
    ("alpaca", {"instruction": "Where?", "input": "", "output": "Here."}),
    ("input/output", {"input": "Where?", "output": "Here."}),
    ("text/label", {"text": "Where?", "label": "Here."}),
    ("question/answer", {"question": "Where?", "answer": "Here."}),
]


@pytest.mark.parametrize(("name", "row"), ROWS)
def test_every_form_gives_the_same_conversation(name: str, row: dict[str, Any]) -> None:
    assert recognise_format([row], where="f").name == name
    assert convert(row) == ASKED


def test_every_form_is_covered_here_or_among_those_in_the_wild() -> None:
    covered = {name for name, _ in ROWS} | COVERED
    assert covered == {form.name for form in FORMATS if form.asks}


def test_alpaca_puts_the_input_under_the_instruction_and_the_history_before_it() -> None:
    row = {"instruction": "Translate", "input": "chat", "output": "cat", "history": [["Hi", "Hello"]]}
    assert convert(row) == [
        ("user", "Hi"),
        ("assistant", "Hello"),
        ("user", "Translate\n\nchat"),
        ("assistant", "cat"),
    ]


def test_a_question_comes_after_its_passage_and_before_its_options() -> None:
    row = {"passage": "It rains.", "question": "Is it dry?", "options": ["yes", "no"], "answer": 1}
    assert convert(row) == [("user", "It rains.\n\nIs it dry?\n\nA. yes\nB. no"), ("assistant", "B")]
    arc = {"question": "Q", "choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answer": "2"}
    assert convert(arc) == [("user", "Q\n\n1. x\n2. y"), ("assistant", "2")]
    assert convert({"question": "Q", "options": "A) x", "answer": True})[0] == ("user", "Q\n\nA) x")


def test_answers_that_are_not_text_become_json() -> None:
    assert convert({"input": "x", "output": {"naïve": [1, None]}})[1] == ("assistant", '{"naïve": [1, null]}')
    assert convert({"text": "x", "label": 3})[1] == ("assistant", "3")


def test_texts_are_kept_to_the_letter() -> None:
    assert convert({"prompt": " a ", "completion": " b\n"}) == [("user", " a "), ("assistant", " b\n")]


def test_weights_parts_and_developer_messages_of_chat() -> None:
    row = {
        "messages": [
            {"role": "developer", "content": "Be short."},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": "no", "weight": 0},
            {"role": "user", "content": "again"},
            {"role": "assistant", "content": "yes", "weight": 1},
        ]
    }
    messages, *_ = convert_row(recognise_format([row], where="f"), row)
    assert [(m.role, m.content, m.weight) for m in messages] == [
        ("system", "Be short.", 1),
        ("user", "ab", 1),
        ("assistant", "no", 0),
        ("user", "again", 1),
        ("assistant", "yes", 1),
    ]


def test_system_group_and_other_columns() -> None:
    row = {"Text": "x", "LABEL": "y", "system": "S", "group": 7, "Source": "mail"}
    messages, group, fields, *_ = convert_row(recognise_format([row], where="f"), row)
    assert [(m.role, m.content) for m in messages] == [("system", "S"), ("user", "x"), ("assistant", "y")]
    assert group == "7"
    assert fields == {"Source": "mail"}


def test_a_system_column_does_not_double_a_system_message() -> None:
    row = {"messages": [{"role": "system", "content": "own"}, *ROWS[0][1]["messages"]], "system": "column"}
    messages, *_ = convert_row(recognise_format([row], where="f"), row)
    assert [m.content for m in messages if m.role == "system"] == ["own"]


def test_the_form_of_most_rows_wins() -> None:
    rows = [{"text": "a", "label": "b"}, {"text": "a", "label": "b"}, {"prompt": "a", "completion": "b"}]
    assert recognise_format(rows, where="f").name == "text/label"
    with pytest.raises(DataError, match=r"no column text, label \(found prompt, completion\)"):
        convert_row(recognise_format(rows, where="f"), rows[2])


def test_unknown_columns_are_named_with_what_is_accepted() -> None:
    with pytest.raises(DataError) as caught:
        recognise_format([{"body": "x", "class": "y"}], where="data.csv")
    assert "body, class" in caught.value.message
    assert caught.value.where == "data.csv"
    told = (caught.value.fix or "").removeprefix("name the columns like one of: ").split("; ")
    for columns in told:  # each is a form that is read
        rows = [dict.fromkeys(columns.split(" + "), "x")]
        assert recognise_format(rows, where="f").needs
    assert len(told) > 5


def chat(*turns: Any) -> dict[str, Any]:
    return {"messages": list(turns)}


USER, ANSWER = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (chat(), "no messages"),
        (chat(USER), "last message is from 'user'"),
        (chat(USER, ANSWER, USER), "last message is from 'user'"),
        (chat(USER, ANSWER | {"content": " \n"}), "the answer is empty"),
        (chat(ANSWER), "nothing from the user"),
        (chat({"role": "system", "content": "s"}, ANSWER), "nothing from the user"),
        (chat(USER, ANSWER | {"weight": 0}), "weight 0, so nothing"),
        (chat(USER, ANSWER | {"weight": 0.5}), "weight 0.5"),
        (chat(USER | {"role": "narrator"}, ANSWER), "role 'narrator'"),
        (chat(USER, ANSWER | {"content": None}), "messages[1] has no text"),
        (chat(USER, ANSWER | {"tool_calls": [{"id": 1}]}), "tool_calls[0] does not name a tool"),
        (chat(USER | {"content": [{"type": "image_url"}]}, ANSWER), "messages[0] has no text"),
        (chat("hello", ANSWER), "messages[0] is not a message"),
        ({"messages": "hello"}, "messages is not a list"),
        ({"conversations": [{"from": "human"}]}, "conversations[0] is not a turn"),
        ({"conversations": [{"from": "narrator", "value": "x"}]}, "from 'narrator'"),
        ({"conversations": "x"}, "conversations is not a list"),
        ({"conversations": [{"from": "human", "value": "x"}]}, "last message is from 'user'"),
        ({"prompt": "x", "completion": None}, "completion is null"),
        ({"prompt": "x", "completion": ""}, "the answer is empty"),
        ({"instruction": "", "input": "", "output": "x"}, "nothing from the user"),
        ({"instruction": "x", "output": "x", "history": ["hi"]}, "history[0] is not a pair"),
        ({"text": "x", "label": None}, "label is null"),
    ],
)
def test_bad_rows_say_what_is_wrong(row: dict[str, Any], expected: str) -> None:
    with pytest.raises(DataError) as caught:
        convert_row(recognise_format([row], where="f"), json.loads(json.dumps(row)))
    assert expected in caught.value.message
    assert caught.value.fix
