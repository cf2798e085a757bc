"""Files of every kind are read alike, and what cannot be read is named by file and line."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.errors import DataError
from luthier.examples import read_examples
from luthier.examples.example import Example
from luthier.examples.row import LINE_LIMIT_BYTES

ROWS = [{"text": "où?", "label": "là"}, {"text": "two\nlines, and a comma", "label": 'a "quote"'}]
PAIRS = [(row["text"], row["label"]) for row in ROWS]
GOOD = b'{"text": "a", "label": "b"}\n'


def as_csv(rows: list[dict[str, str]], delimiter: str) -> str:
    def quote(cell: str) -> str:
        return '"' + cell.replace('"', '""') + '"'

    lines = [delimiter.join(rows[0])]
    lines += [delimiter.join(quote(cell) for cell in row.values()) for row in rows]
    return "\r\n".join(lines) + "\r\n"


FILES: list[tuple[str, str]] = [
    ("a.jsonl", "\n".join(map(json.dumps, ROWS))),
    ("crlf.jsonl", "\r\n".join(map(json.dumps, ROWS)) + "\r\n\r\n"),
    ("a.ndjson", "\n\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS)),
    ("a.json", json.dumps(ROWS, indent=2)),
    ("b.json", json.dumps(ROWS) + "\n"),
    ("lines.json", "\n".join(map(json.dumps, ROWS))),
    ("a.csv", as_csv(ROWS, ",")),
    ("excel.csv", as_csv(ROWS, ";")),
    ("a.tsv", as_csv(ROWS, "\t")),
]


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"], ids=["plain", "bom"])
@pytest.mark.parametrize("zipped", [False, True], ids=["raw", "gz"])
@pytest.mark.parametrize(("name", "text"), FILES, ids=[name for name, _ in FILES])
def test_every_kind_of_file_gives_the_same_examples(
    tmp_path: Path, name: str, text: str, zipped: bool, bom: bytes
) -> None:
    data = bom + text.encode()
    path = tmp_path / (name + ".gz" if zipped else name)
    path.write_bytes(gzip.compress(data) if zipped else data)
    loaded = read_examples(path)
    assert loaded.format == "text/label"
    assert not loaded.problems
    assert [(e.input, e.answer) for e in loaded.examples] == PAIRS


def test_lines_are_those_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"\n" + GOOD + b"\n\n" + GOOD)
    assert [e.line for e in read_examples(tmp_path / "a.jsonl").examples] == [2, 5]
    (tmp_path / "a.csv").write_text('text,label\n"one\ntwo",x\nthree,y\n')
    assert [e.line for e in read_examples(tmp_path / "a.csv").examples] == [2, 4]
    (tmp_path / "a.json").write_text(
        '[\n  {"text": "a",\n   "label": "b"},\n\n  {"text": "c", "label": "d"}\n]'
    )
    assert [e.line for e in read_examples(tmp_path / "a.json").examples] == [2, 5]


def test_the_file_is_named_as_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jsonl").write_bytes(GOOD)
    monkeypatch.chdir(tmp_path)
    assert read_examples("a.jsonl").examples[0].where == "a.jsonl:1"
    assert read_examples("./a.jsonl").examples[0].file == "./a.jsonl"


def test_ids_depend_on_the_content_and_copies_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(GOOD + b'{"text": "z", "label": "b"}\n' + GOOD)
    (tmp_path / "b.jsonl").write_bytes(b'{"prompt": "a", "completion": "b"}\n')
    ids = [e.id for e in read_examples(tmp_path / "a.jsonl").examples]
    assert ids[2] == f"{ids[0]}-2"
    assert len(set(ids)) == 3
    assert [e.id for e in read_examples(tmp_path / "b.jsonl").examples] == ids[:1]


def test_an_example_survives_the_run_folder(tmp_path: Path) -> None:
    row = {"text": "a", "label": "b", "system": "s", "group": "g", "source": {"page": 1}}
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    (example,) = read_examples(tmp_path / "a.jsonl").examples
    assert Example.from_row(json.loads(json.dumps(example.as_row()))) == example


DEEP = b"[" * 200_000
BAD_LINES: list[tuple[str, bytes, str]] = [
    ("half a line", b'{"text": "a", "lab', "not valid JSON: Unterminated string"),
    ("broken utf-8", b'{"text": "\xff", "label": "b"}', "byte 11 of the line is not UTF-8"),
    ("latin-1", '{"text": "é", "label": "b"}'.encode("latin-1"), "is not UTF-8"),
    ("list", b'["a", "b"]', "is a list, expected a JSON object"),
    ("text", b'"a"', "is text, expected"),
    ("number", b"7", "is a number, expected"),
    ("null", b"null", "is null, expected"),
    ("two objects", b'{"text": "a", "label": "b"} {"text": "a"}', "text after the end"),
    ("repeated key", b'{"text": "a", "text": "c", "label": "b"}', "key 'text' appears twice"),
    ("NaN", b'{"text": "a", "label": NaN}', "NaN is not a JSON number"),
    ("infinity", b'{"text": "a", "label": -Infinity}', "-Infinity is not a JSON number"),
    ("huge number", b'{"text": "a", "label": 1e999}', "the number 1e999 is too large"),
    ("digits", b'{"text": "a", "label": ' + b"9" * 5000 + b"}", "not valid JSON"),
    ("surrogate", rb'{"text": "\ud800", "label": "b"}', "surrogate"),
    ("NUL", b'{"text": "a\x00", "label": "b"}', "Invalid control character"),
    ("deep", b'{"text": ' + DEEP, "nested too deeply"),
    ("single quotes", b"{'text': 'a'}", "not valid JSON"),
    ("missing column", b'{"text": "a"}', "no column label"),
    ("no answer", b'{"text": "a", "label": " "}', "the answer is empty"),
    ("too long", b'{"text": "' + b"a" * LINE_LIMIT_BYTES + b'", "label": "b"}', "longer than 16 MiB"),
]


@pytest.mark.parametrize(("name", "line", "expected"), BAD_LINES, ids=[name for name, _, _ in BAD_LINES])
def test_a_bad_line_is_named_and_the_others_are_read(
    tmp_path: Path, name: str, line: bytes, expected: str
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(GOOD * 2 + line + b"\n" + GOOD)
    with pytest.raises(DataError) as caught:
        read_examples(path)
    assert caught.value.where == f"{path}:3"
    assert expected in caught.value.message
    assert caught.value.fix
    loaded = read_examples(path, strict=False)
    assert [e.line for e in loaded.examples] == [1, 2, 4]
    assert [(p.where, expected in p.message) for p in loaded.problems] == [(f"{path}:3", True)]


BAD_TABLES: list[tuple[str, bytes, int, list[int]]] = [
    ("too few cells", b"text,label\na,b\nc\nd,e\n", 3, [2, 4]),
    ("too many cells", b"text,label\na,b\nc,d,e\nf,g\n", 3, [2, 4]),
    ("broken utf-8", b"text,label\na,b\n\xff,d\ne,f\n", 3, [2, 4]),
    ("NUL", b"text,label\na,b\nc\x00,d\ne,f\n", 3, [2, 4]),
    ("quote inside", b'text,label\na,b\n"c"d,e\nf,g\n', 3, [2, 4]),
    ("quote left open", b'text,label\na,b\nf,g\n"c,d\ne,f\n', 4, [2, 3, 5]),
]


@pytest.mark.parametrize(("name", "data", "line", "good"), BAD_TABLES, ids=[case[0] for case in BAD_TABLES])
def test_a_bad_row_of_a_table(tmp_path: Path, name: str, data: bytes, line: int, good: list[int]) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(data)
    with pytest.raises(DataError) as caught:
        read_examples(path)
    assert caught.value.where == f"{path}:{line}"
    loaded = read_examples(path, strict=False)
    assert [e.line for e in loaded.examples] == good
    assert [p.where for p in loaded.problems] == [f"{path}:{line}"]


def folder(path: Path) -> None:
    path.mkdir()
    (path / "notes.docx").write_text("x")


BAD_FILES: list[tuple[str, bytes | Callable[[Path], None] | None, str]] = [
    ("missing.jsonl", None, "no such file"),
    ("folder.jsonl", folder, "is a folder without a file of examples"),
    ("empty.jsonl", b"", "is empty"),
    ("blank.jsonl", b"\n \n", "holds no examples"),
    ("bom.jsonl", b"\xef\xbb\xbf", "holds no examples"),
    ("empty.json", b"[]", "holds no examples"),
    ("header.csv", b"text,label\n", "holds no examples"),
    ("nothing.csv", b"\n\n", "has no header"),
    ("twice.csv", b"text,text\na,b\n", "column 'text' appears twice"),
    ("header_quote.csv", b'"text,label\na,b\n', "header cannot be read"),
    ("object.json", b'{"data":\n []}', "the list under 'data' is empty"),
    ("text.json", b'"hello"', "is text, expected a JSON object"),
    ("cut.json", b'[{"text": "a", "label": "b"}, {"te', "the rest of the list was not read"),
    ("joined.json", b'[{"text": "a", "label": "b"}][{}]', "text after the end of the list"),
    ("comma.json", b'[{"text": "a", "label": "b"} {}]', "expected ',' or ']'"),
    ("latin.json", b'[{"text": "\xe9", "label": "b"}]', "broken UTF-8"),
    ("utf16.csv", "text,label\n".encode("utf-16"), "UTF-16"),
    ("table.parquet", b"PAR1....", "the Parquet file is broken or cut off"),
    ("sheet.csv", b"PK\x03\x04....", "Excel"),
    ("a.jsonl.zst", b"\x28\xb5\x2f\xfd....", "the zstd stream is broken"),
    ("notes.docx", b"hello", "unknown kind of file '.docx'"),
    ("noending", b"hello", "unknown kind of file"),
    ("plain.jsonl.gz", GOOD, "not compressed"),
    ("cut.jsonl.gz", gzip.compress(GOOD * 999)[:-9], "gzip stream is broken or cut off"),
    ("columns.jsonl", b'{"body": "a"}\n', "columns not recognised: body"),
    ("all_bad.jsonl", b"{\n{\n", "not valid JSON"),
]


@pytest.mark.parametrize(("name", "content", "expected"), BAD_FILES, ids=[case[0] for case in BAD_FILES])
def test_a_file_that_cannot_be_read_says_why(
    tmp_path: Path, name: str, content: bytes | Callable[[Path], None] | None, expected: str
) -> None:
    path = tmp_path / name
    if callable(content):
        content(path)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_examples(path)
    assert expected in caught.value.message
    assert str(path) in (caught.value.where or "")
    assert caught.value.fix


def test_a_cut_gzip_keeps_what_came_before(tmp_path: Path) -> None:
    rows = b"".join(b'{"text": "%d", "label": "b"}\n' % i for i in range(5000))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(rows)[:-2000])
    loaded = read_examples(tmp_path / "a.jsonl.gz", strict=False)
    assert len(loaded.examples) > 1000
    assert "cut off" in loaded.problems[-1].message


@settings(max_examples=150, deadline=None)
@given(
    data=st.binary(max_size=200) | st.text(max_size=200).map(str.encode),
    name=st.sampled_from(["f.jsonl", "f.json", "f.csv", "f.tsv"]),
)
def test_no_bytes_crash_the_reader(tmp_path_factory: pytest.TempPathFactory, data: bytes, name: str) -> None:
    path = tmp_path_factory.mktemp("fuzz") / name
    path.write_bytes(b'{"text": "a", "label": "b"}\n' + data if name == "f.jsonl" else data)
    try:
        loaded = read_examples(path, strict=False)
    except DataError as error:
        assert error.where
    else:
        assert loaded.examples
