"""`luthier collect logs`: every variant, what is left out and why, conversations that repeat themselves."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logged import CALL, HI, LEFT_OUT, TOOL, VARIANTS, Rows, completion, pair, said, user
from typer.testing import CliRunner, Result

from luthier.cli.main import app
from luthier.cli.screen import console
from luthier.collect import logs as module
from luthier.collect.log_filters import Wanted, parse_rating, parse_since
from luthier.collect.log_outcome import FAILED
from luthier.collect.logs import DUPLICATE, EARLIER_TURN, NOT_DRAWN, LogOptions, collect_logs
from luthier.collect.tally import Tally
from luthier.errors import RecipeError
from luthier.examples import read_examples


def write(path: Path, rows: Rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path) -> Rows:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def collected(folder: Path, rows: Rows, options: LogOptions | None = None) -> tuple[Tally, Rows]:
    """The tally, and the rows that were written; all of them can be read as examples."""
    out = folder / "examples.jsonl"
    tally = collect_logs([write(folder / "log.jsonl", rows)], out, options, force=True)
    found = read(out) if tally.taken else []
    if found:
        assert len(read_examples(out).examples) == len(found) == tally.taken
    assert tally.read == tally.taken + tally.left_out.total()
    return tally, found


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_is_read(name: str, tmp_path: Path) -> None:
    rows, expected = VARIANTS[name]
    tally, found = collected(tmp_path, rows)
    assert tally.taken == 1, tally
    assert found[0]["messages"] == expected
    assert found[0]["provenance"]["synthetic"] is True
    assert found[0]["provenance"]["source"] == "log.jsonl"


def test_tools_on_offer_are_kept_in_one_form(tmp_path: Path) -> None:
    flat = {"type": "function", "name": "weather", "parameters": {"type": "object"}}
    blocks = {"name": "weather", "input_schema": {"type": "object"}}
    for number, tools in enumerate(
        ({"tools": [TOOL]}, {"tools": [flat]}, {"tools": [blocks]}, {"functions": [blocks]})
    ):
        line = {"request": {"messages": [user(f"{number}?")], **tools}, "response": completion("yes")}
        assert collected(tmp_path, [line])[1][0]["tools"] == [TOOL]


def test_what_is_known_of_a_record_stays_beside_it(tmp_path: Path) -> None:
    line = pair(
        "hi", "hello", user_id=7, tags=["a"], empty="", usage={"x": 1}, messages_count=2, wanted="yes"
    )
    _, (row,) = collected(tmp_path, [line], LogOptions(source="support", licence="ours"))
    assert row["provenance"] == {
        **{"source": "support", "licence": "ours", "date": "2025-10-09", "synthetic": True, "model": "big-1"}
    }
    assert {key: row[key] for key in row if key not in ("messages", "provenance")} == {
        "user_id": 7,
        "tags": ["a"],
        "messages_count": 2,
    }


@pytest.mark.parametrize(
    ("reason", "line"), [(reason, line) for reason, lines in LEFT_OUT.items() for line in lines]
)
def test_answers_that_are_none_to_learn_are_left_out(
    reason: str, line: dict[str, Any], tmp_path: Path
) -> None:
    tally, (row,) = collected(tmp_path, [pair("hi", "hello"), line])
    assert row["messages"] == HI
    assert tally.left_out == {reason: 1}
    assert tally.places == {reason: [f"{tmp_path / 'log.jsonl'}:2"]}


def test_an_answer_about_what_cannot_be_done_is_no_refusal(tmp_path: Path) -> None:
    text = "I'm sorry, we cannot refund the parcel, but I can help you with a new one."
    assert collected(tmp_path, [pair("refund?", text)])[0].taken == 1


def test_requests_and_answers_of_a_batch_that_find_nothing_are_counted(tmp_path: Path) -> None:
    rows = [
        {"custom_id": "1", "body": {"messages": [user("a")]}},
        {"custom_id": "2", "response": {"status_code": 200, "body": completion("b")}},
        {"custom_id": "3", "body": {"messages": [user("c")]}},
        {"custom_id": "3", "response": None, "error": {"code": "batch_expired"}},
        {"custom_id": "1", "body": {"messages": [user("again")]}},
    ]
    tally, _ = collected(tmp_path, rows)
    assert tally.left_out == {
        module.NO_ANSWER_FILE: 1,
        module.NO_REQUEST_FILE: 1,
        module.REPEATED: 1,
        FAILED: 1,
    }


# --- filters ----------------------------------------------------------------------------------------


def test_filters(tmp_path: Path) -> None:
    rows = [
        pair("a", "1", scores=[{"name": "helpful", "value": 4}]),
        pair("b", "2", scores=[{"name": "helpful", "value": 2}]),
        pair("c", "3", metadata={"helpful": "5"}),
        pair("d", "4"),
        pair("e", {**completion("5"), "model": "small"}, helpful=5),
        pair("f", "6", helpful=5, timestamp="2024-05-01T10:00:00Z"),
        pair("g", {k: v for k, v in completion("7").items() if k != "created"}, helpful=5),
    ]
    wanted = Wanted("BIG*", parse_since("2025-01-01"), (parse_rating("helpful >= 4"),))
    tally, found = collected(tmp_path, rows, LogOptions(wanted))
    assert [row["messages"][0]["content"] for row in found] == ["a", "c"]
    assert tally.left_out == {
        "not helpful >= 4": 1,
        "no rating helpful": 1,
        "another model": 1,
        "older than 2025-01-01": 1,
        "the time is not recorded": 1,
    }


@pytest.mark.parametrize(
    ("condition", "value", "met"),
    [
        ("a>=4", 4, True),
        ("a>4", 4, False),
        ("a<4", "3.5", True),
        ("a<=3", 4, False),
        ("a=up", "UP", True),
        ("a!=up", "down", True),
        ("a==1", True, True),
        ("a=0", False, True),
        ("a>=1", "up", False),
    ],
)
def test_ratings(condition: str, value: Any, met: bool) -> None:
    assert parse_rating(condition).is_met(value) is met


@pytest.mark.parametrize("text", ["", "a", "a>=", ">=4", "a>=up"])
def test_what_is_no_rating_is_an_error(text: str) -> None:
    with pytest.raises(RecipeError, match="--rating"):
        parse_rating(text)


@pytest.mark.parametrize(
    "value", [1760000000, 1760000000000, "1760000000.5", "2025-10-09T08:53:20Z", "2025-10-09"]
)
def test_times_in_every_spelling(value: Any, tmp_path: Path) -> None:
    line = {"prompt": "hi", "completion": "hello", "timestamp": value}
    assert collected(tmp_path, [line])[1][0]["provenance"]["date"] == "2025-10-09"


# --- conversations ----------------------------------------------------------------------------------


def chat(turns: int, name: str = "x") -> Rows:
    """The lines of a chat of so many turns: each repeats those before it."""
    lines, asked = [], []
    for number in range(turns):
        asked = [*asked, user(f"{name} asks {number}")]
        lines.append({"request": {"messages": asked}, "response": completion(f"{name} hears {number}")})
        asked = [*asked, said(f"{name} hears {number}")]
    return lines


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_conversations_that_grow_are_taken_once_in_whatever_order(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], dice: random.Random
) -> None:
    lines = [line for number, length in enumerate(lengths) for line in chat(length, f"user {number}")]
    dice.shuffle(lines)
    tally, found = collected(tmp_path_factory.mktemp("chats"), lines)
    assert sorted(len(row["messages"]) // 2 for row in found) == sorted(lengths)
    assert tally.left_out[EARLIER_TURN] == sum(lengths) - len(lengths)
    assert not any("weight" in turn for row in found for turn in row["messages"])


def test_a_client_may_spell_what_it_was_told_anew(tmp_path: Path) -> None:
    spelled = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{**CALL, "function": {**CALL["function"], "arguments": '{"town":"Bern"}'}}],
    }  # type: ignore[dict-item]
    lines = [
        {"request": {"messages": [user("w?")]}, "response": completion("", "tool_calls", tool_calls=[CALL])},
        {
            "request": {
                "messages": [user("w? "), spelled, {"role": "tool", "tool_call_id": "c1", "content": "sun"}]
            },
            "response": completion("Sunny."),
        },
    ]
    tally, (row,) = collected(tmp_path, lines)
    assert tally.left_out == {EARLIER_TURN: 1} and len(row["messages"]) == 4


def test_an_answer_that_was_left_out_is_context_in_what_follows(tmp_path: Path) -> None:
    lines = chat(3)
    lines[1]["rating"] = 1
    lines[0]["rating"] = lines[2]["rating"] = 5
    _, (row,) = collected(tmp_path, lines, LogOptions(Wanted(ratings=(parse_rating("rating>=4"),))))
    weights = [turn.get("weight", 1) for turn in row["messages"] if turn["role"] == "assistant"]
    assert weights == [1, 0, 1]
    (example,) = read_examples(tmp_path / "examples.jsonl").examples
    assert [message.weight for message in example.messages] == [1, 1, 1, 0, 1, 1]


def test_every_turn_is_an_example_of_its_own_and_trained_once(tmp_path: Path) -> None:
    lines = [*chat(3, "x"), *chat(2, "y"), *chat(1, "z")]
    tally, found = collected(tmp_path, lines, LogOptions(every_turn=True))
    assert tally.taken == 6 and not tally.left_out
    trained = [
        t["content"]
        for row in found
        for t in row["messages"]
        if t["role"] == "assistant" and t.get("weight") != 0
    ]
    assert sorted(trained) == sorted({*trained}) and len(trained) == 6
    groups = [row.get("group") for row in found]
    assert groups[0] == groups[1] == groups[2] != groups[3] == groups[4] and groups[5] is None
    assert None not in groups[:5]


def test_a_prompt_that_many_records_begin_with_is_no_conversation(tmp_path: Path) -> None:
    """Examples in a prompt look like earlier turns, but were never logged."""
    shown = [user("1+1"), said("2")]
    rows = [
        {"request": {"messages": [*shown, user(f"{n}+0")]}, "response": completion(str(n))} for n in range(3)
    ]
    _, found = collected(tmp_path, rows, LogOptions(every_turn=True))
    assert len(found) == 3 and not any("group" in row for row in found)


def test_duplicates_are_counted(tmp_path: Path) -> None:
    rows = [pair("a", "1"), pair("b", "2"), pair("a", "1"), pair("a", "other"), pair("a", "1")]
    tally, found = collected(tmp_path, rows)
    assert [(row["messages"][-1]["content"], row.get("count")) for row in found] == [
        ("1", 3),
        ("2", None),
        ("other", None),
    ]
    assert tally.left_out == {DUPLICATE: 2}


def test_drawing_is_repeatable_and_without_place(tmp_path: Path) -> None:
    rows = [pair(f"{n}?", f"{n}!") for n in range(40)]

    def draw(rows: Rows, limit: int, seed: int = 0) -> set[str]:
        tally, found = collected(tmp_path, rows, LogOptions(limit=limit, seed=seed))
        assert tally.left_out == {NOT_DRAWN: 40 - limit}
        return {row["messages"][0]["content"] for row in found}

    few, more = draw(rows, 10), draw(rows, 15)
    assert len(few) == 10 and few < more
    assert draw(rows[::-1], 10) == few != draw(rows, 10, seed=1)


# --- masks ------------------------------------------------------------------------------------------


def test_masks(tmp_path: Path) -> None:
    mail, key = "ada@example.org", "AKIA" + "Q7WXJ2MZ4LR8VT1B"
    lines = [
        pair(f"I am {mail}", f"Hello {mail}", customer=mail),
        {
            "request": {
                "messages": [user(f"I am {mail}"), said(f"Hello {mail}"), user(f"key {key}, eve@example.org")]
            },
            "response": completion(
                None,
                "tool_calls",
                tool_calls=[{**CALL, "function": {"name": "f", "arguments": json.dumps({"to": mail})}}],
            ),
            "customer": mail,
        },
    ]
    tally, (row,) = collected(tmp_path, lines, LogOptions(mask=True))
    assert tally.left_out == {EARLIER_TURN: 1}
    text = json.dumps(row)
    assert mail not in text and key not in text and "eve@" not in text
    assert row["messages"][1]["content"] == "Hello [MAIL_1]" and row["customer"] == "[MAIL_1]"
    assert json.loads(row["messages"][-1]["tool_calls"][0]["function"]["arguments"]) == {"to": "[MAIL_1]"}
    assert mail in json.dumps(collected(tmp_path, lines)[1])


# --- files and the command --------------------------------------------------------------------------


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`luthier collect logs` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "_width", 120)

    def call(*arguments: object) -> Result:
        return CliRunner().invoke(app, ["collect", "logs", *map(str, arguments)])

    return call


def test_the_command_tells_what_was_left_out_and_why(typed: Any, tmp_path: Path) -> None:
    write(tmp_path / "log.jsonl", [*chat(2), pair("a", completion("b", "length")), pair("c", "d")])
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write("{half a line\n")
    result = typed("log.jsonl", "--out", "out.jsonl")
    assert result.exit_code == 0, result.output
    assert "2 of 5 records taken: out.jsonl" in result.stdout
    assert "cut off at the limit of tokens" in result.stdout and "log.jsonl:3" in result.stdout
    assert "cannot be read: not valid JSON" in result.stdout and "log.jsonl:5" in result.stdout
    assert "Next: luthier check out.jsonl" in result.stdout


def test_nothing_is_overwritten_or_half_written(typed: Any, tmp_path: Path) -> None:
    write(tmp_path / "log.jsonl", [pair("a", "b")])
    out = tmp_path / "out.jsonl"
    out.write_text("mine\n")
    refused = typed("log.jsonl", "--out", "out.jsonl")
    assert refused.exit_code == 2 and "is there already" in refused.stderr and out.read_text() == "mine\n"
    assert typed("log.jsonl", "--out", "log.jsonl", "--force").exit_code == 2
    write(tmp_path / "log.jsonl", [pair("a", completion("b", "length"))])
    nothing = typed("log.jsonl", "--out", "out.jsonl", "--force")
    assert nothing.exit_code == 1 and "none of 1 records makes an example" in nothing.stderr
    assert out.read_text() == "mine\n"
    write(tmp_path / "log.jsonl", [pair("a", "b")])
    assert (
        typed("log.jsonl", "--out", "out.jsonl", "--force").exit_code == 0 and "mine" not in out.read_text()
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.jsonl", "out.jsonl"]


def test_a_folder_of_logs(typed: Any, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    write(tmp_path / "logs/b.jsonl", [pair("b", "2")])
    write(tmp_path / "logs/a.jsonl", [pair("a", "1")])
    (tmp_path / "logs/picture.png").write_bytes(b"x")
    result = typed("logs", "--out", "out.jsonl")
    assert result.exit_code == 0 and "a file of another kind" in result.stdout
    found = read(tmp_path / "out.jsonl")
    assert [(row["provenance"]["source"], row["messages"][0]["content"]) for row in found] == [
        ("a.jsonl", "a"),
        ("b.jsonl", "b"),
    ]


def test_the_example_of_the_help_works(typed: Any, tmp_path: Path) -> None:
    write(tmp_path / "requests.jsonl", [pair("a", "1", score=5), pair("b", "2", score=1)])
    help_text = " ".join(typed("--help").stdout.split())
    assert 'luthier collect logs requests.jsonl --rating "score>=4" --mask --out examples.jsonl' in help_text
    assert typed("requests.jsonl", "--rating", "score>=4", "--mask", "--out", "examples.jsonl").exit_code == 0
    assert len(read(tmp_path / "examples.jsonl")) == 1


def test_what_was_collected_passes_the_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dice = random.Random(0)
    words = ("parcel", "invoice", "kettle", "refund", "letter", "garden", "window", "station", "bridge")
    rows = [
        pair(" ".join(dice.choices(words, k=9)) + f" {n}?", dice.choice(("billing", "shipping")))
        for n in range(80)
    ]
    collected(tmp_path, rows)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["check", "examples.jsonl"])
    assert result.exit_code == 0, result.output
