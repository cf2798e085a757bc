"""Bad input of every sort: each fault is named with file and line, good rows go on, and each line is counted.

The bytes stand in the test. A case says what is wrong and where, and which rows are read all the same.
"""

from __future__ import annotations

import io
import json
import tracemalloc
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.errors import DataError
from luthier.examples import Example, Problem, json_list, read_examples, row, stream_examples
from luthier.examples.problems import ProblemKinds, tell_problems
from luthier.pipeline.sources import Sources
from luthier.recipe import DataFiles

A, B = b'{"prompt": "a", "completion": "b"}', b'{"prompt": "c", "completion": "d"}'
MIB_50, LONG = b"x" * (50 * 2**20), b"x" * (17 * 2**20)
NESTED = b"[" * 90_000
ROW_OF_3 = b'{"prompt": "a", "completion": "b"} {"prompt": "c", "completion": "d"}'


class Case(NamedTuple):
    """A file, the places and words of its problems in order, and the lines of the rows that are read."""

    name: str
    data: bytes
    problems: list[tuple[int, str]]
    lines: list[int]


CASES = [
    # --- JSON Lines
    Case(
        "broken_utf8.jsonl", A + b'\n{"prompt": "\xc3", "completion": "b"}\n' + B, [(2, "byte 13 of")], [1, 3]
    ),
    Case("latin1.jsonl", A + b'\n{"prompt": "caf\xe9", "completion": "b"}\n', [(2, "is not UTF-8")], [1]),
    Case("utf16_line.jsonl", A + b"\n" + '{"é": 1}'.encode("utf-16-le") + b"\n", [(2, "byte 5 of")], [1]),
    Case("bom.jsonl", b"\xef\xbb\xbf" + A + b"\n" + B, [], [1, 2]),
    Case("joined_boms.jsonl", b"\xef\xbb\xbf" + A + b"\n\xef\xbb\xbf" + B + b"\n", [], [1, 2]),
    Case(
        "nul.jsonl", A + b'\n{"prompt": "\0", "completion": "b"}\n', [(2, "Invalid control character")], [1]
    ),
    Case("nul_line.jsonl", A + b"\n\0\0\0\0\n" + B, [(2, "not valid JSON")], [1, 3]),
    Case("half_last.jsonl", A + b"\n" + B[:20], [(2, "Unterminated string")], [1]),
    Case("no_line_end.jsonl", A + b"\n" + B, [], [1, 2]),
    Case(
        "huge_line.jsonl", A + b'\n{"prompt": "' + MIB_50 + b'"}\n' + B, [(2, "longer than 16 MiB")], [1, 3]
    ),
    Case("huge_last.jsonl", A + b"\n" + LONG, [(2, "longer than 16 MiB")], [1]),
    Case("deep.jsonl", A + b'\n{"prompt": ' + NESTED + b"\n" + B, [(2, "nested too deeply")], [1, 3]),
    Case(
        "deep_closed.jsonl",
        A + b'\n{"x": ' + b"[" * 200 + b"]" * 200 + b"}\n",
        [(2, "nested too deeply")],
        [1],
    ),
    Case(
        "twice.jsonl",
        A + b'\n{"prompt": "a", "prompt": "z", "completion": "b"}\n',
        [(2, "appears twice")],
        [1],
    ),
    Case(
        "case.jsonl",
        A + b'\n{"prompt": "a", "Prompt": "z", "completion": "b"}\n',
        [(2, "appears twice")],
        [1],
    ),
    Case("nan.jsonl", A + b'\n{"prompt": NaN, "completion": "b"}\n' + B, [(2, "NaN is not")], [1, 3]),
    Case("infinity.jsonl", A + b'\n{"prompt": "a", "completion": Infinity}\n', [(2, "Infinity is not")], [1]),
    Case(
        "overflow.jsonl", A + b'\n{"prompt": -1e400, "completion": "b"}\n', [(2, "-1e400 is too large")], [1]
    ),
    Case("surrogate.jsonl", A + b'\n{"prompt": "\\ud83d", "completion": "b"}\n', [(2, "surrogate")], [1]),
    Case("two_a_line.jsonl", A + b"\n" + ROW_OF_3 + b"\n", [(2, "text after the end")], [1]),
    Case("cr_inside.jsonl", A + b"\n" + A + b"\r" + B + b"\n", [(2, "text after the end")], [1]),
    Case("cr_only.jsonl", A + b"\r" + B + b"\r", [], [1, 2]),
    Case("mixed_ends.jsonl", A + b"\r\n" + B + b"\n\n" + A, [], [1, 2, 4]),
    Case(
        "schemas.jsonl",
        A + b'\n{"text": "a", "label": "b"}\n' + B,
        [(2, "no column prompt, completion")],
        [1, 3],
    ),
    Case(
        "kinds.jsonl",
        A + b'\n7\n"x"\nnull\ntrue\n[{}]\n' + B,
        [(n, "expected a") for n in range(2, 7)],
        [1, 7],
    ),
    Case("null.jsonl", A + b'\n{"prompt": null, "completion": "b"}\n', [(2, "prompt is null")], [1]),
    Case("list_first.jsonl", b'["prompt", "completion"]\n' + A + b"\n", [(1, "is a list")], [2]),
    Case("python.jsonl", A + b"\n{'prompt': 'a'}\n", [(2, "Expecting property name")], [1]),
    Case(
        "role_list.jsonl",
        A + b'\n{"prompt": [{"role": [], "content": 1}], "completion": "b"}',
        [(2, "")],
        [1],
    ),
    # --- a JSON list
    Case("cut.json", b"[" + A + b",\n" + B[:20], [(2, "Unterminated string")], [1]),
    Case("cut_after_comma.json", b"[" + A + b",\n", [(2, "the list is cut off")], [1]),
    Case("cut_bracket.json", b"[" + A + b",\n" + B + b"\n", [(3, "the list is cut off")], [1, 2]),
    Case(
        "broken_middle.json",
        b"[\n" + A + b",\n" + B[:-3] + b",\n" + B + b"\n]",
        [(3, "not valid JSON")],
        [2, 4],
    ),
    Case("nan.json", b"[" + A + b', {"prompt": NaN}, ' + B + b"]", [(1, "NaN is not")], [1, 1]),
    Case("comma_last.json", b"[" + A + b",\n]", [(2, "expected an object before ']'")], [1]),
    Case("comma_missing.json", b"[" + A + b"\n" + B + b"]", [(2, "expected ',' or ']' before")], [1, 2]),
    Case("lists.json", b"[" + A + b"]\n[" + B + b"]", [(2, "text after the end of the list")], [1, 2]),
    Case("utf8.json", b"[" + A + b',\n{"prompt": "\xff"},\n' + B + b"]", [(2, "broken UTF-8")], [1, 3]),
    Case(
        "deep.json", b"[" + A + b',\n{"a": ' + NESTED + b"},\n" + B + b"]", [(2, "nested too deeply")], [1, 3]
    ),
    Case("list.jsonl", b"[" + A + b",\n" + B + b"]\n", [], [1, 2]),
    Case("spread.jsonl", b'{\n "prompt": "a",\n "completion": "b"\n}\n' + B + b"\n", [], [1, 5]),
    # --- tables
    Case(
        "open_quote.csv",
        b'prompt,completion\na,b\n"c,d\ne,f\ng,h\n',
        [(3, "a quote that opens here")],
        [2, 4, 5],
    ),
    Case(
        "open_then_quoted.csv",
        b'prompt,completion\n"a,b\nc,"d"\ne,f\n',
        [(2, "a quote that opens here")],
        [3, 4],
    ),
    Case("torn.csv", b'prompt,completion\n"a\nb"x,c\nd,e\n', [(2, "a quote"), (3, "the rest of a row")], [4]),
    Case(
        "ragged.csv", b"prompt,completion\na,b\nc\nd,e,f\ng,h,,\n", [(3, "has 1 cells"), (4, "has 3")], [2, 5]
    ),
    Case("header_again.csv", b"prompt,completion\na,b\nprompt,completion\nc,d\n", [(3, "repeats")], [2, 4]),
    Case("unnamed.csv", b",prompt,completion\n0,a,b\n", [], [2]),
    Case("excel_sep.csv", b"sep=;\r\nprompt;completion\r\na;b\r\n", [], [3]),
    Case("nul.csv", b"prompt,completion\na\0,b\nc,d\n", [(2, "holds a NUL byte")], [3]),
    Case("broken_utf8.csv", b"prompt,completion\na,b\n\xe9,d\n", [(3, "not UTF-8")], [2]),
    Case("cr_only.csv", b"prompt,completion\ra,b\rc,d\r", [], [2, 3]),
    Case("cr_inside.csv", b"prompt,completion\na,b\rc,d\ne,f\n", [(2, "carriage return")], [3]),
    Case(
        "huge_cell.csv",
        b"prompt,completion\na,b\n" + LONG + b",c\nd,e\n",
        [(3, "longer than 16 MiB")],
        [2, 4],
    ),
    Case("blank_rows.csv", b"\n\nprompt,completion\n\n , \na,b\n", [], [6]),
    # --- plain text
    Case("nul.txt", b"one\n\ntwo\0\n\nthree\n", [(3, "holds a NUL byte")], [1, 5]),
    Case("broken_utf8.txt", b"one\n\nca\xe9f\nmore\n\nthree\n", [(3, "byte 3 of the line")], [1, 6]),
    Case("huge_line.md", b"one\n\n" + LONG + b"\n\nthree\n", [(3, "longer than 16 MiB")], [1, 5]),
    Case("cr_only.txt", b"one\r\rtwo\r", [], [1, 3]),
]


