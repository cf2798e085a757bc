"""`luthier collect table` and `luthier collect edits`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from luthier.chat import ChatFormat
from luthier.cli.main import app
from luthier.cli.screen import console
from luthier.collect.example_row import today
from luthier.collect.table import parse_template
from luthier.errors import RecipeError
from luthier.examples import read_examples
from luthier.methods import DPO

TICKETS = (
    "Subject,Body,team,note\nLate,where is it?,shipping,\n"
    'Bill,"too ""much""",billing,urgent\n,,returns,\nX,y,,\n'
)


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`luthier collect ...` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "_width", 120)

    def call(*arguments: object) -> Result:
        result = CliRunner().invoke(app, ["collect", *map(str, arguments)])
        assert "Traceback" not in result.output
        return result

    return call


def read(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(name).read_text(encoding="utf-8").splitlines()]


# --- tables -----------------------------------------------------------------------------------------


def test_a_table_with_a_template(typed: Any) -> None:
    Path("t.csv").write_text(TICKETS)
    result = typed(
        *("table", "t.csv", "--template", r"Subject: {subject}\n\n{Body} {{x}}", "--answer", "team"),
        *("--system", "Route it.", "--licence", "ours", "--out", "out.jsonl"),
    )
    assert result.exit_code == 0, result.output
    assert "2 of 4 rows taken" in result.stdout and "t.csv:4" in result.stdout and "t.csv:5" in result.stdout
    first, second = read("out.jsonl")
    assert first["provenance"].pop("date") == today()
    assert first == {
        "messages": [
            {"role": "system", "content": "Route it."},
            {"role": "user", "content": "Subject: Late\n\nwhere is it? {x}"},
            {"role": "assistant", "content": "shipping"},
        ],
        "provenance": {"source": "t.csv", "licence": "ours"},
    }
    assert (
        second["note"] == "urgent" and second["messages"][1]["content"] == 'Subject: Bill\n\ntoo "much" {x}'
    )
    examples = read_examples("out.jsonl").examples
    assert examples[1].fields == {"note": "urgent"} and examples[0].provenance["licence"] == "ours"


