"""Wordings and numbers of examples are chosen on validation, recorded, and asked on the test side once."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny_run
from hypothesis import given
from hypothesis import strategies as st

import luthier
from luthier import candidates
from luthier.candidates import Answer
from luthier.candidates.search import Setting, best_setting, offered_settings
from luthier.errors import RecipeError
from luthier.pipeline import Run
from luthier.recipe import dump_recipe, parse_recipe

BEST = "You sort remarks."
WORDINGS = ["Do it.", BEST, ""]
Conversations = Mapping[str, Sequence[Mapping[str, str]]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("search")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUTHIER_CACHE", str(folder / "cache"))
        tiny_run.write_recipe(
            folder,
            tiny_run.write_model(folder / "model"),
            candidates=["prompt", "few_shot", "retrieval"],
            probes=[],
            prompts=WORDINGS,
            shots=[1, 2, 4],
        )
        yield folder


class Oracle:
    """Stands in for `ask`: right when asked with the best wording and two examples (or none), else wrong."""

    def __init__(self, run: Run) -> None:
        sides = run.split().sides()
        self.labels = {e.id: e.answer for examples in sides.values() for e in examples}
        self.inputs = {side: {e.input for e in examples} for side, examples in sides.items()}
        self.side_of = {e.id: side for side, examples in sides.items() for e in examples}
        self.calls: list[tuple[str, int, str]] = []

    def __call__(
        self, model: Any, chat: Any, conversations: Conversations, *, max_new_tokens: int, **options: Any
    ) -> list[Answer]:
        answers = []
        for key, messages in conversations.items():
            system = next((m["content"] for m in messages if m["role"] == "system"), "")
            turns = [m["content"] for m in messages if m["role"] == "user"]
            assert set(turns[:-1]) <= self.inputs["train"], "only training examples may be shown"
            right = system == BEST and len(turns) - 1 in (0, 2)
            answer = self.labels[key] if right else "neither"
            self.calls.append((system, len(turns) - 1, self.side_of[key]))
            answers.append(Answer(key, "p", answer, 0.5, len(chat.prompt(messages)), 1, 0.1))
        return answers


def open_run(home: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> tuple[Run, Oracle]:
    run = Run(luthier.load_recipe(home / "recipe.yaml", changes), folder)
    oracle = Oracle(run)
    monkeypatch.setattr(candidates, "ask", oracle)
    return run, oracle


def test_what_is_planted_is_chosen_and_the_test_side_is_asked_once(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, oracle = open_run(home, tmp_path / "run", monkeypatch)
    scores = run.evaluate()
    assert {name: row["score"] for name, row in scores["candidates"].items()} == {
        "prompt": 1.0,
        "few_shot": 1.0,
        "retrieval": 1.0,
    }
    on_test = {(system, shots) for system, shots, side in oracle.calls if side == "test"}
    assert on_test == {(BEST, 0), (BEST, 2)}
    counts = [side for *_, side in oracle.calls]
    sides = run.split().sides()
    assert counts.count("test") == 3 * len(sides["test"])
    assert counts.count("validation") == (4 + 12 + 12) * len(sides["validation"])
    assert "train" not in counts
    for name, tried in (("prompt", 4), ("few_shot", 12), ("retrieval", 12)):
        found = json.loads((run.record / f"search/{name}.json").read_text())
        assert scores["search"][name] == found
        assert len(found["tried"]) == tried
        assert all(row["n"] == len(sides["validation"]) for row in found["tried"])
        chosen = found["tried"][found["chosen"]]
        assert (chosen["system"], chosen["shots"]) == (BEST, 0 if name == "prompt" else 2)
        assert chosen["score"] == 1.0
        assert sum(row["score"] for row in found["tried"]) == 1.0
        assert [row["system"] for row in found["tried"]][:1] == ["Say good or bad."]
        assert None in [row["system"] for row in found["tried"]]  # "" is no system prompt at all


def test_a_second_run_searches_nothing_and_the_grader_searches_again(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = open_run(home, tmp_path / "run", monkeypatch, candidates=["prompt", "few_shot"])
    run.evaluate()
    again, oracle = open_run(home, tmp_path / "run", monkeypatch, candidates=["prompt", "few_shot"])
    again.evaluate()
    assert oracle.calls == []
    other, oracle = open_run(
        home, tmp_path / "run", monkeypatch, candidates=["prompt", "few_shot"], grader="string_check"
    )
    other.evaluate()
    assert {side for *_, side in oracle.calls} == {"validation"}  # it chose the same: nothing to ask again


def test_without_a_choice_there_is_no_search(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = open_run(home, tmp_path / "run", monkeypatch)
    run.evaluate()
    plain, oracle = open_run(home, tmp_path / "run", monkeypatch, prompts=[], shots=2)
    scores = plain.evaluate()
    assert "search" not in scores
    assert not list((plain.record / "search").glob("*"))
    assert {side for *_, side in oracle.calls} == {"test"}
    assert {(system, shots) for system, shots, _ in oracle.calls} == {
        ("Say good or bad.", 0),
        ("Say good or bad.", 2),
    }


def test_a_setting_that_does_not_fit_is_not_chosen_and_says_so(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = open_run(home, tmp_path / "run", monkeypatch, candidates=["few_shot"], prompts=[], shots=[2, 30])
    found = run.evaluate()["search"]["few_shot"]
    assert found["chosen"] == 0
    assert found["tried"][1]["score"] is None
    assert "do not fit" in found["tried"][1]["reason"]


def test_validation_is_a_sample_when_it_is_large(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_run.write_examples(tmp_path / "many.jsonl", 300)
    run, oracle = open_run(
        home,
        tmp_path / "run",
        monkeypatch,
        data=str(tmp_path / "many.jsonl"),
        split={"validation": 0.4, "test": 0.3},
        candidates=["prompt"],
    )
    found = run.evaluate()["search"]["prompt"]
    assert len(run.split().validation) > 64
    assert found["n"] == 64
    assert [side for *_, side in oracle.calls].count("validation") == 4 * 64


# --- the choice -------------------------------------------------------------------------------------


def test_what_is_offered() -> None:
    assert offered_settings("prompt", (), 4) == (Setting(None, 0),)
    assert offered_settings("prompt", ("a",), (1, 2)) == (Setting(None, 0), Setting("a", 0))
    assert offered_settings("few_shot", ("a",), (1, 2)) == (
        Setting(None, 1),
        Setting(None, 2),
        Setting("a", 1),
        Setting("a", 2),
    )
    assert offered_settings("retrieval", (), 3) == (Setting(None, 3),)
    for name in ("tuned", "scratch"):
        assert offered_settings(name, ("a",), (1, 2)) == (Setting(None, 0),)


def row(score: float | None, tokens: float | None = 1.0) -> dict[str, Any]:
    return {"score": score, "prompt_tokens": tokens}


def test_the_best_then_the_shortest_then_the_first() -> None:
    assert best_setting([row(0.2), row(0.9), row(0.5)]) == 1
    assert best_setting([row(0.5, 9), row(0.5, 3), row(0.5, 3)]) == 1
    assert best_setting([row(None, None), row(0.0, 9)]) == 1
    assert best_setting([row(None, None), row(None, None)]) == 0


@given(st.lists(st.sampled_from([None, 0.0, 0.5, 1.0]), min_size=1), st.randoms())
def test_nothing_that_was_tried_is_better_than_the_choice(
    scores: list[float | None], dice: random.Random
) -> None:
    tried = [row(score, dice.randrange(5)) for score in scores]
    chosen = tried[best_setting(tried)]
    known = [r for r in tried if r["score"] is not None]
    if known:
        assert (-chosen["score"], chosen["prompt_tokens"]) == min(
            (-r["score"], r["prompt_tokens"]) for r in known
        )


# --- the recipe -------------------------------------------------------------------------------------


def recipe(**keys: Any) -> luthier.Recipe:
    return parse_recipe({"model": "m", "data": "d.jsonl", **keys}, base=Path("/"))


def test_shots_as_a_number_or_a_list() -> None:
    assert (recipe().shots, recipe(shots=2).shots, recipe(shots=[8, 2]).shots) == (4, 2, (2, 8))
    assert "shots: 4\n" in dump_recipe(recipe())
    assert "shots:\n- 2\n- 8\n" in dump_recipe(recipe(shots=[2, 8]))


@pytest.mark.parametrize("value", [0, 65, [], [2, 2], [0], "two", 1.5, True, None])
def test_shots_that_cannot_be(value: Any) -> None:
    with pytest.raises(RecipeError, match="shots: expected a whole number from 1 to 64, or a list"):
        recipe(shots=value)


@pytest.mark.parametrize("value", ["one", [1], None, ["a", "a"]])
def test_prompts_that_cannot_be(value: Any) -> None:
    with pytest.raises(RecipeError, match=r"prompts: (expected a list of system prompts|a wording is there)"):
        recipe(prompts=value)