def written(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def test_there_are_enough_cases() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 30


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_each_fault_is_named_and_good_rows_go_on(tmp_path: Path, case: Case) -> None:
    path = written(tmp_path, case.name, case.data)
    loaded = read_examples(path, strict=False)
    found = [(problem.where, problem.message) for problem in loaded.problems]
    assert [where for where, _ in found] == [f"{path}:{line}" for line, _ in case.problems], found
    for (_, message), (_, expected) in zip(found, case.problems, strict=True):
        assert expected.lower() in message.lower()
    assert all(problem.fix for problem in loaded.problems)
    assert [example.line for example in loaded.examples] == case.lines
    if case.problems:
        with pytest.raises(DataError) as caught:
            read_examples(path)
        assert caught.value.where == f"{path}:{case.problems[0][0]}"
        assert caught.value.fix


EMPTY: list[tuple[str, bytes, str]] = [
    ("empty.jsonl", b"", "is empty"),
    ("empty.csv", b"", "is empty"),
    ("empty.parquet", b"", "is empty"),
    ("blank.jsonl", b"\n\n  \r\n", "holds no examples"),
    ("blank.json", b" \n\t\n", "holds no examples"),
    ("blank.csv", b"\n\n\n", "has no header"),
    ("blank.txt", b"\n\n\n", "holds no examples"),
    ("bom.csv", b"\xef\xbb\xbf", "has no header"),
    ("duplicate_header.csv", b"prompt,completion,prompt\na,b,c\n", "column 'prompt' appears twice"),
    ("utf16.jsonl", (A.decode() + "\n").encode("utf-16"), "UTF-16"),
    ("utf16_no_bom.jsonl", A.decode().encode("utf-16-le"), "UTF-16"),
    ("utf16_be.csv", "prompt,completion\n".encode("utf-16-be"), "UTF-16"),
    ("sheet.xlsx", b"PK\x03\x04rest", "Excel"),
    ("sheet.csv", b"\xd0\xcf\x11\xe0rest", "Excel"),
    ("paper.txt", b"%PDF-1.7", "a PDF"),
    ("data.arrow", b"ARROW1\0\0", "Arrow"),
    ("named.parquet", b"prompt,completion", "is no Parquet file"),
    ("wrapped.json", b'{\n"train": [\n' + A + b'\n],\n"test": [' + A + b"]}", "several lists of objects"),
    ("wrapped_nothing.json", b'{"data": []}', "the list under 'data' is empty"),
    ("zeros.jsonl", b"\0" * 100, "not valid JSON"),
]


@pytest.mark.parametrize(("name", "data", "expected"), EMPTY, ids=[case[0] for case in EMPTY])
def test_a_file_of_nothing_says_so(tmp_path: Path, name: str, data: bytes, expected: str) -> None:
    path = written(tmp_path, name, data)
    with pytest.raises(DataError, match=expected) as caught:
        read_examples(path, strict=False)
    assert str(path) in (caught.value.where or "")
    assert caught.value.fix


def test_lists_that_stand_beside_each_other_are_named(tmp_path: Path) -> None:
    path = written(tmp_path, "a.json", b'{"train": [' + A + b'], "test": [' + A + b"]}")
    with pytest.raises(DataError, match="'train', 'test'") as caught:
        read_examples(path)
    assert "file of its own" in (caught.value.fix or "")


def test_a_pretty_printed_example_alone_is_an_example(tmp_path: Path) -> None:
    path = written(tmp_path, "a.json", b'{\n  "question": "a", "options": ["x", "y"],\n  "answer": "b"\n}')
    assert [e.answer for e in read_examples(path).examples] == ["b"]


def peak_of(path: Path) -> tuple[list[Example | Problem], int]:
    """The first and last of what is read, and the most memory in bytes that reading it took."""
    tracemalloc.start()
    ends: list[Example | Problem] = []
    for item in stream_examples(path):
        ends[2:] = [item]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return ends, peak


def test_memory_does_not_grow_with_a_long_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row, "LINE_LIMIT_BYTES", 2**16)
    path = written(tmp_path, "a.jsonl", A + b"\n" + LONG[: 2**22] + b"\n" + B)
    items, peak = peak_of(path)
    assert [type(item) for item in items] == [Example, Problem, Example]
    assert peak < 2**21


