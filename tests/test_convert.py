"""`luthier convert`: what is written is read back as it was, or refused with its line; all or nothing."""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import lzma
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from luthier.cli.converting import convert_file
from luthier.cli.main import app
from luthier.errors import DataError, RecipeError
from luthier.examples import Example, Message, read_examples
from luthier.examples.formats import convert_row, recognise_format
from luthier.examples.tables import Columns, kind_of_file, writing
from luthier.examples.tool_calls import ToolCall, link, write_json
from luthier.examples.writing import WRITTEN, can_be_plain, write_row

TOOL = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}},
}
ASKED, SAID = Message("user", "Weather?"), Message("assistant", "Dry.")
CALLED = Message("assistant", "", tool_calls=(ToolCall("weather", '{"city": "Köln"}', "c1"),))
TOLD = Message("tool", "21 °C", name="weather", tool_call_id="c1")

words = st.text(st.sampled_from('ab é\n"{}[]<>:,;\t日') | st.characters(codec="utf-8"), max_size=12)
said = words.filter(lambda text: bool(text.strip()))
plain_values = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
values = st.recursive(plain_values, lambda inner: st.lists(inner, max_size=2), max_leaves=4)
fields = st.dictionaries(st.sampled_from(["source id", "Lang", "score", "tags"]), values, max_size=3)
arguments = st.dictionaries(st.sampled_from(["city", "days", "o"]), values, max_size=2).map(write_json)


@st.composite
def conversations(draw: st.DrawFn) -> tuple[Message, ...]:
    """Turns as they are found: a system prompt or none, calls with results, earlier answers, the answer."""
    turns = [Message("system", draw(said))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 2))):
        turns.append(Message("user", draw(said)))
        if draw(st.booleans()):
            count = draw(st.integers(1, 2))
            calls = tuple(ToolCall("weather", draw(arguments), f"c{len(turns)}{n}") for n in range(count))
            turns.append(Message("assistant", draw(st.just("") | said), draw(st.sampled_from((0, 1))), calls))
            turns += [Message("tool", draw(words), name=c.name, tool_call_id=c.id) for c in calls]
        turns.append(Message("assistant", draw(said), draw(st.sampled_from((0, 1)))))
    if turns[-1].weight == 0 or draw(st.booleans()):
        turns[-1] = replace(turns[-1], weight=1)
    return tuple(turns)


@st.composite
def examples(draw: st.DrawFn) -> Example:
    turns = draw(
        conversations()
        | st.tuples(st.builds(Message, st.just("user"), said), st.builds(Message, st.just("assistant"), said))
    )
    rejected = draw(st.lists(said, max_size=2, unique=True).filter(lambda texts: turns[-1].text not in texts))
    return Example(
        "0123456789abcdef",
        turns,
        "f.jsonl",
        3,
        draw(st.none() | st.text(min_size=1, max_size=5)),
        draw(fields),
        tuple(rejected),
        draw(st.booleans()),
        draw(st.sampled_from([(), (TOOL,)])),
        draw(st.sampled_from([{}, {"source": "web", "synthetic": True}])),
    )


few = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("to", sorted(set(WRITTEN) - {"text"}))
@few
@given(example=examples(), data=st.data())
def test_what_is_written_reads_back_as_it_was(to: str, example: Example, data: st.DataObject) -> None:
    if to in ("openai", "sharegpt", "alpaca", "prompt-completion"):
        example = replace(example, rejected=(), wanted=True)
    elif to == "unpaired":
        example = replace(example, rejected=())
    elif to != "luthier":
        example = replace(example, rejected=("worse",) if example.answer != "worse" else ("w",), wanted=True)
    plain = can_be_plain(example, to)
    try:
        row = json.loads(json.dumps(write_row(example, to, plain=plain)))
    except DataError as error:
        assert error.where == "f.jsonl:3" and error.fix
        many = len(example.messages) > 2
        assert to == "alpaca" or (to == "sharegpt" and many), f"{to} holds everything: {error.message}"
        return
    again = convert_row(recognise_format([row], where="f"), row)
    assert link([m.as_row() for m in again.messages]) == link([m.as_row() for m in example.messages])
    assert (again.rejected, again.wanted, again.group) == (example.rejected, example.wanted, example.group)
    assert list(again.tools) == list(example.tools)
    assert (again.fields, dict(again.provenance)) == (dict(example.fields), dict(example.provenance))


