"""Two runs on the same examples, and what other programs are told of them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from luthier.cli.main import app
from luthier.cli.summaries import Format, write_comparison, write_verdict
from luthier.errors import RecordError
from luthier.evidence.comparison import compare_runs
from luthier.record import Record, write_json, write_jsonl


def write_run(
    folder: Path,
    scores: list[float | None],
    *,
    start: int = 0,
    grader: str = "label",
    group: int | None = None,
) -> Record:
    """A run folder as far as a comparison reads it; `group` examples in a row share a source."""
    record = Record(folder)
    rows: list[dict[str, Any]] = [
        {
            "id": f"e{i}",
            "input": f"message {i}",
            "answer": "good" if score else "bad",
            "reference": "good",
            "score": score,
            "reason": None if score else "another label",
            "detail": {"label": "good" if score else "bad", "known": True},
            "file": "data.jsonl",
            "line": i,
        }
        for i, score in enumerate(scores, start)
    ]
    folder.mkdir()
    (folder / "recipe.yaml").write_text("model: smollm2-135m\ndata: data.jsonl\n")
    write_json(folder / "scores.json", {"grader": grader, "metric": "accuracy", "candidates": {}})
    write_jsonl(folder / "predictions/tuned.jsonl", rows)
    groups = [
        {"id": row["id"], "group": None if group is None else f"g{i // group}"} for i, row in enumerate(rows)
    ]
    write_jsonl(folder / "data/test.jsonl", groups)
    return record


def ones(right: int, n: int, seed: int = 0) -> list[float | None]:
    scores: list[float | None] = [1.0] * right + [0.0] * (n - right)
    random.Random(seed).shuffle(scores)
    return scores


@pytest.mark.parametrize(
    ("old", "new", "margin", "decision", "code"),
    [
        (ones(60, 120), ones(110, 120), 0.02, "better", 0),
        (ones(110, 120), ones(60, 120), 0.02, "worse", 3),
        (ones(90, 120), ones(90, 120), 0.05, "no_worse", 0),
        (ones(12, 20), ones(12, 20, seed=1), 0.02, "undecided", 4),
    ],
)
def test_the_decision_and_its_exit_code(
    tmp_path: Path, old: Any, new: Any, margin: float, decision: str, code: int
) -> None:
    before, after = write_run(tmp_path / "old", old), write_run(tmp_path / "new", new)
    assert compare_runs(before, after, margin=margin)["decision"] == decision
    told = CliRunner().invoke(
        app, ["compare", str(before.path), str(after.path), "--margin", str(margin), "--format", "json"]
    )
    assert told.exit_code == code
    assert json.loads(told.stdout)["decision"] == decision


def test_twenty_alike_answers_do_not_show_that_nothing_was_lost(tmp_path: Path) -> None:
    same = ones(15, 20)
    result = compare_runs(write_run(tmp_path / "a", same), write_run(tmp_path / "b", same), margin=0.02)
    assert (result["difference"], result["decision"]) == (0.0, "undecided")


def test_only_examples_of_both_count(tmp_path: Path) -> None:
    """e0..e59 and e20..e79: 40 in common, of which e20..e29 became wrong and e59 is unscored now."""
    old = write_run(tmp_path / "old", [1.0] * 60)
    new = write_run(tmp_path / "new", [0.0] * 10 + [1.0] * 29 + [None] + [1.0] * 20, start=20)
    result = compare_runs(old, new)
    assert (result["n"], result["only_old"], result["only_new"]) == (39, 21, 20)
    assert result["difference"] == pytest.approx(-10 / 39)
    assert result["flips"] == {"lost": 10, "gained": 0}
    wins = result["wins"]
    assert (wins["better"], wins["same"], wins["worse"]) == (0, 29, 10)
    assert wins["rate"] == pytest.approx(29 / 2 / 39) and wins["low"] < wins["rate"] < wins["high"] < 0.5
    assert result["lost"][0]["input"] == "message 20"


def test_a_kind_of_failure_that_was_mended(tmp_path: Path) -> None:
    old = write_run(tmp_path / "old", [0.0] * 12 + [1.0] * 40)
    new = write_run(tmp_path / "new", [1.0] * 50 + [0.0] * 2)
    (kind,) = compare_runs(old, new)["kinds"]
    assert (kind["kind"], kind["old"], kind["new"]) == ("'good' answered as 'bad'", 12, 2)
    assert kind["p"] < 0.05


def test_examples_of_one_source_count_once(tmp_path: Path) -> None:
    """Ten answers of one source became wrong together: one event, not ten."""
    before: list[float | None] = [1.0] * 60
    after: list[float | None] = [0.0] * 10 + [1.0] * 50
    alone = compare_runs(write_run(tmp_path / "a", before), write_run(tmp_path / "b", after))
    grouped = compare_runs(
        write_run(tmp_path / "c", before, group=10), write_run(tmp_path / "d", after, group=10)
    )
    assert alone["decision"] == "worse"
    assert grouped["decision"] == "undecided"
    assert grouped["p"] > 0.5


def test_what_cannot_be_compared_is_told(tmp_path: Path) -> None:
    old = write_run(tmp_path / "old", ones(10, 20))
    with pytest.raises(RecordError, match="no held-out example in common"):
        compare_runs(old, write_run(tmp_path / "far", ones(10, 20), start=100))
    with pytest.raises(RecordError, match="graded by json_fields"):
        compare_runs(old, write_run(tmp_path / "other", ones(10, 20), grader="json_fields"))
    with pytest.raises(RecordError, match="no answers of 'few_shot'; there are: tuned"):
        compare_runs(old, old, candidate="few_shot")
    told = CliRunner().invoke(app, ["compare", str(old.path), str(tmp_path / "nowhere")])
    assert told.exit_code == 1
    assert "luthier evaluate" in told.stderr


GATES = [
    {"name": "gain", "passed": True, "reason": "tuned is better | by far"},
    {"name": "forgetting", "passed": False, "reason": "worse by \x00 <b>much</b>"},
    {"name": "data", "passed": None, "reason": "not checked"},
]
VERDICT = {"decision": "do_not_ship", "headline": "Use prompt", "gates": GATES, "reasons": []}


def test_junit_passes_only_what_passed() -> None:
    suite = ElementTree.fromstring(write_verdict(VERDICT, "tickets", Format.junit))
    assert suite.attrib == {"name": "luthier verdict tickets", "tests": "3", "failures": "1", "errors": "1"}
    outcomes = {case.get("name"): [child.tag for child in case] for case in suite}
    assert outcomes == {"gain": ["system-out"], "forgetting": ["failure"], "data": ["error"]}


def test_markdown_holds_the_users_text_in_its_cell() -> None:
    text = write_verdict(VERDICT, "tickets", Format.markdown)
    assert text.startswith("## Use prompt\n")
    assert "| gain | passed | tuned is better \\| by far |" in text
    assert "&lt;b>much" in text


def test_a_comparison_for_other_programs(tmp_path: Path) -> None:
    result = compare_runs(
        write_run(tmp_path / "old", ones(110, 120)), write_run(tmp_path / "new", ones(60, 120))
    )
    suite = ElementTree.fromstring(write_comparison(result, Format.junit))
    assert [child.tag for child in suite[0]] == ["failure"]
    assert [child.tag for child in suite[1]] == ["skipped"]  # decides nothing
    assert suite.attrib | {"tests": "2", "failures": "1", "skipped": "1"} == suite.attrib
    text = write_comparison(result, Format.markdown)
    assert "## Worse: -41.7" in text
    assert "| 'good' answered as 'bad' | 10 | 60 | 0 | +41.7 [" in text
    assert "\nWorse: 'good' answered as 'bad' (10 then, 60 now)." in text


# --- the parts: kinds of failure and slices ---------------------------------------------------------


def give_slices(record: Record, values: list[str], recipe: bool = True) -> None:
    rows = record.read_jsonl("data/test.jsonl")
    fields = [{**row, "fields": {"region": value}} for row, value in zip(rows, values, strict=True)]
    write_jsonl(record / "data/test.jsonl", fields)
    if recipe:
        (record / "recipe.yaml").write_text("model: m\ndata: data.jsonl\nslices: [region]\n")


def test_slices_show_what_else_moved(tmp_path: Path) -> None:
    """North goes from 0 of 20 to 20 of 20, south from 30 of 30 to 18 of 30; east is too small to test."""
    old = write_run(tmp_path / "old", [0.0] * 20 + [1.0] * 30 + [1.0] * 5)
    new = write_run(tmp_path / "new", [1.0] * 20 + [0.0] * 12 + [1.0] * 18 + [0.0] * 5)
    give_slices(old, ["north"] * 20 + ["south"] * 30 + ["east"] * 5)
    result = compare_runs(old, new)
    rows = {row["value"]: row for row in result["slices"]}
    told = {name: (row["n"], row["old"], row["new"], row["changed"]) for name, row in rows.items()}
    assert told == {
        "north": (20, 0.0, 1.0, "better"),
        "south": (30, 1.0, 0.6, "worse"),
        "east": (5, 1.0, 0.0, None),
    }
    south = rows["south"]
    assert south["difference"] == pytest.approx(-0.4)
    assert south["low"] < south["difference"] < south["high"]
    assert south["p"] == pytest.approx(2**-12)  # mid-p of 12 to none is 2^-12; Holm leaves the larger
    assert rows["east"]["p"] is None
    text = write_comparison(result, Format.markdown)
    assert "\nMended: region north (0.0% then, 100.0% now).\n" in text
    assert "| region: south | 30 | 100.0% | 60.0% | -40.0 [" in text
    suite = ElementTree.fromstring(write_comparison(result, Format.junit))
    tags = {case.get("name"): case[0].tag for case in suite}
    assert (tags["slice region: north"], tags["slice region: south"]) == ("system-out", "skipped")


def test_kinds_are_those_of_the_old_report_and_of_both_runs_together(tmp_path: Path) -> None:
    old = write_run(tmp_path / "old", [0.0] * 2 + [1.0] * 50)
    new = write_run(tmp_path / "new", [1.0] * 52)
    assert compare_runs(old, new)["kinds"] == []  # twice in all is no kind
    name = "'good' answered as 'bad'"
    write_json(old / "failures.json", {"tuned": {"kinds": [{"kind": name}]}})
    (kind,) = compare_runs(old, new)["kinds"]
    assert (kind["kind"], kind["known"]) == (name, True)
    assert (kind["n"], kind["old"], kind["new"], kind["mended"]) == (52, 2, 0, 2)
    assert kind["difference"] == pytest.approx(-2 / 52)
    assert kind["changed"] is None  # mid-p of two to none is 1/4


def test_kinds_of_one_source_count_once(tmp_path: Path) -> None:
    old = write_run(tmp_path / "old", [0.0] * 12 + [1.0] * 48, group=12)
    new = write_run(tmp_path / "new", [1.0] * 60, group=12)
    (kind,) = compare_runs(old, new)["kinds"]
    assert (kind["old"], kind["new"], kind["changed"]) == (12, 0, None)


def test_no_kind_is_mended_where_two_runs_differ_by_chance_alone(tmp_path: Path) -> None:
    """Answers are wrong by a coin, and in one of six ways: 40 pairs of runs, few of which find anything."""
    dice = random.Random(3)
    found = 0
    for number in range(40):
        runs = []
        for side in ("old", "new"):
            record = write_run(tmp_path / f"{side}{number}", [float(dice.random() < 0.5) for _ in range(60)])
            rows = record.read_jsonl("predictions/tuned.jsonl")
            for row in rows:
                row["detail"]["label"] = "good" if row["score"] else dice.choice("abcdef")
            write_jsonl(record / "predictions/tuned.jsonl", rows)
            runs.append(record)
        found += any(kind["changed"] for kind in compare_runs(*runs)["kinds"])
    assert found <= 6  # at most 5% each: 7 or more of 40 happens once in 300
