"""`luthier collect review`: nothing is accepted but by a person, word by word, and no word is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from luthier.cli import accepting
from luthier.cli.main import app
from luthier.cli.screen import console
from luthier.collect.acceptance import read_words
from luthier.errors import RecordError
from luthier.examples import read_examples

LUTHIER = (sys.executable, "-c", "from luthier.cli.main import main; main()")
AT_TERMINAL = accepting.at_terminal
DRAFTED = {"source": "big-1 at example.org", "synthetic": True, "model": "big-1", "date": "2026-01-02"}


def drafts(count: int = 4) -> list[dict[str, Any]]:
    return [
        {
            "messages": [
                {"role": "user", "content": f"ask {n}"},
                {"role": "assistant", "content": f"say {n}"},
            ],
            "provenance": DRAFTED,
            "team": n,
        }
        for n in range(count)
    ]


def read(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def review(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The command with somebody at the terminal; the first argument is what they type, a line each."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "_width", 100)
    monkeypatch.setattr(accepting, "at_terminal", lambda: True)
    for name in ("VISUAL", "EDITOR"):
        monkeypatch.delenv(name, raising=False)
    Path("drafts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in drafts()))

    def call(typed: str, *arguments: object, by: str = "anna") -> Result:
        own = ["collect", "review", "drafts.jsonl", "--by", by, *map(str, arguments)]
        result = CliRunner().invoke(app, own, input=typed.replace("|", "\n") + "\n" * bool(typed))
        assert "Traceback" not in result.output
        return result

    return call


def test_only_what_was_accepted_is_written(review: Any) -> None:
    result = review("a|r|e|better|words|.|s")
    assert result.exit_code == 0, result.output
    assert "4 drafts, 4 to read" in result.stdout and "ask 0" in result.stdout and "say 0" in result.stdout
    assert "drafted by big-1" in result.stdout
    assert "1 accepted, 1 edited, 1 rejected, 1 left to read" in result.stdout
    first, second = read("drafts.accepted.jsonl")
    assert [first["messages"][-1]["content"], second["messages"][-1]["content"]] == ["say 0", "better\nwords"]
    day = first["provenance"].pop("accepted_at")
    assert len(day) == 10 and first["provenance"] == {**DRAFTED, "accepted_by": "anna"}
    assert second["provenance"] == {**DRAFTED, "accepted_by": "anna", "accepted_at": day, "edited": True}
    examples = read_examples("drafts.accepted.jsonl").examples
    assert [e.fields for e in examples] == [{"team": 0}, {"team": 2}]
    assert examples[0].provenance["accepted_by"] == "anna"


def test_a_session_goes_on_where_it_was_stopped(review: Any) -> None:
    review("a|q")
    again = review("r|s", by="ben")
    assert "4 drafts, 3 to read" in again.stdout and "ask 0" not in again.stdout
    assert "1 accepted, 0 edited, 1 rejected, 2 left" in again.stdout
    skipped = review("a|a")
    assert "4 drafts, 2 to read" in skipped.stdout  # a skipped one comes again
    assert [row["provenance"]["accepted_by"] for row in read("drafts.accepted.jsonl")] == ["anna"] * 3
    assert "0 to read" in review("").stdout
    assert [row["said"] for row in read("drafts.review.jsonl")] == ["accept", "reject", "accept", "accept"]


def test_the_last_word_can_be_taken_back(review: Any) -> None:
    result = review("u|a|u|r|q")
    assert "There is nothing to undo." in result.stdout and "Undone: accept" in result.stdout
    assert not Path("drafts.accepted.jsonl").exists()
    review("a|q")
    assert len(read("drafts.accepted.jsonl")) == 1
    review("u|q")  # of an earlier session
    assert not Path("drafts.accepted.jsonl").exists()


def test_what_makes_no_sense_is_asked_again(review: Any) -> None:
    result = review("y|all||accept|yes, all of them|q")
    assert result.stdout.count("is none of them") == 4
    assert len(read("drafts.accepted.jsonl")) == 1


def test_an_edit_to_nothing_is_not_kept_and_one_without_change_is_none(review: Any) -> None:
    result = review("e|  |.|e|say 0|.|q")
    assert "Not kept: the answer is empty" in result.stdout and "Nothing was changed" in result.stdout
    (row,) = read("drafts.accepted.jsonl")
    assert "edited" not in row["provenance"]


def test_an_editor_is_used_where_there_is_one(
    review: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "an editor.py"
    script.write_text(
        "import sys, pathlib\np = pathlib.Path(sys.argv[-1])\np.write_text(p.read_text() + ', surely')\n"
    )
    monkeypatch.setenv("EDITOR", f"{sys.executable} '{script}'")
    review("e|q")
    assert read("drafts.accepted.jsonl")[0]["messages"][-1]["content"] == "say 0, surely"
    monkeypatch.setenv("VISUAL", "/no/such/editor")
    failed = review("e|q")
    assert failed.exit_code == 2 and "the editor '/no/such/editor' failed" in failed.stderr
    assert len(read("drafts.accepted.jsonl")) == 1


def test_nothing_is_accepted_without_a_person(review: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "at_terminal", AT_TERMINAL)
    result = review("a|a|a|a")
    assert result.exit_code == 2 and "there is no way to accept all of them unread" in result.stderr
    assert [path.name for path in Path().iterdir()] == ["drafts.jsonl"]


def test_a_pipe_is_no_person(tmp_path: Path) -> None:
    (tmp_path / "drafts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in drafts()))
    command = [*LUTHIER, "collect", "review", "drafts.jsonl", "--by", "anna"]
    run = subprocess.run(command, check=False, input="a\n" * 9, capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 2 and "accepted by a person" in run.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["drafts.jsonl"]
    assert not {"--accept-all", "--yes", "--all"} & set(
        CliRunner().invoke(app, ["collect", "review", "--help"]).stdout.split()
    )


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_somebody_at_a_real_terminal(tmp_path: Path) -> None:
    (tmp_path / "drafts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in drafts(2)))
    ours, theirs = os.openpty()
    command = [*LUTHIER, "collect", "review", "drafts.jsonl", "--by", "anna"]
    process = subprocess.Popen(
        command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=tmp_path
    )
    os.write(ours, b"a\nr\n")
    output, _ = process.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)
    assert process.returncode == 0, output
    assert b"1 accepted, 0 edited, 1 rejected, 0 left to read" in output


def test_a_cut_off_word_is_asked_again(review: Any) -> None:
    review("a|a|q")
    path = Path("drafts.review.jsonl")
    path.write_bytes(path.read_bytes()[:-10])
    assert "3 to read" in review("r|q").stdout
    assert [row["said"] for row in read("drafts.review.jsonl")] == ["accept", "reject"]


@pytest.mark.parametrize(
    "line",
    [
        {"key": "x", "said": "accept", "at": "now"},
        {"key": "x", "said": "accept", "by": "", "at": "now"},
        {"key": "x", "said": "perhaps", "by": "anna", "at": "now"},
        {"key": "x", "said": "edit", "by": "anna", "at": "now"},
        {"key": "x", "said": "accept", "by": "anna", "at": "now", "answer": "other"},
        {"x": 1},
    ],
)
def test_a_journal_of_something_else_is_an_error(line: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "drafts.review.jsonl"
    path.write_text(json.dumps(line) + "\n")
    with pytest.raises(RecordError, match=r"is no word on a draft"):
        read_words(path)


def test_files_that_are_something_else(review: Any) -> None:
    Path("drafts.accepted.jsonl").write_text("mine\n")
    refused = review("a|q")
    assert refused.exit_code == 2 and Path("drafts.accepted.jsonl").read_text() == "mine\n"
    assert "--by is empty" in review("a", by="  ").stderr
    Path("drafts.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    assert "has no messages" in review("a", "--out", "o.jsonl").stderr


def test_words_of_drafts_that_are_gone_do_not_count(review: Any) -> None:
    review("a|a|q")
    Path("drafts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in drafts()[1:]))
    result = review("q")
    assert "1 accepted, 0 edited, 0 rejected, 2 left" in result.stdout
    assert [row["team"] for row in read("drafts.accepted.jsonl")] == [1]


def test_what_was_accepted_before_is_not_asked(review: Any) -> None:
    rows = drafts(2)
    rows[0]["provenance"] = {**DRAFTED, "accepted_by": "ben"}
    Path("drafts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "1 draft, 1 to read" in review("q").stdout
