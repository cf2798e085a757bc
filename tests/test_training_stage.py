"""The training stage of a run: what it tells before, what a resumed run keeps, what chooses the epoch."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_run

import luthier
from luthier.candidates import Answer
from luthier.errors import DataError, RecipeError
from luthier.examples import Example, Split
from luthier.examples.example import Message
from luthier.pipeline import Run
from luthier.pipeline.held_out import HeldOut
from luthier.progress import Advance, Silent
from luthier.recipe import Train
from luthier.record import sha256_of


class Notes(Silent):
    """Remembers what is said, and the bar of the training."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.moved: list[int] = []
        self.total: int | None = None

    def note(self, text: str) -> None:
        self.said.append(text)

    @contextlib.contextmanager
    def task(self, what: str, total: int | None) -> Iterator[Advance]:
        def advance(done: int, detail: str = "", *, below: str = "", left: float | None = None) -> None:
            if what == "tuned: training":
                self.total = total
                self.moved.append(done)

        yield advance


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_run.write_model(tmp_path_factory.mktemp("stage") / "model")


def trained(model: Path, folder: Path, out: str = "run", **changes: Any) -> tuple[Run, Notes]:
    """A training of the tiny model, with changes to `train`."""
    usual = {"epochs": 2, "learning_rate": 0.01, "batch_tokens": 400, "replay": 0.0}
    if "select" not in changes and not (folder / "tickets.jsonl").is_file():
        tiny_run.write_examples(folder / "tickets.jsonl", 24)
    recipe = tiny_run.write_recipe(folder, model, train=usual | changes, candidates=["tuned"], probes=[])
    notes = Notes()
    run = Run(luthier.load_recipe(recipe), folder / out, notes)
    run.train()
    return run, notes


def test_the_user_is_told_before_and_the_estimate_is_kept(model: Path, tmp_path: Path) -> None:
    run, notes = trained(model, tmp_path)
    summary = run.record.read_json("train/summary.json")
    told = summary["estimate"]
    for name in ("steps", "tokens", "trained_tokens", "executed_tokens", "micro_tokens"):
        assert told[name] == summary[name]
    assert notes.said[1:3] == [
        f"training on {summary['examples']} examples",
        f"{told['tokens']:,} tokens in {told['steps']} steps (2 epochs): "
        f"{told['trained_tokens']:,} trained, {told['executed_tokens']:,} computed after sharing",
    ]
    assert notes.said[3].startswith("about ")
    assert notes.said[3].endswith(f"about {told['peak_memory_bytes'] / 1e9:.1f} GB of memory")
    assert "validation answers" not in notes.said[3]
    assert (notes.total, sum(notes.moved)) == (summary["steps"], summary["steps"])
    assert summary["peak_memory_bytes"] > 10**8


def test_a_started_training_keeps_its_plan(model: Path, tmp_path: Path) -> None:
    """The same key: the same micro-batch, whatever memory there is now. Another key: a new plan."""
    run, _ = trained(model, tmp_path)
    plan = json.loads((tmp_path / "run/train/plan.json").read_text())
    (tmp_path / "run/train/summary.json").unlink()
    plan["estimate"]["micro_tokens"] = 64
    (tmp_path / "run/train/plan.json").write_text(json.dumps(plan))
    run, _ = trained(model, tmp_path)
    assert run.record.read_json("train/summary.json")["micro_tokens"] == 64
    run, _ = trained(model, tmp_path, epochs=1)
    again = run.record.read_json("train/plan.json")
    assert again["estimate"]["micro_tokens"] == 1024
    assert (again["run"], again["key"]) != (plan["run"], plan["key"])
    assert run.record.read_json("train/summary.json")["micro_tokens"] == 1024


