"""Where examples are: compressed files, Parquet, folders, the hub; and columns that have other names."""

from __future__ import annotations

import bz2
import datetime
import gzip
import io
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from backports import zstd
from huggingface_hub.errors import RepositoryNotFoundError
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.errors import DataError
from luthier.examples import Example, Problem, compression, read_examples, stream_examples
from luthier.examples.columns import read_columns
from luthier.examples.hub import fetch_hub, hub_identity
from luthier.pipeline.sources import Sources
from luthier.recipe import DataFiles, parse_recipe

ROWS = [{"prompt": f"question {i}", "completion": f"answer {i}"} for i in range(30)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
PACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: zstd.compress(data, options={zstd.CompressionParameter.checksum_flag: 1}),
}


def parquet(rows: list[dict[str, Any]], **options: Any) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file, **options)
    return file.getvalue()


def said(path: Path | str, **options: Any) -> list[tuple[str, str]]:
    return [(e.input, e.answer) for e in read_examples(path, **options).examples]


def written(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


EXPECTED = [(row["prompt"], row["completion"]) for row in ROWS]
CSV = "prompt,completion\n" + "".join(f"{row['prompt']},{row['completion']}\n" for row in ROWS)
PLAIN = {
    "a.jsonl": LINES,
    "a.json": json.dumps(ROWS).encode(),
    "a.csv": CSV.encode(),
    "a.parquet": parquet(ROWS),
}


@pytest.mark.parametrize("ending", PACK)
@pytest.mark.parametrize("name", PLAIN)
def test_every_kind_is_read_compressed(tmp_path: Path, name: str, ending: str) -> None:
    packed = PACK[ending](PLAIN[name])
    assert said(written(tmp_path / (name + ending), packed)) == EXPECTED
    assert said(written(tmp_path / name, packed)) == EXPECTED  # by its bytes, whatever it is called


@pytest.mark.parametrize("ending", PACK)
def test_streams_that_were_joined_are_read_whole(tmp_path: Path, ending: str) -> None:
    pack = PACK[ending]
    path = written(tmp_path / f"a.jsonl{ending}", pack(LINES) + pack(LINES) + b"\0" * 70_000)
    assert said(path) == EXPECTED * 2


@pytest.mark.parametrize("ending", PACK)
def test_what_follows_a_stream_is_not_dropped_in_silence(tmp_path: Path, ending: str) -> None:
    path = written(tmp_path / f"a.jsonl{ending}", PACK[ending](LINES) + b"and more")
    loaded = read_examples(path, strict=False)
    assert len(loaded.examples) == 30
    assert [p.where for p in loaded.problems] == [f"{path}:31"]
    assert "other bytes follow its end" in loaded.problems[0].message


@settings(max_examples=40, deadline=None)
@given(ending=st.sampled_from(list(PACK)), at=st.integers(0), byte=st.integers(0, 255), cut=st.booleans())
def test_a_damaged_stream_never_crashes(
    tmp_path_factory: pytest.TempPathFactory, ending: str, at: int, byte: int, cut: bool
) -> None:
    data = bytearray(PACK[ending](LINES))
    at %= len(data)
    whole = data[at] == byte and not cut
    data[at] = byte
    path = written(tmp_path_factory.mktemp("fuzz") / f"a.jsonl{ending}", bytes(data[:at] if cut else data))
    try:
        loaded = read_examples(path, strict=False)
    except DataError as error:
        assert not whole
        assert error.fix
    else:
        assert [(e.input, e.answer) for e in loaded.examples] == EXPECTED or loaded.problems


@pytest.mark.parametrize("ending", PACK)
def test_a_bomb_is_stopped(tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "FREE_BYTES", 2**20)
    path = written(tmp_path / f"a.jsonl{ending}", PACK[ending](LINES + b" " * 2**25))
    with pytest.raises(DataError, match="decompression bomb") as caught:
        read_examples(path, strict=False)
    assert caught.value.where == str(path)
    assert "unpack it yourself" in (caught.value.fix or "")


def test_repetitive_examples_are_no_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "FREE_BYTES", 2**10)
    path = written(tmp_path / "a.jsonl.gz", gzip.compress(LINES * 50))
    assert len(read_examples(path).examples) == 1500


def test_more_than_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "MOST_BYTES", 1000)
    with pytest.raises(DataError, match="unpacks to more than"):
        read_examples(written(tmp_path / "a.jsonl.gz", gzip.compress(LINES)))


def test_twice_compressed_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="compressed twice"):
        read_examples(written(tmp_path / "a.jsonl.gz", gzip.compress(gzip.compress(LINES))))


# --- Parquet ---------------------------------------------------------------------------------------