def example(*messages: Message, **more: Any) -> Example:
    return Example("0123456789abcdef", messages or (ASKED, SAID), "f.jsonl", 3, **more)


TEXT = Example("0123456789abcdef", (Message("assistant", "Once."),), "f.jsonl", 3)


@pytest.mark.parametrize(
    ("given", "to", "says"),
    [
        (example(ASKED, SAID, ASKED, CALLED), "alpaca", "calls tools, and alpaca holds texts"),
        (example(ASKED, CALLED, TOLD, SAID), "alpaca", "neither the user's nor the answer"),
        (
            example(ASKED, replace(SAID, weight=0), ASKED, SAID),
            "alpaca",
            "cannot hold its messages as they are",
        ),
        (example(rejected=("Wet.",)), "openai", "has 1 worse answers, and openai holds no worse answers"),
        (example(rejected=("Wet.", "Hm.")), "trl-preference", "has 2 worse answers"),
        (example(), "openai-preference", "has no worse answers"),
        (example(wanted=False), "openai", "its answer should not be given"),
        (example(fields={"Output": 1}), "alpaca", "column 'Output' has the name of a column of alpaca"),
        (example(fields={"instruction": "x", "output": "y"}), "unpaired", None),
        (
            example(fields={"chosen": "x", "rejected": "y"}),
            "prompt-completion",
            "would be read as chosen/rejected",
        ),
        (example(), "text", "is a conversation"),
        (TEXT, "openai", "is a text that nobody asked for"),
        (TEXT, "text", None),
        (TEXT, "luthier", None),
    ],
)
def test_what_a_form_cannot_hold_is_refused_with_its_place(given: Example, to: str, says: str | None) -> None:
    if says is None:
        assert write_row(given, to)
        return
    with pytest.raises(DataError) as caught:
        write_row(given, to)
    assert says in caught.value.message
    assert caught.value.where == "f.jsonl:3" and caught.value.fix


def test_rows_are_what_other_programs_take() -> None:
    told = example(ASKED, CALLED, TOLD, SAID, tools=(TOOL,), group="g")
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Köln"}'}}
    assert write_row(told, "openai") == {
        "messages": [
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "content": "21 °C", "name": "weather", "tool_call_id": "c1"},
            {"role": "assistant", "content": "Dry."},
        ],
        "tools": [TOOL],
        "group": "g",
    }
    bare = example(
        ASKED, Message("assistant", "I look.", tool_calls=(ToolCall("weather"),)), Message("tool", "x"), SAID
    )
    assert write_row(bare, "openai")["messages"][2]["tool_call_id"] == "call00000"
    assert [turn["from"] for turn in write_row(bare, "sharegpt")["conversations"]] == [
        "human", "gpt", "function_call", "observation", "gpt",
    ]  # fmt: skip
    pair = example(rejected=("Wet.",))
    assert write_row(pair, "trl-preference", plain=True) == {
        "prompt": "Weather?",
        "chosen": "Dry.",
        "rejected": "Wet.",
    }
    assert write_row(pair, "openai-preference") == {
        "input": {"messages": [{"role": "user", "content": "Weather?"}]},
        "preferred_output": [{"role": "assistant", "content": "Dry."}],
        "non_preferred_output": [{"role": "assistant", "content": "Wet."}],
    }
    assert write_row(example(wanted=False), "unpaired", plain=True) == {
        "prompt": "Weather?", "completion": "Dry.", "label": False,
    }  # fmt: skip
    talk = example(Message("system", "S"), ASKED, SAID, Message("user", "And?"), SAID)
    assert write_row(talk, "alpaca") == {
        "instruction": "And?",
        "input": "",
        "output": "Dry.",
        "history": [["Weather?", "Dry."]],
        "system": "S",
    }


def test_a_worse_answer_that_calls_is_a_call() -> None:
    told = example(ASKED, SAID, rejected=(CALLED.text,), tools=(TOOL,))
    for to, column in (("openai-preference", "non_preferred_output"), ("trl-preference", "rejected")):
        (worse,) = write_row(told, to)[column]
        assert worse["tool_calls"][0]["function"]["name"] == "weather" and worse["content"] == ""


