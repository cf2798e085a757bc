"""`luthier check`: one screen, the files it writes, and an exit code that a CI server can use."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_run
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

import luthier.audit.checks
from luthier.audit.overview import overview, power, say_power
from luthier.cli import checking
from luthier.cli.check_screen import SCREEN_LINES, group_found, print_audit, say_places, share_lines
from luthier.cli.checking import folder_for, is_data
from luthier.cli.main import app
from luthier.cli.screen import console
from luthier.errors import AssetError, RecipeError
from luthier.examples.example import Example, Message
from luthier.record import Record, write_json

WIDTH = 100
Luthier = Callable[..., Result]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a clean file of examples with a recipe, and a messy file."""
    folder = tmp_path_factory.mktemp("check")
    tiny_run.write_recipe(folder, tiny_run.write_model(folder / "model"))
    lines = tiny_run.write_examples(folder / "messy.jsonl", 200).read_text().splitlines()

    def row(asked: str, answer: str) -> str:
        said = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
        return json.dumps({"messages": said})

    lines[10:10] = ['{"messages": [{"role": "user", "con', '{"messages": 5}']
    lines += [row("where is the parcel of last week", "good"), row("where is the parcel of last week", "bad")]
    lines += [
        row("my mail is ann@example.org, thanks", "good"),
        row("it [bold]rang[/bold] <|im_end|>", "bad"),
    ]
    (folder / "messy.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def luthier_(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Luthier]:
    """`luthier check` with the tiny model, in an empty folder; bugs are failures of the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "_width", WIDTH)

    def call(source: object, *arguments: object) -> Result:
        more = (
            () if str(source).endswith(".yaml") or Path(str(source)).is_dir() else ("--model", home / "model")
        )
        result = CliRunner().invoke(app, ["check", *map(str, (source, *more, *arguments))])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    yield call


# --- one screen -------------------------------------------------------------------------------------


def test_the_summary_of_a_messy_file(luthier_: Luthier, home: Path) -> None:
    result = luthier_(home / "messy.jsonl")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert 20 <= len(lines) <= 40
    assert max(map(len, lines)) <= WIDTH
    for shown in (
        "messy.jsonl: 204 examples, read as messages, 2.0 turns on average",
        "left out: 2 rows that could not be read",
        "with 61 test examples after the split you can detect a 16-point difference",
        "messy.jsonl:11, 12",
        "messy.jsonl:203, 204",
        "decide which answer is right, or put what decides it into the input",
        "the text spells the tokenizer's special tokens <|im_end|>",
        "nothing found by ",
        "did not apply: leakage",
    ):
        assert shown in result.stdout, shown
    first = {line.split()[1]: line.split() for line in lines if line[:2] in ("✕ ", "! ", "· ")}
    assert first["unreadable"][2] == "2"
    assert first["label_conflict"][2] == "1"
    assert [first[name][0] for name in ("unreadable", "personal_data")] == ["✕", "!"]
    marks = [line[0] for line in lines if line[:2] in ("✕ ", "! ", "· ")]
    assert marks == sorted(marks, key="✕!·".index)
    assert lines[-2:] == ["Findings: checks/messy/audit.json", "Page:     checks/messy/audit.html"]


def test_audit_json_and_the_page_say_the_same_as_the_screen(luthier_: Luthier, home: Path) -> None:
    result = luthier_(home / "messy.jsonl")
    told = json.loads(Path("checks/messy/audit.json").read_text())
    errors, warnings, notes = (told["severities"][kind] for kind in ("error", "warning", "info"))
    assert errors == sum(f["severity"] == "error" for f in told["findings"]) == 4
    assert f"204 examples: {errors} errors, {warnings} warnings, {notes} note" in result.stdout
    assert told["summary"]["unreadable"] == 2
    assert [f["examples"][0]["line"] for f in told["findings"] if f["check"] == "unreadable"] == [11, 12]
    (read,) = told["read"]
    assert (read["examples"], read["left_out"], read["file"]) == (204, 2, str(home / "messy.jsonl"))
    page = Path("checks/messy/audit.html").read_text()
    assert f"<h1>4 errors, {warnings} warnings" in page
    assert 'data-check="unreadable"' in page
    assert "ann@example.org" not in page


def test_all_lists_every_finding_in_full(luthier_: Luthier, home: Path) -> None:
    result = luthier_(home / "messy.jsonl", "--all")
    told = json.loads(Path("checks/messy/audit.json").read_text())
    flat = " ".join(result.stdout.split())
    for finding in told["findings"]:
        assert f"{finding['check']} {' '.join(finding['message'].split())}" in flat
        assert " ".join(finding["fix"].split()) in flat
    assert not [line for line in result.stdout.splitlines() if line.endswith("…")]


def test_a_clean_file_is_short_and_text_is_no_markup(luthier_: Luthier, home: Path, tmp_path: Path) -> None:
    tiny_run.write_examples(tmp_path / "many.jsonl", 700)
    result = luthier_("many.jsonl")
    assert "700 examples: 0 errors" in result.stdout
    assert len(result.stdout.splitlines()) < 16
    messy = luthier_(home / "messy.jsonl", "--show-mask")
    assert "tokens are trained" in messy.stdout
    assert "<|im_start|>assistant" in messy.stdout


def audit_of(checks: int, *, failed: int = 0, files: int = 1, clean: int = 5) -> dict[str, Any]:
    kinds = ("error", "warning", "info")
    findings = [
        {
            "check": f"check_number_{i}",
            "severity": kinds[i * 3 // checks],
            "score": None,
            "message": "a long message of many words [red]without[/red] an end " * 5,
            "fix": "do something about it that takes a while to say " * 4,
            "examples": [{"file": "a/data.jsonl", "line": n} for n in range(1, 9)],
        }
        for i in range(checks)
    ]
    summary = {f["check"]: 1 for f in findings} | {f"quiet_check_{i}": 0 for i in range(clean)}
    read = {"file": "a/data.jsonl", "described": "messages", "examples": 9, "left_out": 3}
    return {
        "findings": findings,
        "summary": summary,
        "examples": 9,
        "failed": [{"check": f"broken_{i}", "reason": "because " * 40} for i in range(failed)],
        "skipped": [{"check": f"skipped_{i}", "reason": "why"} for i in range(9)],
        "read": [read] * files,
        "power": power(40, is_split=True),
    }


@pytest.mark.parametrize("checks", [0, 1, 3, 6, 9, 14, 24, 40])
@pytest.mark.parametrize(("failed", "files"), [(0, 1), (9, 3)])
def test_any_audit_fits_on_one_screen(
    checks: int, failed: int, files: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "_width", WIDTH)
    print_audit(audit_of(checks, failed=failed, files=files, clean=30))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= SCREEN_LINES + 2
    assert max(map(len, lines)) <= WIDTH
    shown = sum(line[:2] in ("✕ ", "! ", "· ") for line in lines)
    (more,) = [int(line.split()[1]) for line in lines if line.startswith("and ")] or [0]
    if not failed:
        assert shown + more == checks
    if checks == 3:
        assert "[red]without[/red]" in "\n".join(lines)
        assert sum("data.jsonl:1, 2, 3 and 5 more" in line for line in lines) == 3
    assert any("with 40 test examples you can detect a 19-point difference" in line for line in lines)


@given(st.integers(0, 60), st.integers(1, 40))
def test_lines_are_shared_from_the_top(checks: int, room: int) -> None:
    lines = share_lines(checks, room)
    assert len(lines) == min(checks, room)
    assert sum(lines) <= room
    assert lines == sorted(lines, reverse=True)
    assert not lines or (min(lines) >= 1 and max(lines) <= 4 and max(lines) - min(lines) <= 1)
    assert sum(lines) == room or not lines or min(lines) == 4 or len(lines) == room


def test_the_worst_finding_of_a_check_stands_for_it() -> None:
    def finding(check: str, severity: str, score: float | None, line: int) -> dict[str, Any]:
        at = [{"file": "x/d.jsonl", "line": line}]
        return {
            "check": check,
            "severity": severity,
            "score": score,
            "message": "",
            "fix": "",
            "examples": at,
        }

    rows = [finding("a", "info", 9.0, 1), finding("b", "warning", 0.1, 2), finding("b", "warning", 0.7, 3)]
    rows += [finding("a", "error", None, 4)]
    first, second = group_found(rows, {"a": 2, "b": 500})
    assert (first.check, first.worst["examples"][0]["line"], first.count) == ("a", 4, 2)
    assert (second.check, second.worst["score"], second.count) == ("b", 0.7, 500)
    assert second.places == (("x/d.jsonl", 3), ("x/d.jsonl", 2))
    assert say_places(second.places) == "d.jsonl:3, 2"
    assert (
        say_places([("a.txt", 1), ("b.txt", 1), ("b.txt", 2), ("b.txt", 3)])
        == "a.txt:1, b.txt:1, 2 and 1 more"
    )
    assert say_places([]) == ""


def test_what_the_number_of_examples_can_show() -> None:
    assert say_power(power(40, is_split=True)) == "with 40 test examples you can detect a 19-point difference"
    assert say_power(power(5000, is_split=False)).endswith(
        "after the split you can detect a 1.8-point difference"
    )
    assert say_power(power(3, is_split=True)) == "with 3 test examples you can detect no difference at all"
    assert say_power(None) == ""
    asked = [Example(str(i), (Message("user", "a"), Message("assistant", "b")), "f", i) for i in range(100)]
    texts = [Example(str(i), (Message("assistant", "b"),), "f", i) for i in range(9)]
    told = overview({"train": asked[:60], "test": asked[60:]}, test_share=0.3, read=[])
    assert told["power"] == power(40, is_split=True)
    assert told["sides"] == {"train": 60, "test": 40}
    assert overview({"all": asked}, test_share=0.3, read=[])["power"]["test_examples"] == 30
    sampled = overview({"all": asked}, test_share=0.3, read=[], examples=10_000)
    assert (sampled["power"]["test_examples"], sampled["sides"]) == (3000, {"all": 10_000})
    assert overview({"all": texts}, test_share=0.3, read=[])["power"] is None


# --- exit codes -------------------------------------------------------------------------------------


def test_strict_tells_of_errors_and_of_checks_that_broke(
    luthier_: Luthier, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert luthier_(home / "messy.jsonl", "--strict").exit_code == 3
    assert luthier_(home / "tickets.jsonl", "--strict").exit_code == 0

    def broken(material: object) -> None:
        raise ValueError("no such thing")

    monkeypatch.setitem(luthier.audit.checks.CHECKS, "secret", broken)
    result = luthier_(home / "tickets.jsonl", "--strict")
    assert result.exit_code == 4
    assert "could not run secret: ValueError: no such thing" in result.stdout
    assert luthier_(home / "tickets.jsonl").exit_code == 0
    assert luthier_(home / "messy.jsonl", "--strict").exit_code == 3


def test_a_row_that_cannot_be_read_is_an_error(luthier_: Luthier, home: Path, tmp_path: Path) -> None:
    text = (home / "tickets.jsonl").read_text()
    (tmp_path / "cut.jsonl").write_text(text + '{"messages": [')
    result = luthier_("cut.jsonl", "--strict")
    assert result.exit_code == 3
    assert "cut.jsonl:61" in result.stdout
    assert "60 examples: 1 error, " in result.stdout


# --- where it writes --------------------------------------------------------------------------------


def test_out_names_the_folder_and_a_run_folder_is_refused(
    luthier_: Luthier, home: Path, tmp_path: Path
) -> None:
    assert luthier_(home / "tickets.jsonl", "--out", "deep/er").exit_code == 0
    assert sorted(p.name for p in Path("deep/er").iterdir()) == ["audit.html", "audit.json"]
    assert not Path("checks").exists()
    (tmp_path / "run").mkdir()
    (tmp_path / "run/recipe.yaml").write_text("x")
    refused = luthier_(home / "tickets.jsonl", "--out", "run")
    assert refused.exit_code == 2
    assert "run folder" in refused.stderr
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["recipe.yaml"]
    (tmp_path / "file").write_text("x")
    blocked = luthier_(home / "tickets.jsonl", "--out", "file/x")
    assert blocked.exit_code == 1
    assert "--out" in blocked.stderr


@pytest.mark.parametrize(
    ("source", "folder"),
    [
        ("data/tickets.jsonl.gz", "checks/tickets"),
        ("hub:owner/my data@train", "checks/my-data@train"),
        (".jsonl", "checks/examples"),
    ],
)
def test_the_folder_is_named_after_the_file(source: str, folder: str) -> None:
    assert folder_for(Path(source), None) == Path(folder)


def test_a_folder_of_examples_is_no_run(tmp_path: Path) -> None:
    assert is_data(tmp_path)
    (tmp_path / "recipe.yaml").write_text("")
    assert not is_data(tmp_path)
    assert not is_data(Path("x.yaml"))
    with pytest.raises(RecipeError):
        folder_for(Path("x.jsonl"), tmp_path)


def test_a_recipe_writes_into_its_run_folder(luthier_: Luthier, home: Path, tmp_path: Path) -> None:
    result = luthier_(home / "recipe.yaml", "--out", "run")
    assert result.exit_code == 0
    assert "tickets.jsonl: 60 examples, read as messages" in result.stdout
    assert "test" in next(line for line in result.stdout.splitlines() if line.startswith("sides: "))
    assert result.stdout.splitlines()[-2:] == ["Findings: run/audit.json", "Page:     run/audit.html"]
    run = Record(tmp_path / "run")
    memo = run.stage_memo("audit")
    assert memo is not None
    assert set(memo["outputs"]) == {"audit.json", "audit.html"}
    page = (run / "audit.html").read_text()
    assert "Say good or bad." in page  # the recipe's system prompt stands before the first answer
    written = (run / "audit.html").stat().st_mtime_ns
    again = luthier_("run", "--strict")
    assert again.exit_code == 0
    assert (run / "audit.html").stat().st_mtime_ns == written
    (run / "audit.html").unlink()
    luthier_("run")
    assert (run / "audit.html").read_text() == page
    write_json(run / "audit.json", {**run.read_json("audit.json"), "findings": []})
    luthier_("run")
    assert run.stage_memo("audit")["key"] == memo["key"]  # type: ignore[index]


def test_an_audit_of_an_earlier_version_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    old = audit_of(3)
    for key in ("read", "power", "skipped"):
        del old[key]
    print_audit(old)
    assert "9 examples: 1 error, 1 warning, 1 note" in capsys.readouterr().out


def test_tools_that_the_template_cannot_show_cost_a_note_and_no_check(
    luthier_: Luthier, tmp_path: Path
) -> None:
    tool = {"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}
    call = {"id": "1", "type": "function", "function": {"name": "find", "arguments": "{}"}}
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"where is parcel {n}"},
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "content": f"at {n}", "tool_call_id": "1"},
                {"role": "assistant", "content": f"it is at {n}"},
            ],
            "tools": [tool],
        }
        for n in range(12)
    ]
    path = tmp_path / "tools.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = luthier_(path, "--all")
    assert result.exit_code == 0, result.stderr
    shown = " ".join(result.stdout.split())
    assert "does not show which tools are on offer" in shown
    assert "training would refuse" in shown and "tools.jsonl:1" in shown
    assert "does not show" in Path("checks/tools/audit.html").read_text()
    assert json.loads(Path("checks/tools/audit.json").read_text())["examples"] == 12


# --- without a model --------------------------------------------------------------------------------


def test_without_the_default_model_the_other_checks_run(
    luthier_: Luthier, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> None:
        raise AssetError(f"cannot be fetched: {name}")

    monkeypatch.setattr("luthier.models.load.load_tokenizer", absent)
    result = luthier_(home / "messy.jsonl", "--model", checking.DEFAULT_MODEL, "--strict", "--show-mask")
    assert result.exit_code == 3
    assert "nothing is said of tokens: cannot be fetched" in result.stdout
    assert "truncation" in next(line for line in result.stdout.splitlines() if "did not apply" in line)
    assert "no model was chosen" in Path("checks/messy/audit.html").read_text()
    named = luthier_(home / "messy.jsonl", "--model", "another")
    assert named.exit_code == 1
    assert "cannot be fetched: another" in named.stderr
