"""Files as they lie around: with a wrong name, joined, wrapped, or without examples; what to do is told."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from luthier.audit.cleaning import clean, open_workpiece, write_clean
from luthier.cli.converting import convert_file
from luthier.errors import DataError
from luthier.examples import read_examples
from luthier.examples.files import DataFile
from luthier.examples.row import Problem
from luthier.examples.rows import read_rows
from luthier.pipeline import Run
from luthier.recipe import parse_recipe

ROWS = [{"prompt": f"Where is {n}?", "completion": f"At {n}, here."} for n in range(3)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
TURNS = [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "Here."}]


def written(folder: Path, name: str, data: str | bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def pairs(path: Path) -> list[dict[str, str]]:
    return [{"prompt": e.input, "completion": e.answer} for e in read_examples(path).examples]


READ = {
    "lines.txt": LINES,
    "lines.csv": LINES,
    "lines.tsv": "\ufeff" + LINES,
    "lines.jsonlines": LINES,
    "list.md": json.dumps(ROWS, indent=1),
    "commas.tsv": "prompt,completion\n" + "".join(f'{r["prompt"]},"{r["completion"]}"\n' for r in ROWS),
    "bars.csv": "prompt|completion\n" + "".join(f"{r['prompt']}|{r['completion']}\n" for r in ROWS),
    "joined.jsonl": LINES.replace("\n", ""),
    "joined.json": LINES.replace("\n", " ", 1),
    "folded.json": json.dumps({"status": "ok", "data": {"count": 3, "rows": ROWS}}),
}


@pytest.mark.parametrize("name", READ)
def test_what_stands_in_a_file_counts_and_not_its_name(tmp_path: Path, name: str) -> None:
    assert pairs(written(tmp_path, name, READ[name])) == ROWS


@pytest.mark.parametrize("name", READ)
def test_such_files_are_cleaned_as_what_they_are(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, name, READ[name].replace("At 1", "\u200bAt 1"))
    piece = open_workpiece(DataFile(path, name))
    clean([piece])
    assert [change.check for change in piece.changes if change.before != "\ufeff"] == ["encoding"]
    copy = tmp_path / f"clean-{name}"
    write_clean(piece, copy, tmp_path / "log.jsonl", masked=False)
    assert pairs(copy) == ROWS


def test_plain_texts_stay_texts(tmp_path: Path) -> None:
    texts = ["[1] A footnote.", "{x} is a set.\n{y} too.", '{"a": 1}\nis JSON.', "prompt,completion\na,b"]
    for number, text in enumerate(texts):
        (example,) = read_examples(written(tmp_path, f"{number}.txt", text)).examples
        assert example.answer == text


def test_a_column_alone_keeps_its_commas(tmp_path: Path) -> None:
    rows = [row.values for row in read_rows(written(tmp_path, "a.tsv", "text\nOne, two | three\n")) if row]  # type: ignore[union-attr]
    assert rows == [{"text": "One, two | three"}]


LINE_FAULTS = [
    ('{"prompt": "a", "completion": "b"},', "the comma after the object"),
    ('{"prompt": "a", "completion": "b",}', "the comma before the bracket"),
    ("// a note", "the comment"),
    ('{"prompt": "a\tb", "completion": "c"}', "as \\t and \\n"),
    ("# a note", "the comment"),
    ("{'prompt': 'a'}", "json.dumps"),
    ('{"prompt": "a" "b"}', "one JSON object a line"),
]


@pytest.mark.parametrize(("line", "fix"), LINE_FAULTS, ids=[line for line, _ in LINE_FAULTS])
def test_a_broken_line_says_how_to_mend_it(tmp_path: Path, line: str, fix: str) -> None:
    path = written(tmp_path, "a.jsonl", LINES + line + "\n" + LINES)
    (problem,) = (row for row in read_rows(path) if isinstance(row, Problem))
    assert problem.where == f"{path}:4"
    assert fix in (problem.fix or "")


REFUSED: list[tuple[str, str | bytes, str, str]] = [
    ("a.jsonl", "version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "LFS pointer", "git lfs pull"),
    ("a.parquet", "version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "LFS pointer", "lfs pull"),
    ("a.csv", "<!DOCTYPE html>\n<html></html>\n", "a web page", "download the file itself"),
    ("a.json", "<HTML><body>404</body></HTML>\n", "a web page", "download the file itself"),
    ("a.tar.gz", gzip.compress(b"x" * 600), "an archive", "unpack it"),
    ("a.csv", "Export of May\n\nprompt,completion\na,b\n", "has 2 cells, expected 1", "is a title"),
    ("a.jsonl", "prompt,completion\na,b\n", "not valid JSON", "such as .csv"),
    ("a.json", json.dumps([TURNS, TURNS]), "not recognised: role, content", "each row is one turn"),
    ("a.jsonl", '{"request": {"messages": []}, "response": {}}\n', "not recognised", "luthier collect logs"),
    ("a.jsonl", '{"custom_id": "1", "body": {"messages": []}}\n', "not recognised", "luthier collect logs"),
]


@pytest.mark.parametrize(("name", "data", "says", "fix"), REFUSED)
def test_what_holds_no_examples_says_what_to_do(
    tmp_path: Path, name: str, data: str | bytes, says: str, fix: str
) -> None:
    with pytest.raises(DataError, match=says) as caught:
        read_examples(written(tmp_path, name, data), strict=False)
    assert fix in (caught.value.fix or "")


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "a", "response_a": "b", "response_b": "c", "winner": "a"},
        {"conversation_a": TURNS, "conversation_b": TURNS, "winner": "model_a"},
        {"title": "a", "mapping": {"x": {"message": {}}}},
        {"premise": "a", "hypothesis": "b"},
    ],
)
def test_no_column_is_suggested_where_it_would_mean_something_else(
    tmp_path: Path, row: dict[str, Any]
) -> None:
    with pytest.raises(DataError, match="not recognised") as caught:
        read_examples(written(tmp_path, "a.jsonl", json.dumps(row)))
    assert "name the columns like one of" in (caught.value.fix or "")


def test_a_folder_of_a_hub_data_set(tmp_path: Path) -> None:
    written(tmp_path, "data/dataset_info.json", '{"features": {}}')
    written(tmp_path, "data/train-0.arrow", b"\xff\xff\xff\xff")
    with pytest.raises(DataError, match="without a file of examples") as caught:
        read_examples(tmp_path / "data")
    assert "load_from_disk" in (caught.value.fix or "")
    written(tmp_path, "data/train.jsonl", LINES)
    (tmp_path / "data/gone.jsonl").symlink_to("nowhere")
    loaded = read_examples(tmp_path / "data", strict=False)
    assert len(loaded.examples) == 3
    assert {Path(p.where).name for p in loaded.passed_over} == {"dataset_info.json", "train-0.arrow"}
    (problem,) = loaded.problems
    assert (problem.message, problem.fix) == (
        "is a link to a file that is not there",
        "mend or remove the link",
    )


def test_a_number_that_is_none_names_its_column(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{**row, "score": 1.0 if n else float("nan")} for n, row in enumerate(ROWS)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    loaded = read_examples(tmp_path / "a.parquet", strict=False)
    assert len(loaded.examples) == 2
    assert [p.message for p in loaded.problems] == ["column 'score': nan is not a JSON number"]


def test_an_object_that_is_too_long_says_what_to_write_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from luthier.examples import json_list

    monkeypatch.setattr(json_list, "LINE_LIMIT_BYTES", 100)
    monkeypatch.setattr(json_list, "PIECE_BYTES", 64)
    path = written(tmp_path, "a.json", json.dumps({"data": ROWS * 9}))
    with pytest.raises(DataError, match="longer than") as caught:
        read_examples(path)
    assert "as .jsonl" in (caught.value.fix or "")


def test_judged_conversations_are_converted_with_their_judgements(tmp_path: Path) -> None:
    rows = [{"messages": TURNS, "label": True}, {"messages": [*TURNS, *TURNS], "label": False}]
    path = written(tmp_path, "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert convert_file(path, tmp_path / "b.jsonl", to=None, force=False)[1:] == (
        "messages/label",
        "unpaired",
    )
    again = read_examples(tmp_path / "b.jsonl").examples
    assert [(e.messages, e.wanted) for e in again] == [
        (e.messages, e.wanted) for e in read_examples(path).examples
    ]


def test_secrets_in_the_tools_on_offer_are_found_and_masked(tmp_path: Path) -> None:
    from luthier.audit import audit_examples

    key = "ghp_" + "16C7e42F292c6912E7710c838347Ae178B4a"
    tool = {"type": "function", "function": {"name": "deploy", "description": f"key {key}", "parameters": {}}}
    rows: list[dict[str, Any]] = [{"messages": TURNS, "tools": [tool]}, {"messages": TURNS, "n": 1}]
    path = written(tmp_path, "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    loaded = read_examples(path)
    found = [f for f in audit_examples({"all": loaded.examples}).findings if f.check == "secret"]
    assert [(f.examples[0].line, "GitHub token" in f.message, key in f.message) for f in found] == [
        (1, True, False)
    ]
    piece = open_workpiece(DataFile(path, "a.jsonl"))
    clean([piece], mask=True)
    masked = [change for change in piece.changes if change.check == "secret"]
    assert [(c.line, c.column, c.after) for c in masked] == [
        (1, "tools[0].function.description", "key [GITHUB_TOKEN_1]")
    ]
    assert key not in piece.text()


def test_a_fault_in_a_list_is_placed_in_its_own_object(tmp_path: Path) -> None:
    good, bad = json.dumps(ROWS[0], indent=1), '{\n "prompt": "a"\n "completion": "b"\n}'
    path = written(tmp_path, "a.json", f"[\n{good},\n{good},\n{bad},\n{good}\n]\n")
    (problem,) = read_examples(path, strict=False).problems
    assert problem.where == f"{path}:10"
    assert "at column 2 of its line 3" in problem.message


def test_a_number_of_thousands_of_digits_is_a_fault_of_its_row(tmp_path: Path) -> None:
    path = written(
        tmp_path, "a.jsonl", LINES + '{"prompt": "a", "completion": "b", "id": ' + "9" * 5000 + "}\n"
    )
    (problem,) = read_examples(path, strict=False).problems
    assert (problem.where, problem.message) == (
        f"{path}:4",
        "not valid JSON: a number has thousands of digits",
    )


@pytest.mark.parametrize("beside", [{"label": "sport"}, {"category": "world"}, {"summary": "Rain."}])
def test_a_labelled_text_is_plain_text_where_texts_are_wanted(beside: dict[str, str], tmp_path: Path) -> None:
    path = written(tmp_path, "news.jsonl", json.dumps({"text": "It rained.", **beside}))
    assert read_examples(path).format != "text"
    loaded = read_examples(path, texts=True)
    (text,) = loaded.examples
    assert (loaded.format, text.request, text.answer, text.fields) == ("text", (), "It rained.", beside)
    told = {"model": "m", "data": str(path)}
    for method, asks in (("cpt", False), ("sft", True)):
        recipe = parse_recipe({**told, "method": method}, base=tmp_path)
        (first, *_) = Run(recipe, tmp_path / method).sources.examples["train"]
        assert bool(first.request) == asks
