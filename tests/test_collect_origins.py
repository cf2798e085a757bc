"""Provenance: from the examples through the split into the manifest, the card, and the audit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from card_record import write_record

from luthier.audit import Finding, audit_examples
from luthier.card.model_card import write_card
from luthier.card.origins import read_origins, warn_of
from luthier.examples import Example, Message, read_examples
from luthier.pipeline import Run
from luthier.pipeline.origins import summarise_provenance
from luthier.recipe import load_recipe
from luthier.record import write_json

OURS = {"source": "support desk", "licence": "ours", "synthetic": False}
LOGGED = {"source": "chat.jsonl", "synthetic": True, "model": "big-1"}


def example(number: int, **provenance: Any) -> Example:
    messages = (Message("user", f"question {number}"), Message("assistant", f"answer {number}"))
    return Example(str(number), messages, "folder/file.jsonl", number, provenance=provenance)


def test_examples_that_say_the_same_are_counted_together() -> None:
    sides = {
        "train": [example(1, **OURS), example(2, **OURS), example(3, **LOGGED, accepted_by="anna")],
        "test": [example(4, **OURS), example(5, **LOGGED), example(6)],
    }
    assert summarise_provenance(sides) == [
        {"file": "file.jsonl", **OURS, "train": 2, "test": 1, "accepted": 0},
        {
            **{"file": "file.jsonl", "source": "chat.jsonl", "licence": None, "synthetic": True},
            **{"train": 1, "test": 1, "accepted": 1},
        },
        {
            **{"file": "file.jsonl", "source": None, "licence": None, "synthetic": None},
            **{"train": 0, "test": 1, "accepted": 0},
        },
    ]


def test_the_recipe_speaks_for_examples_that_say_nothing() -> None:
    rows = [
        {"file": "a.jsonl", "source": None, "licence": None, "synthetic": None, "train": 3, "test": 1},
        {"file": "b.jsonl", "source": None, "licence": None, "synthetic": None, "train": 2},
        {"file": "b.jsonl", "source": "theirs", "licence": "CC-BY-4.0", "synthetic": False, "train": 5},
    ]
    stated = {"source": "desk", "licence": "ours", "train": [{"file": "/home/x/b.jsonl", "licence": "MIT"}]}
    found = read_origins(rows, {"data": stated})
    assert [(o.source, o.licence, o.total) for o in found] == [
        ("desk", "ours", 4),
        ("desk", "MIT", 2),
        ("theirs", "CC-BY-4.0", 5),
    ]
    assert [o.source for o in read_origins(rows, {})] == ["a.jsonl", "b.jsonl", "theirs"]
    assert read_origins("broken", {}) == read_origins([3], {}) == []


def test_no_folder_of_this_machine_is_published() -> None:
    rows = [
        {"file": "a.jsonl", "source": r, "train": 1} for r in ("/home/ada/logs/a.jsonl", r"C:\logs\a.jsonl")
    ]
    assert {origin.source for origin in read_origins(rows, {})} == {"a.jsonl"}
    (web,) = read_origins([{"source": "https://example.org/data", "train": 1}], {})
    assert web.source == "https://example.org/data"


def test_what_a_reader_is_warned_of() -> None:
    rows = [
        {"source": "desk", "licence": "ours", "synthetic": False, "train": 60, "validation": 10, "test": 20},
        {"source": "big", "licence": None, "synthetic": True, "train": 6, "test": 4, "accepted": 3},
    ]
    licence, test, unread = warn_of(read_origins(rows, {}))
    assert licence.startswith("The licence of 10 of 100 examples is unknown")
    assert "a model wrote the answers of 4 of 24 examples" in test
    assert "accepted 7 of 10 synthetic examples" in unread
    assert warn_of(read_origins(rows[:1], {})) == []
    rows[1] |= {"licence": "ours", "accepted": 10, "test": 0, "train": 10}
    assert warn_of(read_origins(rows, {})) == []


def test_the_card_shows_where_the_examples_come_from(tmp_path: Path) -> None:
    record = write_record(tmp_path / "run")
    manifest = json.loads((record / "data/manifest.json").read_text())
    assert "comes from" not in write_card(record).read_text()
    manifest["provenance"] = [
        {"file": "a.jsonl", **OURS, "train": 270, "validation": 40, "test": 110, "accepted": 0},
        {"file": "a.jsonl", **LOGGED, "train": 14, "validation": 0, "test": 10, "accepted": 5},
        {"file": "tickets|odd.jsonl", "train": 1},
    ]
    write_json(record / "data/manifest.json", manifest)
    card = write_card(record).read_text()
    assert "| support desk | ours | no | 270 | 40 | 110 |" in card
    assert "| chat.jsonl | unknown | yes, 5 accepted by a person | 14 | 0 | 10 |" in card
    assert r"| tickets\|odd.jsonl | unknown | not stated | 1 | 0 | 0 |" in card
    assert "**The licence of 25 of 445 examples is unknown" in card
    assert "**The test side holds synthetic examples: a model wrote the answers of 10 of 120 examples" in card


def test_provenance_goes_through_the_split(tmp_path: Path) -> None:
    """From a column of the file into `data/` and its manifest; what the recipe states splits nothing anew."""
    rows = []
    for number in range(40):
        said = [
            {"role": "user", "content": f"is {number * 37} even?"},
            {"role": "assistant", "content": "yes"},
        ]
        rows.append({"messages": said, **({"provenance": LOGGED} if number % 2 else {})})
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = tmp_path / "recipe.yaml"

    def split(data: str) -> tuple[Run, list[dict[str, Any]]]:
        recipe.write_text(f"model: smollm2-135m\ngrader: label\ndata: {data}\n")
        job = Run(load_recipe(recipe), tmp_path / "run")
        job.split()
        return job, json.loads((tmp_path / "run/data/manifest.json").read_text())["provenance"]

    job, found = split("data.jsonl")
    written = [
        row for side in ("train", "validation", "test") for row in job.record.read_jsonl(f"data/{side}.jsonl")
    ]
    assert sum(row.get("provenance") == LOGGED for row in written) == 20
    assert sum("provenance" not in row for row in written) == 20
    told = {
        row["source"]: (row["synthetic"], row["train"] + row["validation"] + row["test"]) for row in found
    }
    assert told == {None: (None, 20), "chat.jsonl": (True, 20)}
    before = job.record.output_hash("split")
    job, _ = split("{train: data.jsonl, source: desk, licence: ours}")
    assert job.record.output_hash("split") == before
    job.card()
    card = (tmp_path / "run/card.md").read_text()
    assert "| desk | ours | not stated |" in card and "| chat.jsonl | ours | yes |" in card
    assert "The test side holds synthetic examples" in card and "licence of" not in card


@pytest.mark.parametrize("licence", ["licence", "license"])
def test_both_spellings(licence: str) -> None:
    (row,) = summarise_provenance({"train": [example(1, **{licence: "MIT"})]})
    assert row["licence"] == "MIT"


def audited(test: list[Example]) -> list[Finding]:
    train = [example(number, **LOGGED) for number in range(100, 140)]
    result = audit_examples({"train": train, "test": test})
    assert not result.failed
    return [finding for finding in result.findings if finding.check == "synthetic_test"]


def test_a_test_that_a_model_wrote_is_found() -> None:
    people = [example(n, **OURS) for n in range(6)]
    read = [example(6, **LOGGED, accepted_by="anna")]
    (finding,) = audited([*people, *read, example(7, **LOGGED)])
    assert finding.score == pytest.approx(1 / 8) and [e.id for e in finding.examples] == ["7"]
    assert finding.message == "1 test answer of 8 written by big-1, read by nobody"
    assert audited([*people, *read]) == []


def test_a_side_that_is_none_is_skipped() -> None:
    result = audit_examples({"all": [example(n, **LOGGED) for n in range(30)]})
    assert "synthetic_test" in dict(result.skipped)


def test_a_file_keeps_what_it_says(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    said = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    path.write_text(json.dumps({"messages": said, "provenance": OURS, "team": "x"}) + "\n")
    (read,) = read_examples(path).examples
    assert read.provenance == OURS and read.fields == {"team": "x"}
