"""The recipes for the four uses: their data keeps its own rules, and splits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from luthier.audit import audit_examples
from luthier.examples import Example, read_examples
from luthier.grade.python_file import PythonFile
from luthier.pipeline import Run
from luthier.recipe import load_recipe

RECIPES = Path(__file__).parent.parent / "recipes"
ALL = sorted(RECIPES.glob("*.yaml"))
OWN = ("tone", "extraction", "edge_case_before", "edge_case")  # of files in this repository
GRADER = f"python:{RECIPES}/house_style.py:house_style"
KINDS = {"concert", "talk", "market", "course", "walk", "film", "meeting"}


def examples(name: str) -> tuple[Example, ...]:
    return read_examples(RECIPES / f"data/{name}.jsonl").examples


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_every_recipe_loads_and_says_how_it_is_run(path: Path) -> None:
    assert load_recipe(path).name == path.stem
    assert f"luthier run recipes/{path.name}" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", OWN)
def test_the_data_audits_cleanly_and_leaves_enough_to_test_on(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(RECIPES / f"{name}.yaml")
    split = Run(recipe, tmp_path).split()
    assert len(split.test) >= 40
    audit = audit_examples(split.sides(), system=recipe.system)
    assert {finding.check for finding in audit.findings} <= {"too_few_examples"}
    assert not audit.failed


def test_every_reply_keeps_the_house_style() -> None:
    grader = PythonFile(GRADER)
    rows = examples("tone")
    assert len({row.answer for row in rows}) == len({row.input for row in rows}) == len(rows) >= 120
    for row in rows:
        score = grader.grade(row.answer, row.answer, row)
        assert score.value == 1.0, (row.answer, score.reason)


BROKEN = {
    "Hi there, we will send it. Yours, Fernhill": "opens with Hello",
    "Hello, we will send it.": "signed Yours, Fernhill",
    "Hello, I think we will send it. Yours, Fernhill": "we, never I",
    "Hello, we are sorry and we will send it. Yours, Fernhill": "no excuses, no exclamation",
    "Hello, we will send it! Yours, Fernhill": "no excuses, no exclamation",
    "Hello, it was sent. Yours, Fernhill": "says what happens next",
    f"Hello, we will {'really ' * 50}send it. Yours, Fernhill": "one to fifty words",
}


@pytest.mark.parametrize(("reply", "rule"), BROKEN.items(), ids=BROKEN.values())
def test_each_rule_of_the_house_style_can_be_broken_alone(reply: str, rule: str) -> None:
    row = examples("tone")[0]
    score = PythonFile(GRADER).grade(reply, reply, row)
    assert score.reason == f"breaks: {rule}"
    assert score.value == pytest.approx(6 / 7)


def test_one_reply_to_everything_does_not_answer_the_request() -> None:
    grader, rows = PythonFile(GRADER), examples("tone")
    apart = [grader.grade(rows[0].answer, row.answer, row) for row in rows[1:]]
    assert sum(score.value == 1.0 for score in apart) <= len(apart) / 20
    assert grader.grade("", rows[0].answer, rows[0]).value == 0.0


@pytest.mark.parametrize("name", ["events", "worded_times", "worded_times_test"])
def test_every_announcement_has_its_fields_in_the_text(name: str) -> None:
    for row in examples(name):
        event = json.loads(row.answer)
        assert list(event) == ["kind", "date", "time", "place", "price", "booking"]
        assert event["kind"] in KINDS
        assert event["place"].casefold() in row.input.casefold()
        assert event["date"].split()[0] in row.input
        hour, minute = map(int, event["time"].split(":"))
        assert 0 <= hour < 24 and 0 <= minute < 60
        assert type(event["booking"]) is bool
        assert event["price"] is None or float(event["price"]) >= 0


def test_the_edge_case_is_told_in_words_and_new_to_the_run_before() -> None:
    words = ("quarter", "noon", "midnight", "ten to", "ten past", "five to", "five past", "twenty")
    rows = examples("worded_times_test")
    told = {row.id: any(word in row.input for word in words) for row in rows}
    assert [row.fields["time_in"] == "words" for row in rows] == [told[row.id] for row in rows]
    assert all(any(word in row.input for word in words) for row in examples("worded_times"))
    before = [row for row in examples("events") if any(word in row.input for word in words)]
    assert len(before) <= 6


def test_the_two_runs_of_the_edge_case_differ_in_the_extra_examples_alone() -> None:
    old, new = (load_recipe(RECIPES / f"{name}.yaml") for name in ("edge_case_before", "edge_case"))
    assert new.data.extra == str(RECIPES / "data/worded_times.jsonl")
    assert old.model_copy(update={"name": "", "data": old.data}) == new.model_copy(
        update={"name": "", "data": new.data.model_copy(update={"extra": None})}
    )


@pytest.mark.parametrize(
    ("words", "expected"),
    [(8, 1.0), (10, 1.0), (35, 0.5), (60, 0.0), (90, 0.0)],  # of ten to sixty words, linearly
)
def test_brief_replies_are_preferred_among_those_that_keep_the_rules(words: int, expected: float) -> None:
    grader = PythonFile(GRADER.replace(":house_style", ":brief_house_style"))
    row = examples("tone")[0]
    reply = " ".join(["Hello,", "we", "will", *["send"] * (words - 5), "Yours,", "Fernhill"])
    kept = PythonFile(GRADER).grade(reply, row.answer, row).value
    assert kept is not None and kept > 0.7
    score = grader.grade(reply, row.answer, row)
    assert score.value == pytest.approx(kept * expected)
    assert f"{words} words" in (score.reason or "") if expected < 1 else "words" not in (score.reason or "")