def test_parquet_gives_plain_values(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]
    day, n = datetime.date(2024, 2, 1), 7
    row = {"messages": chat, "day": day, "raw": b"\x01", "n": n, "tags": ["a", "b"], "none": None}
    path = written(tmp_path / "a.parquet", parquet([row]))
    (example,) = read_examples(path).examples
    assert (example.input, example.answer, example.where) == ("hi", "yes", f"{path}:1")
    assert example.fields == {"day": "2024-02-01", "raw": "AQ==", "n": 7, "tags": ["a", "b"], "none": None}
    assert Example.from_row(json.loads(json.dumps(example.as_row()))) == example


def test_rows_of_parquet_are_counted_over_row_groups(tmp_path: Path) -> None:
    rows = [{"prompt": str(i), "completion": None if i == 600 else "b"} for i in range(1000)]
    path = written(tmp_path / "a.parquet", parquet(rows, row_group_size=300))
    loaded = read_examples(path, strict=False)
    assert [e.line for e in loaded.examples] == [n for n in range(1, 1001) if n != 601]
    assert [p.where for p in loaded.problems] == [f"{path}:601"]


def test_a_row_of_parquet_that_is_no_text_costs_itself(tmp_path: Path) -> None:
    broken = pa.array([b"a", b"\xff", b"c"], pa.binary()).view(pa.string())
    table = pa.table({"prompt": broken, "completion": ["x", "y", "z"], "n": [1.0, 2.0, float("nan")]})
    file = io.BytesIO()
    pq.write_table(table, file)
    path = written(tmp_path / "a.parquet", file.getvalue())
    loaded = read_examples(path, strict=False)
    assert [e.line for e in loaded.examples] == [1]
    assert [p.where for p in loaded.problems] == [f"{path}:2", f"{path}:3"]
    assert "not UTF-8" in loaded.problems[0].message
    assert "nan is not a JSON number" in loaded.problems[1].message


# --- folders ---------------------------------------------------------------------------------------


def test_a_folder_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    written(folder / "b.csv", b"text,label\nlast,l\n")
    written(folder / "a" / "2.jsonl.gz", gzip.compress(b'{"prompt": "second", "completion": "s"}\n'))
    written(folder / "a" / "1.parquet", parquet([{"prompt": "first", "completion": "f"}]))
    for other in ("README.md", ".hidden.jsonl", "_SUCCESS", "notes.docx", ".git/x.json"):
        written(folder / other, b"text")
    loaded = read_examples(folder)
    assert [e.input for e in loaded.examples] == ["first", "second", "last"]
    assert [e.where for e in loaded.examples] == [
        f"{folder}/a/1.parquet:1", f"{folder}/a/2.jsonl.gz:1", f"{folder}/b.csv:2",
    ]  # fmt: skip
    assert loaded.format == "prompt/completion, text/label"
    assert sorted(p.where.removeprefix(f"{folder}/") for p in loaded.passed_over) == [
        ".git/x.json", ".hidden.jsonl", "README.md", "_SUCCESS", "notes.docx",
    ]  # fmt: skip
    assert all(p.message and p.fix for p in loaded.passed_over)


def test_a_folder_of_texts_is_read(tmp_path: Path) -> None:
    written(tmp_path / "b.md", b"two\n")
    written(tmp_path / "a.txt", b"one\n")
    assert [e.answer for e in read_examples(tmp_path).examples] == ["one", "two"]


def test_a_bad_file_of_a_folder_is_a_problem_and_its_rows_are_counted(tmp_path: Path) -> None:
    written(tmp_path / "a.jsonl", LINES)
    written(tmp_path / "b.jsonl", b'{"x": 1}\n{"x": 2}\n')
    written(tmp_path / "c.jsonl", b"")
    loaded = read_examples(tmp_path, strict=False)
    assert len(loaded.examples) == 30
    assert [p.where for p in loaded.problems] == [
        f"{tmp_path}/b.jsonl",
        f"{tmp_path}/b.jsonl:2",
        f"{tmp_path}/c.jsonl",
    ]
    with pytest.raises(DataError, match="columns not recognised"):
        read_examples(tmp_path)


def test_copies_in_two_files_have_ids_of_their_own(tmp_path: Path) -> None:
    written(tmp_path / "a.jsonl", LINES)
    written(tmp_path / "b.jsonl", LINES)
    ids = [e.id for e in read_examples(tmp_path).examples]
    assert len(set(ids)) == 60
    assert ids[30:] == [f"{own}-2" for own in ids[:30]]


# --- the hub ---------------------------------------------------------------------------------------