ROWS = [
    {"prompt": f'Question {n}, äöü; 日本\n"x"', "completion": f"Answer {n}", "score": n, "group": f"g{n % 2}"}
    for n in range(7)
]
ENDINGS = [".jsonl", ".json", ".csv", ".tsv", ".parquet", ".jsonl.gz", ".csv.zst", ".json.xz", ".tsv.bz2"]


def put(folder: Path, rows: list[dict[str, Any]], name: str = "in.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("to", ["openai", "sharegpt", "alpaca", "prompt-completion", "unpaired", "luthier"])
def test_every_kind_of_file_gives_the_same_examples(tmp_path: Path, ending: str, to: str) -> None:
    source, out = put(tmp_path, ROWS), tmp_path / f"out{ending}"
    assert convert_file(source, out, to=to, force=False)[0] == len(ROWS)
    ours, theirs = read_examples(source).examples, read_examples(out).examples
    assert [(e.id, e.messages, e.group, e.wanted) for e in theirs] == [
        (e.id, e.messages, e.group, e.wanted) for e in ours
    ]
    assert [int(e.fields["score"]) for e in theirs] == list(range(7))


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".csv", ".tsv.gz", ".parquet"])
@pytest.mark.parametrize("to", ["openai", "sharegpt", "prompt-completion", "luthier"])
def test_tools_are_kept_in_every_kind_of_file(tmp_path: Path, ending: str, to: str) -> None:
    told = example(ASKED, CALLED, TOLD, SAID, tools=(TOOL,), provenance={"source": "web"}).as_row()
    plain = example(Message("user", "Hi"), Message("assistant", "Hello")).as_row()
    source, out = put(tmp_path, [told, plain]), tmp_path / f"out{ending}"
    convert_file(source, out, to=to, force=False)
    ours, theirs = read_examples(source).examples, read_examples(out).examples
    assert [(e.id, e.messages, e.tools, e.provenance) for e in theirs] == [
        (e.id, e.messages, e.tools, e.provenance) for e in ours
    ]


def test_luthiers_own_rows_hold_judgements_in_a_table(tmp_path: Path) -> None:
    told = [example(rejected=("Wet.", "a\nb")).as_row(), example(wanted=False, fields={"n": 1}).as_row()]
    source = put(tmp_path, told)
    for ending in (".csv", ".parquet", ".json"):
        convert_file(source, tmp_path / f"out{ending}", to="luthier", force=False)
        first, second = read_examples(tmp_path / f"out{ending}").examples
        assert (first.rejected, second.wanted, second.fields) == (("Wet.", "a\nb"), False, {"n": 1})


def test_compressed_files_are_what_they_are_called(tmp_path: Path) -> None:
    source = put(tmp_path, ROWS)
    for ending, unpack in ((".gz", gzip.decompress), (".xz", lzma.decompress), (".bz2", bz2.decompress)):
        out = tmp_path / f"out.jsonl{ending}"
        convert_file(source, out, to="luthier", force=False)
        assert len(unpack(out.read_bytes()).splitlines()) == len(ROWS)
    again = tmp_path / "again.jsonl.gz"
    convert_file(source, again, to="luthier", force=False)
    assert again.read_bytes() == (tmp_path / "out.jsonl.gz").read_bytes(), "no time of day in it"


def test_a_table_has_every_column(tmp_path: Path) -> None:
    rows = [
        {"prompt": "a", "completion": "b", "x": [1]},
        {"prompt": "c", "completion": "d", "y": None, "z": True},
    ]
    out = tmp_path / "out.csv"
    convert_file(put(tmp_path, rows), out, to="prompt-completion", force=False)
    with out.open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [
            ["prompt", "completion", "x", "y", "z"], ["a", "b", "[1]", "", ""], ["c", "d", "", "", "true"],
        ]  # fmt: skip


def test_one_conversation_makes_all_of_them_lists(tmp_path: Path) -> None:
    talk = {"messages": [{"role": r, "content": r} for r in ("user", "assistant", "user", "assistant")]}
    short = {"messages": talk["messages"][:2]}
    out = tmp_path / "out.jsonl"
    convert_file(put(tmp_path, [short, talk]), out, to="prompt-completion", force=False)
    assert all(isinstance(json.loads(line)["prompt"], list) for line in out.read_text().splitlines())
    convert_file(put(tmp_path, [short, short]), out, to="prompt-completion", force=True)
    assert all(isinstance(json.loads(line)["prompt"], str) for line in out.read_text().splitlines())


