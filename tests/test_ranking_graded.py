"""`luthier rank --grader`: a program in the place of a person."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from luthier.cli.main import app
from luthier.examples.example import Example, Message
from luthier.grade.score import Score
from luthier.ranking.graded import rank_by_grader
from luthier.ranking.questions import Offered, Question
from luthier.ranking.tasks import Task

RULES = '''
def longest(answer, reference, example):
    """The longer the better; what begins with ? cannot be judged."""
    return None if answer.startswith("?") else min(1.0, len(answer) / 10)
'''


class Same:
    """1 for the reference, a half for anything else that is written."""

    name = "same"
    metric = "same"

    def grade(self, answer: str, reference: str, example: Example) -> Score:
        return Score(1.0 if answer == reference else 0.5 if answer else 0.0)


def asked(*answers: str) -> Task:
    question = Question((Message("user", "Which?"),), tuple(map(Offered, answers)), "a.jsonl:1")
    return Task(question, 1, tuple(answer.id for answer in question.answers))


def test_scores_are_the_order_and_equal_ones_are_ties() -> None:
    task = asked("red", "blue", "", "green")
    example = Example("x", (Message("user", "Which?"), Message("assistant", "blue")), "a.jsonl", 1)
    said = rank_by_grader(Same(), [task], {task.question.key: example})
    assert said == [("0.5 1 0 0.5", ((1,), (0, 3), (2,)))]


def test_without_an_example_the_reference_is_empty() -> None:
    assert rank_by_grader(Same(), [asked("red", "blue")], {}) == [("0.5 0.5", ((0, 1),))]


@pytest.fixture
def rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """The command in a folder with rules and prompts."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rules.py").write_text(RULES, encoding="utf-8")
    rows = [
        {"prompt": "One?", "answers": ["a", "abc", "ab"]},
        {"prompt": "Two?", "answers": ["abcd", "efgh"]},
        {"prompt": "Three?", "answers": ["abcd", "?"]},
    ]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def call(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["rank", "prompts.jsonl", *arguments])

    return call


def lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(name).read_text(encoding="utf-8").splitlines()]


def test_a_grader_ranks_everything_once(rank: Callable[..., Result]) -> None:
    result = rank("--grader", "python:rules.py:longest")
    assert result.exit_code == 0, result.output
    assert "3 left for grader python:rules.py:longest" in result.output.replace("\n", " ")
    said = lines("judgements.jsonl")
    assert {row["rater"] for row in said} == {"grader python:rules.py:longest"}
    assert sorted(row["said"] for row in said) == ["ranked", "ranked", "skipped"]
    (preference,) = lines("judgements.preferences.jsonl")
    assert (preference["chosen"], preference["rejected"]) == ("abc", ["ab", "a"])
    assert rank("--grader", "python:rules.py:longest").exit_code == 0
    assert lines("judgements.jsonl") == said  # nothing is asked twice, nor for agreement


def test_who_judges_has_to_be_clear(rank: Callable[..., Result]) -> None:
    neither = rank()
    both = rank("--rater", "anna", "--grader", "python:rules.py:longest")
    for result in (neither, both):
        assert result.exit_code == 2 and "who judges" in result.stderr
    pairwise = rank("--grader", "python:rules.py:longest", "--pairwise")
    assert pairwise.exit_code == 2 and "--pairwise" in pairwise.stderr
    unknown = rank("--grader", "tast")
    assert unknown.exit_code == 2 and "unknown grader" in unknown.stderr
    assert not Path("judgements.jsonl").exists()