class FakeHub:
    """A hub with one data set, in the place of `huggingface_hub`'s functions."""

    def __init__(self, root: Path, files: dict[str, bytes], card: dict[str, Any] | None = None) -> None:
        self.root, self.files, self.card = root, files, card
        self.error: Exception | None = None
        self.downloads: list[tuple[str, str]] = []

    def dataset_info(self, repo: str) -> Any:
        if self.error is not None:
            raise self.error
        siblings = [SimpleNamespace(rfilename=name) for name in self.files]
        card = None if self.card is None else SimpleNamespace(to_dict=lambda: self.card)
        return SimpleNamespace(sha="c0ffee", siblings=siblings, card_data=card)

    def download(self, repo: str, name: str, *, repo_type: str, revision: str) -> str:
        assert repo_type == "dataset"
        self.downloads.append((name, revision))
        return str(written(self.root / name, self.files[name]))


FILES = {
    "README.md": b"# About",
    ".gitattributes": b"",
    "data/train-00000-of-00002.parquet": parquet(ROWS[:10]),
    "data/train-00001-of-00002.parquet": parquet(ROWS[10:20]),
    "data/test-00000-of-00001.parquet": parquet(ROWS[20:]),
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    fake = FakeHub(tmp_path / "files", dict(FILES))
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: fake)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fake.download)
    return fake


def test_a_split_of_the_hub_is_read_at_one_commit(hub: FakeHub) -> None:
    loaded = read_examples("hub:owner/set@train")
    assert [(e.input, e.answer) for e in loaded.examples] == EXPECTED[:20]
    assert loaded.examples[10].where == "hub:owner/set/data/train-00001-of-00002.parquet:1"
    assert loaded.revision == "c0ffee"
    assert {revision for _, revision in hub.downloads} == {"c0ffee"}
    assert said("hub:owner/set@test") == EXPECTED[20:]


def test_several_splits_have_to_be_told_apart(hub: FakeHub) -> None:
    with pytest.raises(DataError, match="several splits: train, test") as caught:
        read_examples("hub:owner/set")
    assert caught.value.fix == "name one: hub:owner/set@train"
    with pytest.raises(DataError, match="has no split 'validation'") as caught:
        read_examples("hub:owner/set@dev".replace("dev", "validation"))
    assert caught.value.fix == "its splits: train, test"
    hub.files = {"all.jsonl": LINES, "LICENSE.txt": b"MIT"}
    assert said("hub:owner/set") == EXPECTED


def test_what_the_card_declares_goes_before_names(hub: FakeHub) -> None:
    hub.files = {"main/a.jsonl": LINES, "other/b.jsonl": LINES[:40], "main/c.jsonl": LINES}
    declared = [{"split": "train", "path": "main/a*"}, {"split": "test", "path": ["main/c.jsonl"]}]
    hub.card = {"configs": [{"config_name": "main", "data_files": declared}]}
    assert list(fetch_hub("hub:owner/set@train").files) == ["main/a.jsonl"]
    assert list(fetch_hub("hub:owner/set@test").files) == ["main/c.jsonl"]
    hub.card["configs"].append({"config_name": "other", "data_files": "other/*.jsonl"})
    with pytest.raises(DataError, match="several configurations: main, other") as caught:
        fetch_hub("hub:owner/set@train")
    assert caught.value.fix == "name one: hub:owner/set/main@train"
    assert list(fetch_hub("hub:owner/set/other").files) == ["other/b.jsonl"]


def test_without_a_network_the_commit_seen_last_is_used(hub: FakeHub) -> None:
    assert hub_identity("hub:owner/set@train") == ["hub:owner/set@train", "c0ffee"]
    hub.error = OSError("no route to host")
    assert len(read_examples("hub:owner/set@train").examples) == 20
    with pytest.raises(DataError, match=r"the hub cannot be reached \(no route to host\)") as caught:
        read_examples("hub:owner/another")
    assert caught.value.where == "hub:owner/another"
    assert "give their folder" in (caught.value.fix or "")


def test_errors_of_the_hub_are_said(hub: FakeHub) -> None:
    import httpx2

    answer = httpx2.Response(404, request=httpx2.Request("GET", "https://example.org"))
    hub.error = RepositoryNotFoundError("404", response=answer)
    with pytest.raises(DataError, match="no such data set"):
        read_examples("hub:owner/none")
    for wrong in ("hub:", "hub:owner", "hub:owner/set@", "hub:owner/set@a b"):
        with pytest.raises(DataError, match="is not a data set of the hub"):
            read_examples(wrong)


def test_a_recipe_keeps_the_revision(hub: FakeHub, tmp_path: Path) -> None:
    recipe = parse_recipe({"model": "m", "data": "hub:owner/set@train"}, base=tmp_path)
    assert recipe.data.train == "hub:owner/set@train"
    sources = Sources(recipe.data)
    before = sources.hashes["train"]
    assert (
        sources.provenance()[0] | {"file": "hub:owner/set@train", "revision": "c0ffee"}
        == sources.provenance()[0]
    )
    hub.dataset_info = lambda repo: SimpleNamespace(sha="beef", siblings=[], card_data=None)  # type: ignore[method-assign]
    assert Sources(recipe.data).hashes["train"] != before