@pytest.mark.parametrize("kind", ["tsv", "jsonl", "parquet"])
def test_tables_of_every_kind(kind: str, typed: Any) -> None:
    rows = [{"ask": f"q{n}", "say": {"team": n}, "n": n, "wanted": "?"} for n in range(3)]
    if kind == "tsv":
        Path("t.tsv").write_text(
            "ask\tsay\tn\n" + "".join(f'q{n}\t"{{""team"": {n}}}"\t{n}\n' for n in range(3))
        )
    elif kind == "jsonl":
        Path("t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), "t.parquet")
    assert (
        typed("table", f"t.{kind}", "--prompt", "ask", "--answer", "say", "--out", "o.jsonl").exit_code == 0
    )
    found = read_examples("o.jsonl").examples
    assert [(e.input, json.loads(e.answer)) for e in found] == [(f"q{n}", {"team": n}) for n in range(3)]
    assert {str(e.fields["n"]) for e in found} == {"0", "1", "2"}


def test_a_column_that_is_not_there_is_an_error_that_lists_them(typed: Any) -> None:
    Path("t.csv").write_text(TICKETS)
    for arguments in (("--prompt", "mail"), ("--template", "{Subject} {mail}")):
        result = typed("table", "t.csv", *arguments, "--answer", "team", "--out", "o.jsonl")
        assert result.exit_code == 1 and "no column 'mail'" in result.stderr
        assert "name one of: Subject, Body, team, note" in result.stderr
    assert not Path("o.jsonl").exists()


def test_what_is_asked_is_said_in_one_way(typed: Any) -> None:
    Path("t.csv").write_text(TICKETS)
    for arguments in ((), ("--prompt", "Body", "--template", "{Body}")):
        result = typed("table", "t.csv", *arguments, "--answer", "team", "--out", "o.jsonl")
        assert result.exit_code == 2 and "in one way" in result.stderr


@pytest.mark.parametrize("template", ["no column", "{", "{}", "{a", "{{a}}"])
def test_templates_that_are_none(template: str) -> None:
    with pytest.raises(RecipeError, match="--template"):
        list(parse_template(template))


def test_names_with_marks(typed: Any) -> None:
    Path("t.csv").write_text("Sent: when,a.b[0],team\nnow,x,y\n")
    out = ("--answer", "team", "--out", "o.jsonl")
    assert typed("table", "t.csv", "--template", "{Sent: when}/{a.b[0]}", *out).exit_code == 0
    assert read("o.jsonl")[0]["messages"][0]["content"] == "now/x"


def test_the_table_of_the_help_works(typed: Any) -> None:
    Path("tickets.csv").write_text("message,team\nwhere is it?,shipping\n")
    example = "luthier collect table tickets.csv --prompt message --answer team --out examples.jsonl"
    assert example in " ".join(typed("table", "--help").stdout.split())
    assert typed(*example.split()[2:]).exit_code == 0
    assert typed(*example.split()[2:]).exit_code == 2  # it is there now


# --- edits ------------------------------------------------------------------------------------------


EDITS = [
    {"ticket": "q1", "draft": "hello", "sent": "hello there", "agent": "ada"},
    {"ticket": "q2", "draft": "the same", "sent": "the same"},
    {"ticket": "q3", "draft": "spaced  out", "sent": "spaced out\n"},
    {"ticket": "q4", "draft": "", "sent": "x"},
    {"ticket": "q5", "draft": "x", "sent": " "},
    {"ticket": "", "draft": "x", "sent": "y"},
]


def test_edits_become_preferences_and_the_rest_plain_examples(typed: Any) -> None:
    Path("e.jsonl").write_text("".join(json.dumps(row) + "\n" for row in EDITS))
    result = typed("edits", "e.jsonl", "--out", "p.jsonl")
    assert result.exit_code == 0, result.output
    assert "Columns: request ticket, draft draft, edited sent" in result.stdout
    assert "3 of 6 pairs taken" in result.stdout
    for told in ("1 preferences", "1 plain examples: the draft was kept", "1 plain examples: white space"):
        assert told in result.stdout
    for reason in ("there is no draft", "nothing was left of the draft", "nothing is asked"):
        assert reason in result.stdout
    (pair,) = read_examples("p.jsonl").examples
    assert (pair.input, pair.answer, pair.rejected) == ("q1", "hello there", ("hello",))
    assert pair.fields == {"agent": "ada"}
    assert pair.provenance == {"source": "e.jsonl", "date": today(), "synthetic": False, "edited": True}
    kept = read_examples("p.plain.jsonl").examples
    assert [(e.answer, e.rejected, e.provenance["edited"]) for e in kept] == [
        ("the same", (), False),
        ("spaced out\n", (), False),
    ]


def test_preferences_can_be_trained_on(typed: Any) -> None:
    from chat_tokenizers import byte_level
    from tiny_run import CHATML

    Path("e.jsonl").write_text("".join(json.dumps(row) + "\n" for row in EDITS))
    typed("edits", "e.jsonl", "--out", "p.jsonl")
    chat = ChatFormat(byte_level(CHATML, ("<|im_start|>", "<|im_end|>"), eos="<|im_end|>"))
    (item,) = DPO().items(read_examples("p.jsonl").examples, chat, None)
    assert len(item.sequences) == 2


def test_columns_are_named_or_found(typed: Any) -> None:
    Path("e.csv").write_text("question,AI Draft,Final Answer,x\nq,a,b,c\n")
    assert typed("edits", "e.csv", "--out", "p.jsonl").exit_code == 0
    assert read("p.jsonl")[0]["rejected"] == ["a"]
    named = ("--before", "x", "--after", "ai draft", "--prompt", "Final Answer")
    assert typed("edits", "e.csv", *named, "--out", "p.jsonl", "--force").exit_code == 0
    row = read("p.jsonl")[0]
    assert [row["messages"][0]["content"], row["rejected"], row["messages"][1]["content"]] == [
        "b",
        ["c"],
        "a",
    ]
    Path("n.csv").write_text("question,final\nq,b\n")
    refused = typed("edits", "n.csv", "--out", "n.jsonl")
    assert refused.exit_code == 1
    assert "no column for the draft (found question, final)" in refused.stderr
    assert "--before COLUMN" in refused.stderr


def test_a_conversation_before_the_draft(typed: Any) -> None:
    said = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a"},
    ]
    row = {"messages": json.dumps(said), "before": "a", "after": "b"}
    Path("e.jsonl").write_text(json.dumps(row) + "\n")
    assert typed("edits", "e.jsonl", "--out", "p.jsonl").exit_code == 0
    (pair,) = read_examples("p.jsonl").examples
    assert [(m.role, m.content) for m in pair.messages] == [
        ("system", "s"),
        ("user", "q"),
        ("assistant", "b"),
    ]


def test_nothing_old_is_left_beside_new_preferences(typed: Any) -> None:
    Path("e.jsonl").write_text("".join(json.dumps(row) + "\n" for row in EDITS))
    typed("edits", "e.jsonl", "--out", "p.jsonl")
    refused = typed("edits", "e.jsonl", "--out", "p.jsonl")
    assert refused.exit_code == 2 and Path("p.plain.jsonl").exists()
    Path("e.jsonl").write_text(json.dumps(EDITS[0]) + "\n")
    assert typed("edits", "e.jsonl", "--out", "p.jsonl", "--force").exit_code == 0
    assert not Path("p.plain.jsonl").exists()


def test_the_edits_of_the_help_work(typed: Any) -> None:
    Path("sent.csv").write_text("ticket,draft,sent\nq,a,b\n")
    example = "luthier collect edits sent.csv --before draft --after sent --out preferences.jsonl"
    assert example in " ".join(typed("edits", "--help").stdout.split())
    assert typed(*example.split()[2:]).exit_code == 0