def test_a_large_list_is_read_piece_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_list, "PIECE_BYTES", 2**14)
    rows = [{"prompt": f"{i} " + "é" * 2000, "completion": "b"} for i in range(1000)]
    path = written(tmp_path, "a.json", json.dumps(rows, ensure_ascii=False, indent=1).encode())
    items, peak = peak_of(path)
    assert isinstance(items[-1], Example) and items[-1].line == 3998
    assert path.stat().st_size > 4 * 10**6 > 2 * peak


# --- what is left out is counted --------------------------------------------------------------------


def test_problems_are_told_by_kind() -> None:
    problems = [Problem(f"a:{n}", f"key 'x{n}' appears twice", "once") for n in range(150)]
    kinds = ProblemKinds([*problems, Problem("a:7", "is a list", "write an object")])
    told = tell_problems(kinds)
    assert told["left_out"] == 151
    assert len(told["unreadable"]) == 100
    assert told["unreadable"][0] == {"where": "a:0", "message": "key 'x0' appears twice", "fix": "once"}
    assert [(kind["count"], kind["places"]) for kind in told["unreadable_kinds"]] == [
        (150, ["a:0", "a:1", "a:2"]),
        (1, ["a:7"]),
    ]


def test_a_recipe_stops_at_bad_rows_unless_it_says_skip(tmp_path: Path) -> None:
    path = written(tmp_path, "a.jsonl", A + b"\n{\n[]\n" + B)
    stopping = Sources(DataFiles(train=str(path)))
    assert len(stopping.examples["train"]) == 2
    with pytest.raises(DataError, match="not valid JSON") as caught:
        stopping.refuse_problems()
    assert caught.value.where == f"{path}:2"
    assert "all 2 such rows" in (caught.value.fix or "")
    assert "`bad_rows: skip`" in (caught.value.fix or "")
    skipping = Sources(DataFiles(train=str(path), bad_rows="skip"))
    skipping.refuse_problems()
    assert skipping.provenance()[0]["left_out"] == 2
    assert skipping.options == {"bad_rows": "skip"}
    assert stopping.options == {}


