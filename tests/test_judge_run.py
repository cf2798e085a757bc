"""A judge and slices in a whole run: what is refused early, what is written, what is asked again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from chat_server import Sent, blocks, serving

from luthier.errors import DataError, RecipeError
from luthier.grade import chat_endpoint
from luthier.pipeline import Run
from luthier.recipe import load_recipe

SECRET = "sk-very-secret-123"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with examples of two desks; a cache of its own, no waiting, no proxies."""
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(chat_endpoint, "FIRST_WAIT", 0.001)
    monkeypatch.setenv("NO_PROXY", "*")
    rows = [
        {
            "prompt": f"Ticket {number * 7919}: {word} {'invoice' if number % 2 else 'login'} {number}",
            "completion": "billing" if number % 2 else "access",
            "desk": ("north", "south")[number % 3 == 0],
        }
        for number, word in enumerate(["broken", "late", "wrong", "missing"] * 12)
    ]
    (tmp_path / "tickets.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def run(home: Path, url: str = "http://127.0.0.1:1/v1", **changes: Any) -> Run:
    recipe: dict[str, Any] = {
        "model": "smollm2-135m",
        "data": "tickets.jsonl",
        "candidates": ["scratch"],
        "grader": {"kind": "rubric", "rubric": "Right desk.", "endpoint": {"url": url, "model": "j"}},
        "slices": ["desk"],
    }
    (home / "recipe.yaml").write_text(yaml.safe_dump(recipe | changes))
    return Run(load_recipe(home / "recipe.yaml"), home / "run")


def right(body: dict[str, Any], count: int) -> str:
    """Passes the answer that is the reference."""
    texts = blocks(body)
    return json.dumps({"reason": "x", "pass": texts["ANSWER"] == texts["REFERENCE"]})


def test_judged_scores_by_slice_and_nothing_twice(home: Path) -> None:
    with serving(right) as server:
        scores = run(home, server.url).evaluate()
        asked = len(server.requests)
        assert run(home, server.url).evaluate() == scores
        assert len(server.requests) == asked > 0
    lines = (home / "run/predictions/scratch.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["score"] for row in rows] == [float(row["answer"] == row["reference"]) for row in rows]
    assert scores["judge"]["gates"] is False
    slices = scores["slices"]["scores"]
    assert {row["value"] for row in slices} == {"north", "south"}
    assert sum(row["n"] for row in slices) == scores["candidates"]["scratch"]["n"] == len(rows)


def test_a_judge_that_was_out_is_asked_again_by_the_next_run(home: Path) -> None:
    def behave(body: dict[str, Any], count: int) -> Sent | str:
        return Sent(401, "{}") if count < 40 and "billing" in blocks(body)["ANSWER"] else right(body, 99)

    with serving(behave) as server:
        first = run(home, server.url).evaluate()
        assert first["judge"]["unreached"] > 0
        assert first["candidates"]["scratch"]["unscored"] == first["judge"]["unreached"]
        again = len(server.requests)
        while len(server.requests) < 40:
            run(home, server.url).evaluate()
        last = run(home, server.url).evaluate()
        assert len(server.requests) > again
        assert (last["judge"]["unreached"], last["candidates"]["scratch"]["unscored"]) == (0, 0)
        done = len(server.requests)
        run(home, server.url).evaluate()
        assert len(server.requests) == done


def test_the_key_is_nowhere_in_the_run_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", SECRET)
    with serving(right) as server:
        endpoint = {"url": server.url, "model": "j", "key_env": "JUDGE_KEY"}
        run(home, grader={"kind": "rubric", "rubric": "x", "endpoint": endpoint}).evaluate()
    assert server.headers[0]["Authorization"] == f"Bearer {SECRET}"
    files = [path for path in home.rglob("*") if path.is_file()]
    assert len(files) > 10
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]


def test_what_cannot_be_graded_is_refused_before_the_work(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    endpoint = {"url": "http://127.0.0.1:1/v1", "model": "j", "key_env": "JUDGE_KEY"}
    with pytest.raises(RecipeError, match="JUDGE_KEY"):
        run(home, grader={"kind": "rubric", "rubric": "x", "endpoint": endpoint}).evaluate()
    labels = {"kind": "rubric", "rubric": "x", "model": "smollm2-135m", "labels": "none.jsonl"}
    with pytest.raises(DataError, match="labels cannot be read"):
        run(home, grader=labels).all()
    assert not (home / "run/data").exists()
    with pytest.raises(DataError, match="did you mean 'desk'"):
        run(home, slices=["dsk"]).evaluate()
    assert not (home / "run/answers").exists()


def test_other_labels_and_other_slices_are_graded_again(home: Path) -> None:
    label = {"input": "q", "answer": "a", "reference": "a", "human": True}
    (home / "labels.jsonl").write_text(json.dumps(label))
    with serving(right) as server:
        grader = {
            "kind": "rubric",
            "rubric": "Right desk.",
            "endpoint": {"url": server.url, "model": "j"},
            "labels": "labels.jsonl",
        }
        assert run(home, grader=grader).evaluate()["judge"]["calibration"]["n"] == 1
        (home / "labels.jsonl").write_text(f"{json.dumps(label)}\n{json.dumps(label | {'input': 'r'})}")
        assert run(home, grader=grader).evaluate()["judge"]["calibration"]["n"] == 2
        assert run(home, grader=grader, slices=[]).evaluate()["slices"]["scores"] == []