def test_killed_when_all_is_written_does_not_train_again(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hashing a large model takes long enough for a power cut, and the checkpoints are gone by then."""
    write = luthier.record.write_json

    def cut_off(path: Path, value: Any) -> None:
        if path.name == "train.json":  # the note that the stage is done
            raise ZeroDivisionError
        write(path, value)

    with monkeypatch.context() as patch:
        patch.setattr("luthier.record.write_json", cut_off)
        with pytest.raises(ZeroDivisionError):
            trained(model, tmp_path)
    assert not (tmp_path / "run/train/checkpoints").exists()
    before = sha256_of(tmp_path / "run/train/summary.json")
    with monkeypatch.context() as patch:
        patch.setattr("luthier.models.attach_adapter", lambda *given, **named: pytest.fail("it trains again"))
        run, _ = trained(model, tmp_path)
    assert run.record.stage_memo("train") is not None
    assert sha256_of(tmp_path / "run/train/summary.json") == before


@pytest.mark.parametrize("damaged", ["adapter/adapter_model.safetensors", "train/metrics.jsonl"])
def test_outputs_that_were_altered_are_made_again(damaged: str, model: Path, tmp_path: Path) -> None:
    trained(model, tmp_path)
    before = sha256_of(tmp_path / "run/adapter/adapter_model.safetensors")
    (tmp_path / "run" / damaged).write_bytes(b"{}")
    _, notes = trained(model, tmp_path)
    assert notes.moved
    assert sha256_of(tmp_path / "run/adapter/adapter_model.safetensors") == before


def test_virtual_tokens_take_room_in_the_context(model: Path, tmp_path: Path) -> None:
    recipe = tiny_run.write_recipe(
        tmp_path,
        model,
        adapter={"kind": "prompt", "virtual_tokens": 1000},
        candidates=["tuned"],
        probes=[],
    )
    with pytest.raises(DataError, match=r"tokens behind 1000 virtual ones does not fit the model's 1024"):
        Run(luthier.load_recipe(recipe), tmp_path / "run").train()


@pytest.mark.parametrize(
    "broken", ["", "{", '{"key": 1}', '{"key": "KEY", "run": "1", "estimate": {"steps": 1}}']
)
def test_a_plan_that_cannot_be_read_is_made_again(broken: str, model: Path, tmp_path: Path) -> None:
    run, _ = trained(model, tmp_path)
    plan = run.record.read_json("train/plan.json")
    (tmp_path / "run/train/plan.json").write_text(broken.replace("KEY", plan["key"]))
    (tmp_path / "run/train/summary.json").unlink()
    run, _ = trained(model, tmp_path)
    assert run.record.read_json("train/plan.json").keys() == plan.keys()


def test_two_runs_of_a_recipe_choose_alike(model: Path, tmp_path: Path) -> None:
    for out in ("a", "b"):
        trained(model, tmp_path, out)
    sums = [sha256_of(tmp_path / out / "adapter/adapter_model.safetensors") for out in ("a", "b")]
    assert sums[0] == sums[1]


# --- what chooses the epoch -----------------------------------------------------------------------


def validations(run: Run) -> list[dict[str, Any]]:
    return [line for line in run.record.read_jsonl("train/metrics.jsonl") if "validation_loss" in line]


def test_epochs_are_chosen_by_loss_without_asking_for_answers(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("luthier.pipeline.training.HeldOut", lambda *given: 1 / 0)
    run, _ = trained(model, tmp_path)
    assert [line["validation_score"] for line in validations(run)] == [None, None]


def test_epochs_are_chosen_by_score_where_that_is_asked_for(model: Path, tmp_path: Path) -> None:
    run, notes = trained(model, tmp_path, epochs=4, select="score")
    scores = [line["validation_score"] for line in validations(run)]
    assert all(0 <= score <= 1 for score in scores)
    assert len(set(scores)) > 1, "nothing to choose between"
    summary = run.record.read_json("train/summary.json")
    assert summary["best_validation_score"] == max(scores)
    chosen = [line["validation_score"] for line in validations(run) if line["step"] == summary["best_step"]]
    assert chosen == [max(scores)]
    assert "and the validation answers" in notes.said[3]


def test_the_score_is_that_of_the_tuned_candidate_on_the_validation_side(model: Path, tmp_path: Path) -> None:
    """Of the weights that were kept, asked again after the training."""
    run, _ = trained(model, tmp_path, epochs=3, select="score")
    split = run.split()
    got = HeldOut(run.recipe, run.models, split, run.tuned()).score()
    assert got == run.record.read_json("train/summary.json")["best_validation_score"]


def test_at_most_64_answers_are_asked_for_and_always_the_same(model: Path, monkeypatch: Any) -> None:
    asked: list[list[str]] = []

    def ask(model: Any, chat: Any, conversations: Any, **given: Any) -> list[Any]:
        asked.append(list(conversations))
        return [Answer(key, None, "good", None, None, 1, 0.0) for key in conversations]

    monkeypatch.setattr("luthier.candidates.ask", ask)
    monkeypatch.setattr("luthier.candidates.prompt_messages", lambda *given: [])
    recipe = luthier.recipe.parse_recipe(
        {"model": str(model), "data": "x.jsonl", "grader": "label", "max_new_tokens": 3}, base=Path()
    )

    def side(count: int) -> tuple[Example, ...]:
        turns = (Message("user", "how was it?"), Message("assistant", "good"))
        return tuple(Example(f"e{i}", turns, "x.jsonl", i + 1) for i in range(count))

    class Chat:
        chat = None

    for count in (3, 300, 300):
        split = Split(train=side(2), validation=side(count), test=())
        HeldOut(recipe, Chat(), split, None).score()  # type: ignore[arg-type]
    assert [len(set(ids)) for ids in asked] == [3, 64, 64]
    assert asked[1] == asked[2]
    empty = Split(train=side(2), validation=(), test=())
    assert HeldOut(recipe, Chat(), empty, None).score() is None  # type: ignore[arg-type]
    assert len(asked) == 3


def test_patience_asks_for_the_score_unless_told_not_to(tmp_path: Path) -> None:
    assert Train().select == "loss"
    assert Train(patience=2).select == "score"
    assert Train(patience=2, select="loss").select == "loss"
    assert Train(**Train(patience=2, select="loss").model_dump()).select == "loss"
    with pytest.raises(RecipeError, match=r"train\.select"):
        luthier.recipe.parse_recipe(
            {"model": "m", "data": "x.jsonl", "train": {"select": "luck"}}, base=tmp_path
        )


def test_another_grader_trains_again_only_where_it_chooses(model: Path, tmp_path: Path) -> None:
    def key(select: str, grader: str) -> str:
        train = {"epochs": 1, "learning_rate": 0.01, "batch_tokens": 400, "replay": 0.0, "select": select}
        recipe = tiny_run.write_recipe(
            tmp_path, model, train=train, candidates=["tuned"], probes=[], grader=grader
        )
        run = Run(luthier.load_recipe(recipe), tmp_path / "run")
        run.train()
        memo = run.record.stage_memo("train")
        assert memo is not None
        return str(memo["key"])

    assert key("loss", "label") == key("loss", "string_check")
    assert key("score", "label") != key("score", "string_check")


# --- labels that training did not believe ---------------------------------------------------------


def mislabelled(folder: Path, count: int = 120) -> set[int]:
    """Remarks of which every tenth has the other label; returns their lines."""
    path = tiny_run.write_examples(folder / "tickets.jsonl", count)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    wrong = set(range(5, count + 1, 10))
    for line in wrong:
        answer = rows[line - 1]["messages"][1]
        answer["content"] = {"good": "bad", "bad": "good"}[answer["content"]]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return wrong


def test_planted_labels_are_named_after_training(model: Path, tmp_path: Path) -> None:
    wrong = mislabelled(tmp_path)
    run, _ = trained(model, tmp_path, epochs=4)
    found = run.record.read_json("train/doubtful.json")
    lines = {place["line"] for row in found["found"] for place in row["examples"]}
    known = [row["line"] for row in run.record.read_jsonl("data/train.jsonl")]
    assert found["judged"] == len(known)
    assert len(lines & wrong) / len(lines) > 2 * len(wrong & set(known)) / len(known)
    assert all(len(row["losses"]) == 4 for row in found["found"])
    assert found["says"].startswith(f"{len(lines)} of {len(known)} training labels ")
    assert {row["where"] for row in run.record.read_jsonl("train/losses.jsonl")} == {
        f"{tmp_path / 'tickets.jsonl'}:{line}" for line in known
    }


def test_a_run_from_before_losses_were_kept_is_left_as_it_is(model: Path, tmp_path: Path) -> None:
    run, _ = trained(model, tmp_path)
    memo = run.record.stage_memo("train")
    assert memo is not None
    del memo["outputs"]["train/losses.jsonl"]
    (tmp_path / "run/.stages/train.json").write_text(json.dumps(memo))
    (tmp_path / "run/.stages/doubt.json").unlink()
    for name in ("train/losses.jsonl", "train/doubtful.json"):
        (tmp_path / "run" / name).unlink()
    (tmp_path / "run/verdict.json").write_text("{}")
    again, notes = trained(model, tmp_path)
    assert not notes.moved, "it does not train again"
    told = again.record.read_json("train/doubtful.json")
    assert (told["says"], told["found"]) == (None, [])
    assert (tmp_path / "run/verdict.json").is_file(), "what was concluded stays"


def test_what_is_trained_beside_is_not_in_the_history(model: Path, tmp_path: Path) -> None:
    run, _ = trained(model, tmp_path, replay=0.3, epochs=1)
    assert run.record.read_json("train/summary.json")["replayed"]
    wheres = [row["where"] for row in run.record.read_jsonl("train/losses.jsonl")]
    assert len(wheres) == len(run.record.read_jsonl("data/train.jsonl"))
    assert not [where for where in wheres if where.startswith("replay")]