# --- fuzzing ---------------------------------------------------------------------------------------

KINDS = ["f.jsonl", "f.json", "f.csv", "f.tsv", "f.txt", "f.md", "f.parquet"]
RANDOM = (
    st.binary(max_size=300)
    | st.text(max_size=200).map(str.encode)
    | st.text('{}[]",:\n ab1\\', max_size=80).map(str.encode)
)


@settings(max_examples=120, deadline=None)
@given(data=RANDOM, name=st.sampled_from(KINDS))
def test_no_bytes_crash(tmp_path_factory: pytest.TempPathFactory, data: bytes, name: str) -> None:
    path = written(tmp_path_factory.mktemp("fuzz"), name, data)
    try:
        loaded = read_examples(path, strict=False)
    except DataError as error:
        assert error.where
        assert error.fix
    else:
        assert loaded.examples


@settings(max_examples=100, deadline=None)
@given(data=RANDOM)
def test_every_line_is_read_or_named(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = written(tmp_path_factory.mktemp("fuzz"), "f.jsonl", A + b"\n" + data)
    told = sorted(
        item.line if isinstance(item, Example) else int(item.where.rpartition(":")[2])
        for item in stream_examples(path)
    )
    lines = path.read_bytes().split(b"\n")
    assert told == [number for number, line in enumerate(lines, start=1) if line.strip()]


ROWS = [{"prompt": f"question {i}, é", "completion": f"answer {i}"} for i in range(6)]


def as_csv(rows: list[dict[str, str]]) -> list[bytes]:
    """Records of a table; every other one has a quoted cell over two lines."""
    records = [
        f'"{row["prompt"]}\nmore",{row["completion"]}\n'
        if number % 2
        else f"question {number},{row['completion']}\n"
        for number, row in enumerate(rows)
    ]
    return [b"prompt,completion\n", *map(str.encode, records)]


def as_list(rows: list[dict[str, str]], indent: int | None) -> list[bytes]:
    records = [json.dumps(row, indent=indent, ensure_ascii=False) for row in rows]
    if indent:
        records = [record.replace("\n", "\n  ") for record in records]
    return [b"[\n", *(f"  {record},\n".encode() for record in records[:-1]), f"  {records[-1]}\n]\n".encode()]


GOOD_FILES: dict[str, tuple[str, list[bytes]]] = {
    "lines": ("f.jsonl", [json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in ROWS]),
    "list": ("f.json", as_list(ROWS, None)),
    "printed": ("f.json", as_list(ROWS, 2)),
    "table": ("f.csv", as_csv(ROWS)),
    "texts": ("f.txt", [f"text {row['prompt']}\n\n".encode() for row in ROWS]),
}


@st.composite
def mutations(draw: st.DrawFn, records: list[bytes]) -> tuple[int, bytes]:
    """Which record is changed, and to what: one byte more, less or other, but for its last ones."""
    first = 1 if records[0] in (b"[\n", b"prompt,completion\n") else 0
    number = draw(st.integers(first, len(records) - 1))
    record = records[number]
    end = len(record.rstrip(b"\n],")) if len(record) > 3 else 1
    at = draw(st.integers(0, end - 1))
    byte = draw(st.sampled_from([bytes([b]) for b in (*b'"{}[],:\\\0\xff\xc3 x1', 0x80)]))
    how = draw(st.sampled_from(["insert", "delete", "replace", "cut"]))
    changed = {
        "insert": record[:at] + byte + record[at:],
        "delete": record[:at] + record[at + 1 :],
        "replace": record[:at] + byte + record[at + 1 :],
        "cut": record[:at] + record[end:],
    }[how]
    return number, changed


@pytest.mark.parametrize("kind", GOOD_FILES)
def test_one_damaged_row_costs_no_other(tmp_path_factory: pytest.TempPathFactory, kind: str) -> None:
    name, records = GOOD_FILES[kind]
    folder = tmp_path_factory.mktemp(kind)
    good = read_examples(written(folder, name, b"".join(records)))
    assert len(good.examples) == len(ROWS)
    first = len(records) - len(ROWS)

    @settings(max_examples=60, deadline=None)
    @given(mutation=mutations(records))
    def check(mutation: tuple[int, bytes]) -> None:
        number, changed = mutation
        path = written(folder, name, b"".join([*records[:number], changed, *records[number + 1 :]]))
        loaded = read_examples(path, strict=False)
        kept = {(e.input, e.answer) for e in loaded.examples}
        others = [e for place, e in enumerate(good.examples) if place != number - first]
        assert {(e.input, e.answer) for e in others} <= kept
        assert len(loaded.examples) + len(loaded.problems) >= len(ROWS) - (not changed.strip())

    check()


@settings(max_examples=40, deadline=None)
@given(at=st.integers(0), byte=st.integers(0, 255), cut=st.booleans())
def test_a_damaged_parquet_file_never_crashes(
    tmp_path_factory: pytest.TempPathFactory, at: int, byte: int, cut: bool
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    plain = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS * 20), plain, write_page_checksum=True)
    data = bytearray(plain.getvalue())
    at %= len(data)
    data[at] = byte
    path = written(tmp_path_factory.mktemp("fuzz"), "f.parquet", bytes(data[:at] if cut else data))
    try:
        loaded = read_examples(path, strict=False)
    except DataError as error:
        assert error.fix
    else:
        assert len(loaded.examples) == 120 or loaded.problems


@pytest.mark.parametrize("broken", ["  ]\n", "  {\n]"])
def test_a_stray_bracket_does_not_end_the_list(tmp_path: Path, broken: str) -> None:
    rows = [json.dumps({"prompt": f"q{i}", "completion": f"a{i}"}, indent=2) for i in range(4)]
    printed = "[\n" + ",\n".join("  " + row.replace("\n", "\n  ") for row in rows) + "\n]\n"
    second = printed.index('  {\n    "prompt": "q1"')
    path = written(tmp_path, "f.json", (printed[:second] + broken + printed[second + 4 :]).encode())
    loaded = read_examples(path, strict=False)
    assert [example.input for example in loaded.examples] == ["q0", "q2", "q3"]
    assert loaded.problems
