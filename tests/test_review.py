"""The answers a person should read: which are listed and why, and going through them in the terminal."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_run
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

import luthier
from luthier.cli.main import app
from luthier.cli.screen import console
from luthier.errors import RecordError
from luthier.evidence.failures import find_failures
from luthier.evidence.review import SAMPLED, list_answers, open_rows, read_judgements
from luthier.examples.example import Example, Message
from luthier.pipeline import Run, probing
from luthier.pipeline.reviewing import render_list
from luthier.recipe.probe_options import PROBE_NAMES
from luthier.record import Record, sha256_of, write_jsonl

SURE = "confident, and not right by the grader"


def answer(i: int, confidence: float | None, score: float | None, given: str = "good") -> dict[str, Any]:
    label = {"label": given, "known": True}
    place = {"input": f"request {i}", "file": "tickets.jsonl", "line": i + 1, "reference": "bad"}
    row = {"id": f"e{i}", "answer": given, "confidence": confidence, "score": score, "detail": label}
    return row | place | {"reason": None}


def example(i: int, **fields: Any) -> Example:
    turns = (Message("user", f"request {i}"), Message("assistant", "bad"))
    return Example(f"e{i}", turns, "tickets.jsonl", i + 1, None, fields)


def listed(rows: list[dict[str, Any]], **changes: Any) -> list[dict[str, Any]]:
    given_: dict[str, Any] = {
        "threshold": 0.5,
        "failures": find_failures(rows, []),
        "lost_slices": [],
        "others": {},
        "probes": {},
        "seed": 0,
    } | changes
    test = given_.pop("test", [example(i) for i in range(len(rows))])
    return list_answers(rows, test, **given_)


def why(rows: list[dict[str, Any]]) -> dict[str, list[str]]:
    return {row["id"]: row["why"] for row in rows}


# 40 right answers of falling confidence from 1 down to 0.61, and ten wrong ones below the threshold
RIGHT = [answer(i, 1 - i / 100, 1.0) for i in range(40)]
WRONG = [answer(i, 0.3, 0.0) for i in range(40, 50)]


# --- the list ---------------------------------------------------------------------------------------


def test_the_sample_is_drawn_from_the_answers_that_would_be_given() -> None:
    found = listed([*RIGHT, *WRONG], failures={})
    assert len(found) == 20
    assert all(row["sampled"] and row["why"] == [SAMPLED] for row in found)
    assert all(row["confidence"] >= 0.5 for row in found)
    assert found == listed([*RIGHT, *WRONG], failures={})
    other = listed([*RIGHT, *WRONG], failures={}, seed=1)
    assert {row["id"] for row in other} != {row["id"] for row in found}
    backwards = listed([*RIGHT, *WRONG][::-1], failures={}, test=[example(i) for i in range(50)])
    assert backwards == found


def test_every_answer_that_would_be_given_is_as_likely_to_be_drawn() -> None:
    seen = Counter(row["id"] for seed in range(400) for row in listed(RIGHT, failures={}, seed=seed))
    assert set(seen) == {f"e{i}" for i in range(40)}
    assert max(abs(count / 400 - 0.5) for count in seen.values()) < 0.1  # four standard errors


def test_without_a_threshold_the_surest_quarter_is_drawn_from() -> None:
    found = listed([*RIGHT, *WRONG], threshold=None, failures={})
    assert {row["id"] for row in found} == {f"e{i}" for i in range(13)}


def test_confident_and_wrong_answers_come_the_surest_first() -> None:
    rows = [answer(i, 0.6 + i / 1000, 0.0, given=f"odd {i}") for i in range(30)]
    unrated = [answer(30, None, 0.0), answer(31, 0.9, None)]
    found = listed([*rows, *unrated], failures={})
    wrong = [row for row in found if SURE in row["why"]]
    assert len(wrong) == 12
    assert {row["id"] for row in wrong} == {f"e{i}" for i in range(18, 30)}
    graded = [answer(0, 0.99, 0.9), answer(1, 0.7, 0.1), *RIGHT[2:]]
    assert [row["id"] for row in listed(graded, failures={}) if SURE in row["why"]] != []
    only = listed([answer(0, 0.99, 0.9), answer(1, 0.7, 0.1)], failures={})
    assert set(why(only)) == {"e0", "e1"}


def test_every_answer_of_the_largest_kind_of_failure_is_listed() -> None:
    rows = [*RIGHT, *WRONG, answer(50, 0.2, 0.0, given="ugly"), answer(51, 0.2, 0.0, given="ugly")]
    found = why(listed(rows))
    kind = "the most frequent failure: 'bad' answered as 'good'"
    assert {key for key, reasons in found.items() if kind in reasons} == {f"e{i}" for i in range(40, 50)}
    assert not {"e50", "e51"} & set(found)
    many = [answer(i, 0.1, 0.0) for i in range(30)]
    assert len(listed(many, threshold=0.5)) == 12


def test_a_kind_that_gathers_rare_failures_shows_its_cases() -> None:
    rows = [answer(i, 0.1, 0.0, given=f"odd {i}") for i in range(5)]
    failures = find_failures(rows, [])
    assert failures["kinds"][0]["kind"] == "other wrong answers"
    assert list(why(listed(rows, failures=failures))) == ["e0", "e1", "e2"]


def test_answers_lost_in_a_slice_that_got_worse_are_listed() -> None:
    test = [example(i, lang="de" if i >= 40 else "en") for i in range(50)]
    lost = {"field": "lang", "value": "de", "b": "prompt", "difference": -0.5}
    scores: dict[str, float | None] = {f"e{i}": 1.0 if i >= 44 else 0.0 for i in range(50)} | {"e49": None}
    found = why(
        listed([*RIGHT, *WRONG], failures={}, test=test, lost_slices=[lost], others={"prompt": scores})
    )
    reason = "worse than prompt, in a slice that got worse: lang = de"
    assert {key for key, reasons in found.items() if reason in reasons} == {f"e{i}" for i in range(44, 49)}


def test_one_answer_is_listed_once_with_all_its_reasons() -> None:
    rows = [answer(0, 0.9, 0.0), answer(1, 0.9, 0.0)]
    found = listed(rows)
    assert len(found) == 2
    assert all(len(row["why"]) == 3 for row in found)


def probe(lost: int, **more: Any) -> dict[str, Any]:
    one = {"text": "Say it.", "base": "I cannot.", "tuned": "Sure!"} | more
    examples = [one | {"text": f"{one['text']} {i}"} for i in range(3)]
    return {"flips": {"lost": lost, "gained": 0}, "examples": examples}


def test_probe_flips_that_were_lost_are_listed_in_turns() -> None:
    flip = {"question": "Which flies?", "options": ["a", "b"], "reference": "b", "base": "b", "tuned": "a"}
    forgetting = {
        "flips": {"lost": 5, "gained": 1},
        "examples": [
            flip | {"kind": "gained"},
            *(flip | {"kind": "lost", "question": f"Which of {i}?"} for i in range(5)),
        ],
    }
    numbers = {"flips": {"lost": 1}, "examples": [{"text": "t", "base": 0.1, "tuned": 0.2}]}
    probes = {"refusal": probe(2), "bias": probe(0), "forgetting": forgetting, "kl": numbers}
    probes["own_text"] = {"flips": None, "examples": []}
    found = listed(RIGHT[:1], failures={}, probes=probes)[1:]
    assert [row["where"] for row in found[:3]] == [
        f"probes/{n}.json" for n in ("forgetting", "refusal", "forgetting")
    ]
    assert Counter(row["where"] for row in found) == {"probes/forgetting.json": 5, "probes/refusal.json": 3}
    assert (found[0]["prompt"], found[0]["expected"], found[0]["answer"]) == ("Which of 0?", "b", "a")
    assert found[1]["expected"] == "as the base model: I cannot."
    assert not any(row["sampled"] for row in found)


SHAPES = st.lists(
    st.tuples(
        st.one_of(st.none(), st.floats(0, 1)), st.one_of(st.none(), st.floats(0, 1)), st.sampled_from("abc")
    ),
    max_size=150,
)


@settings(max_examples=60, deadline=None)
@given(SHAPES, st.one_of(st.none(), st.floats(0, 1)))
def test_the_list_is_short_and_each_answer_is_there_once(shapes: Any, threshold: float | None) -> None:
    rows = [answer(i, *shape[:2], given=shape[2]) for i, shape in enumerate(shapes)]
    found = listed(rows, threshold=threshold, probes={name: probe(3, text=name) for name in PROBE_NAMES})
    assert len(found) <= 60
    answers = [row["id"] for row in found if not row["where"].startswith("probes/")]
    assert len(set(answers)) == len(answers)
    assert all(row["why"] for row in found)
    json.dumps(found, allow_nan=False)


def test_the_key_is_that_of_the_answer_not_of_the_run() -> None:
    (first,), (again,) = (listed([answer(0, c, 0.0)], failures={}) for c in (0.9, 0.8))
    (other,) = listed([answer(0, 0.9, 0.0, given="ugly")], failures={})
    assert first["key"] == again["key"] != other["key"]


def test_long_requests_are_shortened_and_answers_are_not() -> None:
    long = answer(0, 0.9, 1.0, given="y" * 3000) | {"input": "x" * 3000}
    (row,) = listed([long], failures={})
    assert (len(row["prompt"]), len(row["answer"])) == (602, 3000)


def test_nothing_of_the_data_becomes_markup() -> None:
    hostile = answer(0, 0.9, 1.0, given="```\n# Title\n[x](javascript:1)") | {"input": "# a\n````"}
    text = render_list(listed([hostile], failures={}), "run <b>")
    assert "<b>" not in text
    assert [line for line in text.splitlines() if line.startswith("# ")][1:] == ["# a", "# Title"]
    assert text.count("`````text") == 1  # a longer fence than the one inside
    assert "\n````text\n```\n# Title" in text


def test_a_word_that_is_no_judgement_is_refused(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "review-done.jsonl", [{"key": "a", "judgement": "fine"}])
    with pytest.raises(RecordError, match="no judgement: 'fine'; expected accept, wrong, unsure"):
        read_judgements(Record(tmp_path))


def test_what_a_person_was_unsure_of_is_asked_again_last() -> None:
    rows = [{"key": key} for key in "abcdca"]
    said = {"a": {"judgement": "unsure"}, "b": {"judgement": "accept"}, "d": {"judgement": "wrong"}}
    assert open_rows(rows, said) == [{"key": "c"}, {"key": "a"}]


# --- a run ------------------------------------------------------------------------------------------


def stub(name: str) -> probing.Probe:
    """A probe that needs no model and finds nothing worse."""

    def report(measured: Any, evidence: Any) -> dict[str, Any]:
        numbers = {"base": 0.5, "tuned": 0.5, "difference": 0.0, "low": -0.01, "high": 0.01, "n": 9}
        finding = {"finding": "within_margin", "reason": "nothing", "margin": evidence.margin}
        return {"probe": name, "unit": "score", **numbers, **finding, **probe(1, text=name)}

    return probing.Probe(lambda subjects: {}, report)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("review")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUTHIER_CACHE", str(folder / "cache"))
        patch.setattr(probing, "PROBES", {name: stub(name) for name in PROBE_NAMES})
        recipe = tiny_run.write_recipe(
            folder, tiny_run.write_model(folder / "model"), stakes="high", candidates=["prompt", "tuned"]
        )
        Run(luthier.load_recipe(recipe), folder / "run").all()
        yield folder


@pytest.fixture
def finished(home: Path, tmp_path: Path) -> Path:
    shutil.copytree(home / "run", tmp_path / "run")
    return tmp_path / "run"


def read(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def reviewed(folder: Path) -> dict[str, Any]:
    gates = json.loads((folder / "verdict.json").read_text())["gates"]
    found: dict[str, Any] = next(gate for gate in gates if gate["name"] == "reviewed")
    return found


def test_a_run_of_high_stakes_lists_what_to_read_and_waits(finished: Path) -> None:
    rows = read(finished, "review.jsonl")
    by_id = {row["id"]: row for row in read(finished, "predictions/tuned.jsonl")}
    assert len({row["key"] for row in rows}) == len(rows)
    own = [row for row in rows if row["id"] in by_id]
    assert own and len(rows) - len(own) == 8
    for row in own:
        assert (row["answer"], row["expected"]) == (by_id[row["id"]]["answer"], by_id[row["id"]]["reference"])
        file, line = row["where"].rsplit(":", 1)
        assert row["prompt"] in json.dumps(Path(file).read_text().splitlines()[int(line) - 1])
    assert f"{len(rows)} answers to read before release" in (finished / "review.md").read_text()
    assert (reviewed(finished)["passed"], reviewed(finished)["value"]) == (None, None)
    assert "Held to high stakes" in (finished / "card.md").read_text()


def test_the_list_is_the_same_again_and_follows_the_answers(home: Path, finished: Path) -> None:
    before = sha256_of(finished / "review.jsonl")
    (finished / "review.jsonl").unlink()
    run = Run.open(finished)
    run.review()
    assert sha256_of(finished / "review.jsonl") == before
    changed = Run(luthier.load_recipe(home / "recipe.yaml", {"max_new_tokens": 2}), finished)
    changed.evaluate()
    assert not (finished / "review.jsonl").exists()  # it told of other answers
    changed.review()
    assert sha256_of(finished / "review.jsonl") != before


def test_a_list_can_be_made_of_any_run_and_needs_no_model(
    home: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(luthier.models, "load_model", lambda name: pytest.fail("a model was loaded"))
    shutil.rmtree(finished / "adapter")
    for name in ("review.jsonl", "review.md"):
        (finished / name).unlink()
    recipe = luthier.load_recipe(home / "recipe.yaml", {"stakes": "normal"})
    assert len(Run(recipe, finished).review()) > 8
    with pytest.raises(RecordError, match="luthier evaluate"):
        Run(recipe, finished.parent / "none").review()


def test_a_run_of_normal_stakes_lists_nothing(home: Path, tmp_path: Path) -> None:
    recipe = luthier.load_recipe(
        home / "recipe.yaml", {"stakes": "normal", "probes": [], "candidates": ["prompt", "tuned"]}
    )
    verdict = Run(recipe, tmp_path / "run").all()
    assert [gate["name"] for gate in verdict["gates"]] == ["gain", "data"]
    assert not list((tmp_path / "run").glob("review*"))


# --- the terminal -----------------------------------------------------------------------------------


@pytest.fixture
def review(finished: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Result]:
    monkeypatch.setattr(console, "_width", 100)

    def call(typed: str) -> Result:
        result = CliRunner().invoke(app, ["review", str(finished)], input=typed)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return call


def test_a_review_that_is_stopped_goes_on_where_it_was(
    finished: Path, review: Callable[[str], Result]
) -> None:
    rows = read(finished, "review.jsonl")
    result = review("a\n\nw\nnot what was asked\nq\n")
    assert result.exit_code == 0
    assert f"{len(rows)} answers to read, {len(rows)} left" in result.stdout
    assert rows[0]["answer"] in result.stdout and "drawn at random" in result.stdout
    done = read(finished, "review-done.jsonl")
    assert [(row["key"], row["judgement"], row["comment"]) for row in done] == [
        (rows[0]["key"], "accept", ""),
        (rows[1]["key"], "wrong", "not what was asked"),
    ]
    assert f"{len(rows) - 2} of {len(rows)} answers are not judged" in reviewed(finished)["reason"]
    again = review("")  # the terminal is closed at once
    assert f"{len(rows) - 2} left" in again.stdout
    assert read(finished, "review-done.jsonl") == done


def test_a_whole_review_decides(finished: Path, review: Callable[[str], Result]) -> None:
    rows = read(finished, "review.jsonl")
    drawn = sum(row["sampled"] for row in rows)
    assert review("u\n\n" + "a\n\n" * (len(rows) - 1)).exit_code == 0
    assert (reviewed(finished)["passed"], reviewed(finished)["value"]) == (None, 0.0)
    result = review("a\n\n")
    assert "1 left" in result.stdout
    assert "reviewed: of" in result.stdout
    assert (reviewed(finished)["passed"], reviewed(finished)["value"]) == (True, 0.0)
    assert f"of {drawn} answers drawn at random" in reviewed(finished)["reason"]
    assert "within the 5.0% that may be" in (finished / "card.md").read_text()
    nothing = review("")
    assert "0 left" in nothing.stdout


def test_answers_that_a_person_calls_wrong_stop_it(finished: Path, review: Callable[[str], Result]) -> None:
    rows = read(finished, "review.jsonl")
    review("".join("w\n\n" if row["sampled"] else "a\n\n" for row in rows))
    assert (reviewed(finished)["passed"], reviewed(finished)["value"]) == (False, 1.0)
    assert json.loads((finished / "verdict.json").read_text())["decision"] == "do_not_ship"


def test_judgements_outlive_the_list(home: Path, finished: Path, review: Callable[[str], Result]) -> None:
    """Another seed draws other answers: those judged already are not asked again."""
    rows = read(finished, "review.jsonl")
    review("a\n\n" * len(rows))
    run = Run(luthier.load_recipe(home / "recipe.yaml", {"seed": 1}), finished)
    run.review()
    memo = run.record.stage_memo("review")
    assert memo is not None and memo["inputs"]["seed"] == 1
    assert "0 left" in review("").stdout