def test_nothing_is_written_where_an_example_cannot_be_held(tmp_path: Path) -> None:
    talk = [
        {"role": "user", "content": "q"},
        {"role": "tool", "content": "r"},
        {"role": "assistant", "content": "a"},
    ]
    short = {"messages": [talk[0], talk[2]]}
    source, out = (
        put(tmp_path, [short, {"messages": talk}]),
        tmp_path / "out.jsonl",
    )
    out.write_text("mine", encoding="utf-8")
    with pytest.raises(DataError, match=r"in.jsonl:2: has turns that are neither"):
        convert_file(source, out, to="alpaca", force=True)
    assert out.read_text(encoding="utf-8") == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_a_broken_line_stops_it(tmp_path: Path) -> None:
    source = put(tmp_path, ROWS)
    source.write_text(source.read_text(encoding="utf-8") + "{\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"in.jsonl:8: not valid JSON"):
        convert_file(source, tmp_path / "out.jsonl", to=None, force=False)
    assert not (tmp_path / "out.jsonl").exists()


def test_carriage_returns_stay_out_of_tables(tmp_path: Path) -> None:
    source = put(tmp_path, [{"prompt": "a\r\nb", "completion": "c"}])
    with pytest.raises(DataError, match=r"in.jsonl:1: prompt has a carriage return"):
        convert_file(source, tmp_path / "out.csv", to="prompt-completion", force=False)
    convert_file(source, tmp_path / "out.parquet", to="prompt-completion", force=False)
    assert read_examples(tmp_path / "out.parquet").examples[0].input == "a\r\nb"


@pytest.mark.parametrize(
    ("out", "to", "says"),
    [
        ("out.xlsx", None, "no kind of file"),
        ("out", None, "no kind of file"),
        ("out.parquet.gz", None, "no kind of file"),
        ("out.jsonl", "yaml", "no form 'yaml'"),
        ("in.jsonl", None, "is what is read"),
        ("there.jsonl", None, "is there already"),
        (".", None, "no kind of file"),
    ],
)
def test_what_cannot_be_written_is_told_before_anything_is(
    tmp_path: Path, out: str, to: str | None, says: str
) -> None:
    source = put(tmp_path, ROWS)
    (tmp_path / "there.jsonl").write_text("mine", encoding="utf-8")
    with pytest.raises(RecipeError, match=says) as caught:
        convert_file(source, tmp_path / out, to=to, force=False)
    assert caught.value.fix
    assert (tmp_path / "there.jsonl").read_text(encoding="utf-8") == "mine"


def test_a_file_in_the_folder_that_is_read_is_refused(tmp_path: Path) -> None:
    put(tmp_path, ROWS)
    with pytest.raises(RecipeError, match="in the folder that is read"):
        convert_file(tmp_path, tmp_path / "all.jsonl", to=None, force=False)


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    columns = Columns()
    columns.see({"a": 1})
    for ending in ENDINGS:
        out = tmp_path / f"out{ending}"
        with pytest.raises(ZeroDivisionError), writing(out, columns) as add:
            add({"a": 1})
            raise ZeroDivisionError
    assert not list(tmp_path.iterdir())
    assert kind_of_file(Path("a.b.JSONL.GZ")) == ("jsonl", ".gz")


def test_the_command_says_what_it_did(tmp_path: Path) -> None:
    source, out = put(tmp_path, ROWS), tmp_path / "out.csv.gz"
    run = CliRunner()
    result = run.invoke(app, ["convert", str(source), str(out)])
    assert result.exit_code == 0, result.output
    assert "7 examples, read as prompt/completion, written as prompt-completion" in result.output
    again = run.invoke(app, ["convert", str(source), str(out), "--to", "openai"])
    assert again.exit_code == 2 and "is there already" in again.output
    assert run.invoke(app, ["convert", str(source), str(out), "--to", "openai", "--force"]).exit_code == 0
    assert read_examples(out).format == "messages"
