"""`python:file.py:function`: what a user's function may return, and how its failures read."""

from __future__ import annotations

from pathlib import Path

import pytest

from luthier.errors import DataError, LuthierError, RecipeError
from luthier.examples.example import Example, Message
from luthier.grade import Grader, build_grader

EXAMPLE = Example(
    "id", (Message("user", "q"), Message("assistant", "a")), "tickets.jsonl", 17, fields={"w": 2}
)


def _build(tmp_path: Path, code: str, function: str = "grade") -> Grader:
    file = tmp_path / "my grader.py"
    file.write_text(code)
    return build_grader(f"python:{file}:{function}", [], answer_schema=None)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("0.25", 0.25),
        ("1", 1.0),
        ("True", 1.0),
        ("False", 0.0),
        ("numpy.float32(0.5)", 0.5),
        ("numpy.bool_(True)", 1.0),
        ("fractions.Fraction(1, 4)", 0.25),
        ("{'score': 0.5}", 0.5),
        ("{'score': True}", 1.0),
        ("answer == 'a' and reference == 'r' and example['fields']['w'] == 2", 1.0),
        ("example['line'] == 17 and example['messages'][0]['content'] == 'q'", 1.0),
    ],
)
def test_scores(tmp_path: Path, expression: str, value: float) -> None:
    code = f"import fractions, numpy\ndef grade(answer, reference, example):\n    return {expression}\n"
    score = _build(tmp_path, code).grade("a", "r", EXAMPLE)
    assert score.value == value and type(score.value) is float


def test_unscored_and_detail(tmp_path: Path) -> None:
    none = _build(tmp_path, "def grade(a, r, e): pass\n").grade("a", "r", EXAMPLE)
    assert (none.value, none.reason) == (None, "grade returned None")
    code = "def verdict(a, r, e): return {'score': None, 'reason': 'no key', 'tries': [1]}\n"
    score = _build(tmp_path, code, "verdict").grade("a", "r", EXAMPLE)
    assert (score.value, score.reason, score.detail) == (None, "no key", {"tries": [1]})


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("1.5", "1.5, which is not from 0 to 1"),
        ("-1", "-1.0"),
        ("float('nan')", "nan"),
        ("'0.5'", "str '0.5'"),
        ("[1]", "list"),
        ("1j", "complex"),
        ("{'value': 1}", "without 'score'"),
        ("{'score': 2}", "2.0"),
        ("{'score': 1, 'seen': {1, 2}}", "not JSON"),
        ("{'score': 1, 'loss': float('nan')}", "not JSON"),
    ],
)
def test_what_is_no_score(tmp_path: Path, expression: str, message: str) -> None:
    grader = _build(tmp_path, f"def grade(a, r, e): return {expression}\n")
    with pytest.raises(DataError) as caught:
        grader.grade("a", "r", EXAMPLE)
    assert message in str(caught.value) and "my grader.py" in str(caught.value)
    assert "tickets.jsonl:17" in str(caught.value)


@pytest.mark.parametrize("failure", ["return 1 / 0", "raise SystemExit(0)", "return e['nope']"])
def test_a_failure_names_file_line_and_example(tmp_path: Path, failure: str) -> None:
    grader = _build(tmp_path, f"def grade(a, r, e):\n    # why\n    {failure}\n")
    with pytest.raises(LuthierError, match=r"my grader\.py:3: grade failed on tickets\.jsonl:17"):
        grader.grade("a", "r", EXAMPLE)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def grade(a, r, e)\n    pass\n", r"my grader\.py:1: .*SyntaxError"),
        ("\nimport no_such_module_at_all\n", r"my grader\.py:2: .*No module named"),
        ("\n\nraise SystemExit(3)\n", r"my grader\.py:3: .*SystemExit"),
        ("def other(a, r, e): pass\n", "expected a function 'grade', found nothing"),
        ("grade = 3\n", "found a int"),
        ("def grade(a, r): pass\n", "three arguments"),
        ("def grade(a, r, e, *, key): pass\n", "three arguments"),
        ("async def grade(a, r, e): pass\n", "async"),
    ],
)
def test_a_broken_file_is_named_before_anything_is_graded(tmp_path: Path, code: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        _build(tmp_path, code)


def test_missing_file_and_malformed_name(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no such grader file"):
        build_grader(f"python:{tmp_path}/none.py:grade", [], answer_schema=None)
    with pytest.raises(RecipeError, match=r"python:FILE\.py:FUNCTION"):
        build_grader("python:grader.py", [], answer_schema=None)
    text = tmp_path / "grader.txt"
    text.write_text("def grade(a, r, e): return 1\n")
    with pytest.raises(RecipeError, match=r"ends in \.py"):
        build_grader(f"python:{text}:grade", [], answer_schema=None)


def test_name_metric_and_dataclasses_in_the_file(tmp_path: Path) -> None:
    code = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass Part:\n    weight: float\n"
        "def close_enough(a, r, e): return Part(0.5).weight\n"
    )
    grader = _build(tmp_path, code, "close_enough")
    assert grader.grade("a", "r", EXAMPLE).value == 0.5
    assert grader.metric == "close enough"
    assert grader.name.startswith("python:") and grader.name.endswith(":close_enough")
