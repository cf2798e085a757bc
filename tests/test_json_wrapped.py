"""A JSON file that is one object: rows inside it are found, and a row that looks like one is left alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from luthier.examples import read_examples
from luthier.examples.row import Problem, Row
from luthier.examples.rows import read_rows

ROWS = [{"prompt": f"Where is {n}?", "completion": f"Here, at {n}."} for n in range(4)]


def rows_of(tmp_path: Path, value: Any, **how: Any) -> list[Row | Problem]:
    path = tmp_path / "a.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value, **how), encoding="utf-8")
    return list(read_rows(path))


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize(
    "value",
    [
        {"data": ROWS},
        {"version": "1.0", "tags": [], "rows": ROWS, "about": {"data": "x"}},
        {"prompt": [r["prompt"] for r in ROWS], "completion": [r["completion"] for r in ROWS]},
        {key: {str(n): row[key] for n, row in enumerate(ROWS)} for key in ROWS[0]},
        {f"id{n}": row for n, row in enumerate(ROWS)},
    ],
    ids=["list", "list beside others", "columns", "columns by number", "rows by name"],
)
def test_rows_inside_an_object_are_read(tmp_path: Path, value: Any, indent: int | None) -> None:
    read = rows_of(tmp_path, value, indent=indent)
    assert [row.values for row in read if isinstance(row, Row)] == ROWS
    assert len(read_examples(tmp_path / "a.json").examples) == len(ROWS)


def test_listed_rows_have_the_lines_on_which_they_stand(tmp_path: Path) -> None:
    listed = '[\n  {"prompt": "a",\n   "completion": "b"},\n\n  {"prompt": "c"}]'
    text = '{"note": "\\"data\\": [1]",\n "data": ' + listed + "}"
    assert [(row.line, row.values) for row in rows_of(tmp_path, text) if isinstance(row, Row)] == [
        (3, {"prompt": "a", "completion": "b"}),
        (6, {"prompt": "c"}),
    ]


@pytest.mark.parametrize(
    "value",
    [
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
        {"prompt": [{"role": "user", "content": "a"}], "completion": [{"role": "assistant", "content": "b"}]},
        {"Conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
        {"question": "a", "answers": {"text": ["b"], "answer_start": [0]}},
        {"prompt": "a", "completions": ["b", "c"], "scores": [1, 2]},
        {"prompt": ["a", "b"], "completion": ["c"]},
    ],
)
@pytest.mark.parametrize("indent", [None, 1])
def test_a_row_that_is_alone_stays_a_row(tmp_path: Path, value: Any, indent: int | None) -> None:
    assert [row.values for row in rows_of(tmp_path, value, indent=indent) if isinstance(row, Row)] == [value]


def test_two_objects_are_two_rows_whatever_they_hold(tmp_path: Path) -> None:
    lines = "\n".join(json.dumps({"data": [row]}) for row in ROWS)
    assert [row.values for row in rows_of(tmp_path, lines) if isinstance(row, Row)] == [
        {"data": [row]} for row in ROWS
    ]


@pytest.mark.parametrize("indent", [None, 1])
def test_a_line_is_a_row_whatever_it_holds(tmp_path: Path, indent: int | None) -> None:
    path = tmp_path / "a.jsonl"
    value = {"id": 1, "chunks": ROWS}
    path.write_text(json.dumps(value, indent=indent))
    assert [row.values for row in read_rows(path) if isinstance(row, Row)] == [value]


def test_a_table_without_its_header_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("".join(f"How do I mend pump {n}?,Take it apart and clean it.\n" for n in range(9)))
    with pytest.raises(Exception, match="columns not recognised") as caught:
        read_examples(path)
    assert "line of names above it" in str(getattr(caught.value, "fix", ""))