# --- columns ---------------------------------------------------------------------------------------

GUESSES = [
    ({"frage": "a", "antwort": "b"}, "{frage: prompt, antwort: completion}"),
    ({"Question": "a", "reply": "b", "id": 1}, "{Question: prompt, reply: completion}"),
    ({"query": "a", "target": "b"}, "{query: prompt, target: completion}"),
    ({"user_question": "a", "gold_answer": "b"}, "{user_question: prompt, gold_answer: completion}"),
    ({"prompt": "a", "reply": "b"}, "{reply: completion}"),
    ({"body": "a", "category": "b"}, "{body: text, category: label}"),
    ({"body": "a"}, "{body: text}"),
    ({"question": "a", "winner": "b", "loser": "c"}, "{question: prompt, winner: chosen, loser: rejected}"),
    ({"dialog": [{"role": "user", "content": "a"}]}, "{dialog: messages}"),
    ({"dialog": [{"from": "human", "value": "a"}]}, "{dialog: conversations}"),
]


@pytest.mark.parametrize(("row", "expected"), GUESSES, ids=[text for _, text in GUESSES])
def test_the_line_to_write_is_guessed(tmp_path: Path, row: dict[str, Any], expected: str) -> None:
    path = written(tmp_path / "a.jsonl", json.dumps(row).encode())
    with pytest.raises(DataError, match="columns not recognised") as caught:
        read_examples(path)
    fix = caught.value.fix or ""
    assert f"`columns: {expected}` under `data:`" in fix
    given_ = fix.rpartition("--columns ")[2].strip("'")
    names = read_columns(given_)
    assert [f"{own}: {name}" for own, name in names.items()] == expected.strip("{}").split(", ")


def test_nothing_is_guessed_from_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_examples(written(tmp_path / "a.jsonl", b'{"x": 1, "y": 2}'))
    assert "or map yours with `columns: {YOURS: KNOWN}`" in (caught.value.fix or "")


def test_columns_are_mapped(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", b'{"frage": "a", "antwort": "b", "kunde": "k", "rest": 1}')
    columns = {"frage": "prompt", "antwort": "completion", "kunde": "group"}
    (example,) = read_examples(path, columns=columns).examples
    assert (example.input, example.answer, example.group, example.fields) == ("a", "b", "k", {"rest": 1})
    sources = Sources(DataFiles(train=str(path), columns=columns))
    assert sources.examples["train"] == (example,)
    assert sources.options == {"columns": columns}


def test_wrong_mappings_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", b'{"frage": "a", "antwort": "b"}\n{"frage": "a", "prompt": "b"}')
    for columns, expected in [
        ({"frage": "promt"}, "did you mean 'prompt'"),
        ({"frage": "prompt", "antwort": "prompt"}, "cannot both become 'prompt'"),
        ({"frage": "prompt", "antwrt": "completion"}, "no column 'antwrt'.*did you mean 'antwort'"),
    ]:
        with pytest.raises(DataError, match=f"(?s){expected}"):
            read_examples(path, columns=columns)
    loaded = read_examples(path, columns={"frage": "prompt", "antwort": "completion"}, strict=False)
    assert [p.message for p in loaded.problems] == ["has a column 'prompt' already"]
    for text in ("frage", "=prompt", "a=b=c", ""):
        with pytest.raises(DataError):
            read_columns(text)


# --- streams and descriptions -----------------------------------------------------------------------


def test_a_stream_can_be_begun_anew_and_knows_its_form(tmp_path: Path) -> None:
    reading = stream_examples(written(tmp_path / "a.jsonl", LINES + b"{\n" + LINES))
    assert reading.format == "prompt/completion"
    items = list(reading)
    assert [type(item) for item in items] == [Example] * 30 + [Problem] + [Example] * 30
    assert list(reading) == items
    assert len({item.id for item in items if isinstance(item, Example)}) == 60


def test_a_form_can_be_named(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", b'{"prompt": "a", "completion": "b", "text": "t"}')
    (example,) = stream_examples(path, format="text")
    assert isinstance(example, Example) and example.answer == "t"
    with pytest.raises(DataError, match="did you mean 'alpaca'"):
        stream_examples(path, format="alpacca")


def test_what_was_read_is_described(tmp_path: Path) -> None:
    turns = [{"from": who, "value": "x"} for who in ("system", "human", "gpt", "human", "gpt")]
    path = written(tmp_path / "a.jsonl", b"".join(
        json.dumps({"conversations": turns[:n]}).encode() + b"\n" for n in (3, 5)
    ))  # fmt: skip
    assert read_examples(path).describe() == "ShareGPT, 3.0 turns on average, 2 with a system prompt"
    assert read_examples(written(tmp_path / "a.txt", b"one\n")).describe() == "plain text"
