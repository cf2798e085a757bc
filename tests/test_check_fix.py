"""`luthier check --fix` as it is typed: the copy, its log, what a person decides, and what is refused."""

from __future__ import annotations

import gzip
import json
import random
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from luthier.audit import audit_examples
from luthier.cli import doubting
from luthier.cli.main import app
from luthier.cli.screen import console
from luthier.examples import read_examples

Check = Callable[..., Result]
KEY = "sk-" + "abcdEFGH1234567890zyxwvut"
MAIL = "anna@example.org"


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    """The command in an empty folder; `typed` is what a person types, a line each."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "_width", 100)

    def call(*arguments: object, typed: str = "") -> Result:
        lines = typed.replace("|", "\n") + "\n" * bool(typed)
        result = CliRunner().invoke(app, ["check", *map(str, arguments)], input=lines)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return call


def write(path: str, rows: list[dict[str, Any]]) -> Path:
    Path(path).write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
    )
    return Path(path)


def read(path: str | Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def tickets(n: int = 60) -> list[dict[str, Any]]:
    """Clean rows: different words, two labels."""
    chance = random.Random(7)
    words = ["".join(chance.choices("abcdefghijklmnop", k=chance.randint(4, 8))) for _ in range(400)]
    return [
        {"text": " ".join(chance.sample(words, 9)), "label": ["billing", "delivery"][i % 2]} for i in range(n)
    ]


def messy() -> list[dict[str, Any]]:
    """Every fault that is certain, and a few that are not; the line of each is its position plus one."""
    rows = tickets()
    rows[2]["label"] = "Billing"
    rows[3]["label"] = "delivery \n"
    rows[4]["text"] += " cafÃ© naÃ¯ve"
    rows[5]["text"] = "\ufeff" + rows[5]["text"] + "\u200b\0"
    rows[6]["label"] += "<|im_end|>"
    rows[7]["text"] = "<s><s>" + rows[7]["text"]
    rows[8]["text"] += f" ask {MAIL} or bob@example.org"
    rows[9]["text"] += f" with {KEY}"
    rows += [dict(rows[0]), {**rows[1], "text": rows[1]["text"].upper()}]  # 61, 62: copies
    rows += [{**rows[10], "label": "delivery"}]  # 63: conflicts with 11
    rows += [{**rows[12], "text": "please " + rows[12]["text"] + " soon"}]  # 64: nearly 13
    return rows


def test_every_fault_that_is_certain_is_gone_and_the_rest_is_there(check: Check) -> None:
    source = write("tickets.jsonl", messy())
    with source.open("a") as file:
        file.write('{"text": "half\n{"text": "no answer", "label": ""}\n')
    before = source.read_bytes()
    result = check(source, "--fix", "--mask")
    assert result.exit_code == 0, result.output
    assert source.read_bytes() == before
    log = read("tickets.clean.log.jsonl")
    assert {(row["line"], row["check"], row["action"]) for row in log} == {
        (3, "inconsistent_answers", "changed"),
        (4, "inconsistent_answers", "changed"),
        (5, "encoding", "changed"),
        (6, "encoding", "changed"),
        (7, "special_token", "changed"),
        (8, "special_token", "changed"),
        (9, "personal_data", "changed"),
        (10, "secret", "changed"),
        (61, "exact_duplicate", "dropped"),
        (62, "exact_duplicate", "dropped"),
        (65, "unreadable", "dropped"),
        (66, "unreadable", "dropped"),
    }
    assert all(
        set(row) == {"file", "line", "check", "action", "column", "before", "after", "reason"} for row in log
    )
    assert all(row["file"] == "tickets.jsonl" and row["reason"] for row in log)
    rows = read("tickets.clean.jsonl")
    original, changed = messy(), {row["line"] for row in log}
    untouched = [row for line, row in enumerate(original, start=1) if line not in changed]
    assert [row for row in rows if row in untouched] == untouched
    assert len(rows) == 62
    assert {row["label"] for row in rows} == {"billing", "delivery"}
    assert rows[4]["text"] == tickets()[4]["text"] + " café naïve"
    assert rows[5]["text"] == tickets()[5]["text"]
    assert rows[8]["text"].endswith(" ask [MAIL_1] or [MAIL_2]")
    fixed = {
        "inconsistent_answers",
        "encoding",
        "special_token",
        "personal_data",
        "secret",
        "exact_duplicate",
    }
    audits = [
        audit_examples({"all": read_examples(path, strict=False).examples})
        for path in (source, "tickets.clean.jsonl")
    ]
    found = [{finding.check for finding in audit.findings} for audit in audits]
    assert fixed <= found[0]
    assert not fixed & found[1]
    assert {"label_conflict", "near_duplicate"} <= found[1]
    assert not audits[1].failed
    shown = " ".join(result.output.split())
    assert "62 of 66 rows: tickets.clean.jsonl" in shown
    assert re.search(r"exact_duplicate\s+2", result.output)
    assert re.search(r"label_conflict\s+1\s*\n", result.output)
    assert "2 questions left" in shown


def test_without_mask_nothing_private_is_changed_and_no_secret_is_shown(check: Check) -> None:
    source = write("tickets.jsonl", messy())
    result = check(source, "--fix")
    rows = read("tickets.clean.jsonl")
    assert rows[8] == messy()[8]
    assert rows[9] == messy()[9]
    log = Path("tickets.clean.log.jsonl").read_text()
    assert KEY not in log
    assert KEY not in result.output
    assert "4 questions left" in " ".join(result.output.split())


def test_a_clean_file_is_copied_to_the_letter_and_fixing_twice_changes_nothing(check: Check) -> None:
    source = Path("tickets.jsonl")
    source.write_text(
        "".join(json.dumps(row, indent=None, separators=(",", ": ")) + "\n" for row in tickets())
    )
    result = check(source, "--fix")
    assert Path("tickets.clean.jsonl").read_bytes() == source.read_bytes()
    assert Path("tickets.clean.log.jsonl").read_text() == ""
    assert "nothing to fix" in result.output
    write("messy.jsonl", messy())
    check("messy.jsonl", "--fix", "--mask")
    check("messy.clean.jsonl", "--fix", "--mask", "--out", "twice.jsonl")
    assert Path("twice.jsonl").read_bytes() == Path("messy.clean.jsonl").read_bytes()
    assert Path("twice.log.jsonl").read_text() == ""


def test_nothing_is_overwritten_without_force(check: Check) -> None:
    source = write("tickets.jsonl", messy())
    before = source.read_bytes()
    same = check(source, "--fix", "--out", source)
    assert (same.exit_code, "is the original" in same.output) == (2, True)
    forced = check(source, "--fix", "--force", "--out", "./tickets.jsonl")
    assert (forced.exit_code, source.read_bytes()) == (2, before)
    Path("tickets.clean.log.jsonl").write_text("mine")
    refused = check(source, "--fix")
    assert refused.exit_code == 2
    assert "tickets.clean.log.jsonl: is there already" in refused.output
    assert not Path("tickets.clean.jsonl").exists()
    assert check(source, "--fix", "--force").exit_code == 0
    assert check(source, "--fix").exit_code == 2
    Path("folder").mkdir()
    assert "is a folder" in check(source, "--fix", "--out", "folder").output
    assert list(Path().glob(".*")) == []  # no half-written files


def test_a_table_stays_a_table_and_a_compressed_file_is_unpacked(check: Check) -> None:
    rows = tickets(40)
    rows[2]["label"] = "Billing"
    table = "text;label\r\n" + "".join(f'"{row["text"]}";{row["label"]}\r\n' for row in rows)
    Path("tickets.csv").write_bytes(b"\xef\xbb\xbf" + table.encode())
    check("tickets.csv", "--fix")
    written = Path("tickets.clean.csv").read_bytes().decode()
    assert written.splitlines()[3] == f"{rows[2]['text']};billing"
    assert written.replace(f"{rows[2]['text']};billing", f'"{rows[2]["text"]}";Billing') == table
    Path("v2.tickets.jsonl.gz").write_bytes(gzip.compress(write("t.jsonl", rows).read_bytes()))
    check("v2.tickets.jsonl.gz", "--fix")
    assert Counter(row["label"] for row in read("v2.tickets.clean.jsonl")) == {"billing": 20, "delivery": 20}


def test_bytes_that_are_no_text_are_told_in_the_log(check: Check) -> None:
    path = write("data.jsonl", tickets())
    path.write_bytes(path.read_bytes() + b"\xff\xfe broken\n")
    assert check(path, "--fix").exit_code == 0
    (change,) = read("data.clean.log.jsonl")
    assert (change["line"], change["check"], change["action"]) == (61, "unreadable", "dropped")
    assert change["before"] == "\\udcff\\udcfe broken"
    assert read("data.clean.jsonl") == tickets()


def test_parquet_becomes_lines(check: Check) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [*tickets(20), tickets(1)[0]]
    parquet.write_table(pyarrow.Table.from_pylist(rows), "tickets.parquet")
    check("tickets.parquet", "--fix")
    assert read("tickets.clean.jsonl") == rows[:20]


def test_a_folder_becomes_a_folder_and_copies_are_found_across_its_files(check: Check) -> None:
    Path("data/inner").mkdir(parents=True)
    write("data/a.jsonl", tickets(20))
    write("data/inner/b.jsonl", [*tickets(25)[18:]])
    check("data", "--fix")
    assert read("data.clean/a.jsonl") == tickets(20)
    assert read("data.clean/inner/b.jsonl") == tickets(25)[20:]
    (log,) = {row["reason"] for row in read("data.clean/inner/b.log.jsonl") if row["line"] == 1}
    assert log == "the same as data/a.jsonl:19, which is kept"
    assert sorted(p.name for p in Path("data").rglob("*.jsonl")) == ["a.jsonl", "b.jsonl"]


def test_a_recipe_has_its_training_files_fixed(check: Check) -> None:
    Path("plans").mkdir()
    write("plans/tickets.jsonl", [*tickets(20), tickets(1)[0]])
    write("plans/test.jsonl", [*tickets(20), tickets(1)[0]])
    recipe = Path("plans/r.yaml")
    recipe.write_text("model: m\ndata: {train: tickets.jsonl, test: test.jsonl}\n")
    result = check(recipe, "--fix")
    assert read("plans/tickets.clean.jsonl") == tickets(20)
    assert not Path("plans/test.clean.jsonl").exists()
    assert "let data.train of plans/r.yaml name" in " ".join(result.output.split())
    recipe.write_text("model: m\ndata: [{file: tickets.jsonl}, {file: test.jsonl, name: other}]\n")
    refused = check(recipe, "--fix", "--force", "--out", "x.jsonl")
    assert (refused.exit_code, "2 training files" in refused.output) == (2, True)
    check(recipe, "--fix", "--force")
    assert read("plans/test.clean.jsonl") == tickets(20)


def test_what_cannot_be_fixed_is_refused(check: Check) -> None:
    Path("run").mkdir()
    Path("run/recipe.yaml").write_text("model: m\ndata: x.jsonl\n")
    result = check("run", "--fix")
    assert (result.exit_code, "fix the file that its recipe names" in result.output) == (2, True)
    result = check("gone.jsonl", "--fix")
    assert (result.exit_code, "gone.jsonl: no such file" in result.output) == (1, True)
    write("all.jsonl", [{"text": "\u200b", "label": "x"}])
    result = check("all.jsonl", "--fix")
    assert (result.exit_code, "no row would be left" in result.output) == (1, True)
    assert not list(Path().glob("*.clean*"))


# --- what a person decides --------------------------------------------------------------------------


def doubtful() -> list[dict[str, Any]]:
    """Three conflicts with an earlier row (lines 41 to 43) and a row with a mail address (line 21)."""
    rows = tickets(40)
    rows[20]["text"] += f" ask {MAIL}"
    rows += [{**rows[i], "label": "delivery"} for i in (0, 2, 4)]
    return rows


def test_each_key_does_what_it_says(check: Check) -> None:
    source = write("t.jsonl", doubtful())
    result = check(source, "--fix", "--interactive", typed="x|d|t|w|e|refund|m")
    assert result.exit_code == 0, result.output
    assert "Type one of k d e t w s u q." in result.output
    rows = read("t.clean.jsonl")
    by_text: dict[str, list[str]] = {}
    for row in rows:
        by_text.setdefault(row["text"], []).append(row["label"])
    texts = [row["text"] for row in doubtful()]
    assert by_text[texts[0]] == ["billing"]  # line 41 was dropped
    assert by_text[texts[2]] == ["billing"]  # line 42 took the other's answer, and is a copy now
    assert sorted(by_text[texts[4]]) == ["delivery", "refund"]  # the other side was edited
    assert rows[20]["text"] == tickets()[20]["text"] + " ask [MAIL_1]"
    log = {(row["line"], row["check"], row["action"]) for row in read("t.clean.log.jsonl")}
    assert log == {
        (41, "label_conflict", "dropped"),
        (42, "label_conflict", "changed"),
        (42, "exact_duplicate", "dropped"),
        (5, "label_conflict", "changed"),
        (21, "personal_data", "changed"),
    }
    reasons = [row["reason"] for row in read("t.clean.log.jsonl") if row["line"] == 41]
    assert reasons[0].startswith("by hand: 2 examples ask the same")


def test_a_row_alone_may_take_another_label(check: Check) -> None:
    source = write("t.jsonl", doubtful()[:40])
    result = check(source, "--fix", "--interactive", typed="t|9|t|2")
    assert "take another label" in " ".join(result.output.split())
    assert read("t.clean.jsonl")[20]["label"] == "delivery"
    assert doubtful()[20]["label"] == "billing"


def test_what_was_said_is_kept_and_can_be_taken_back(check: Check) -> None:
    source = write("t.jsonl", doubtful())
    stopped = check(source, "--fix", "--interactive", typed="d|k|u|q")
    assert stopped.exit_code == 0
    assert "Nothing was written" in stopped.output
    assert not Path("t.clean.jsonl").exists()
    journal = read("t.clean.journal.jsonl")
    assert [row.get("verb", "undo") for row in journal] == ["drop", "keep", "undo"]
    assert [row["where"] for row in journal[:2]] == ["t.jsonl:41", "t.jsonl:42"]
    again = check(source, "--fix", "--interactive", typed="s|d|k")
    assert "1 decision of earlier sessions." in " ".join(again.output.split())
    assert "1 of 3" in again.output
    rows = read("t.clean.jsonl")
    assert len(rows) == 41  # 41 and 43 were dropped, 42 was skipped
    assert rows[-1] == doubtful()[41]
    first = Path("t.clean.jsonl").read_bytes()
    assert check(source, "--fix", "--force").exit_code == 0  # what was decided counts without questions too
    assert Path("t.clean.jsonl").read_bytes() == first
    last = check(source, "--fix", "--interactive", "--force", typed="t")
    assert "1 of 1" in last.output
    assert len(read("t.clean.jsonl")) == 40


def test_undo_goes_back_over_a_skip_and_says_when_there_is_nothing(check: Check) -> None:
    source = write("t.jsonl", doubtful())
    result = check(source, "--interactive", typed="u|s|u|d|s|s|s")
    assert "nothing to undo" in result.output
    assert result.output.count("1 of 4") == 3
    assert len(read("t.clean.jsonl")) == 42


def test_decisions_about_rows_that_are_gone_are_told(check: Check) -> None:
    source = write("t.jsonl", doubtful())
    check(source, "--interactive", typed="d|d|s|s")
    write("t.jsonl", [row for i, row in enumerate(doubtful()) if i != 40])
    result = check(source, "--fix", "--force")
    assert "2 decisions of earlier sessions, 1 of them about rows that are not there" in " ".join(
        result.output.split()
    )
    assert len(read("t.clean.jsonl")) == 41
    Path("t.clean.journal.jsonl").write_text('{"something": "else"}\n')
    refused = check(source, "--fix", "--force")
    assert (refused.exit_code, "t.clean.journal.jsonl:1: is not a decision" in refused.output) == (2, True)


def test_a_dropped_row_is_not_asked_about_again(check: Check) -> None:
    rows = tickets(40)
    rows += [
        {**rows[0], "label": "delivery", "text": rows[0]["text"] + f" {MAIL}"},
        {**rows[0], "label": "x"},
    ]
    source = write("t.jsonl", [*rows, {**rows[0], "label": "delivery"}])
    result = check(source, "--interactive", typed="d|" * 20)
    asked = re.findall(r"\d+ of \d+: (\w+)", result.output)
    kept = [row for row in read("t.clean.jsonl") if row["text"].startswith(rows[0]["text"])]
    assert len(kept) == 1
    assert len(asked) == 3


def test_what_is_shown_hides_secrets_and_escape_sequences(check: Check) -> None:
    rows = [*tickets(40), {**tickets(1)[0], "label": "delivery"}]
    rows[0]["text"] += f" {KEY}"
    rows[40]["text"] = rows[0]["text"] + " \x1b[31m[bold]x[/bold]"
    result = check(write("t.jsonl", rows), "--interactive", typed="k|k|k|k")
    assert KEY not in result.output
    assert "[bold]x[/bold]" in result.output
    assert "\x1b[31m" not in result.output


def test_a_long_answer_goes_to_the_editor(
    check: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    editor = tmp_path / "editor.sh"
    editor.write_text('#!/bin/sh\nprintf "A better answer.\\n" > "$1"\n')
    editor.chmod(0o755)
    monkeypatch.setenv("VISUAL", str(editor))
    assert doubting.edit_text("one\ntwo") == "A better answer."
    editor.write_text("#!/bin/sh\nexit 0\n")
    assert doubting.edit_text("one\ntwo") is None
    editor.write_text("#!/bin/sh\nexit 3\n")
    assert doubting.edit_text("one\ntwo") is None
    monkeypatch.setenv("VISUAL", str(tmp_path / "none"))
    assert doubting.edit_text("one\ntwo") is None
