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
from luthier.comparison import compare_runs
from luthier.errors import RecordError
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
    text = write_comparison(result, Format.markdown)
    assert "## Worse: -41.7" in text
    assert "| 'good' answered as 'bad' | 10 | 60 | &lt; 0.001 |" in text
