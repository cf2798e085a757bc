"""Recipes with a teacher: its distributions on the examples, its answers, its say on the student's."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_run
from chat_tokenizers import byte_level

import luthier.probes
from luthier.errors import DataError, ModelError
from luthier.pipeline import Run
from luthier.pipeline.stages import read_split
from luthier.recipe import load_recipe

TRAIN = {"epochs": 3, "learning_rate": 0.01, "batch_tokens": 400, "replay": 0.0}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A student, and in `teacher` a model of the same tokenizer that has learnt the task."""
    folder = tmp_path_factory.mktemp("distill")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUTHIER_CACHE", str(folder / "cache"))
        patch.setattr(luthier.probes, "choice_items", tiny_run.choice_items)
        tiny_run.write_recipe(
            folder,
            tiny_run.write_model(folder / "model"),
            candidates=["prompt", "tuned"],
            probes=[],
            train=TRAIN,
        )
        full = {"adapter": {"kind": "full"}, "train": TRAIN | {"epochs": 8, "learning_rate": 0.003}}
        learnt = Run(load_recipe(folder / "recipe.yaml", full), folder / "learnt")
        assert learnt.evaluate()["candidates"]["tuned"]["score"] > 0.7
        shutil.copytree(folder / "learnt/adapter", folder / "teacher")
        yield folder


def open_run(home: Path, name: str, method: dict[str, Any], **changes: Any) -> Run:
    asked = {"kind": "distill", "teacher": "teacher"} | method
    return Run(load_recipe(home / "recipe.yaml", {"method": asked} | changes), home / name)


def steps(run: Run, column: str) -> list[float]:
    lines = (run.record / "train/metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [row[column] for row in map(json.loads, lines) if row.get(column) is not None]


def score(run: Run, name: str = "tuned") -> float:
    return float(run.evaluate()["candidates"][name]["score"])


def test_on_the_examples(home: Path) -> None:
    run = open_run(home, "examples", {})
    summary = run.train()
    assert summary["method"] == "distill"
    losses, held = steps(run, "loss"), steps(run, "validation_loss")
    assert losses[-1] < 0.5 * losses[0] and held[-1] < 0.5 * held[0]
    assert min(losses) >= -1e-5
    assert score(run) > score(run, "prompt") + 0.2


def test_a_teacher_that_is_the_base_moves_nothing(home: Path) -> None:
    run = open_run(home, "itself", {"teacher": "model"}, train=TRAIN | {"epochs": 1})
    run.train()
    assert abs(steps(run, "loss")[0]) < 1e-4


def test_on_the_students_own_answers(home: Path) -> None:
    train = TRAIN | {"epochs": 4, "replay": 0.1}
    run = open_run(home, "own", {"from": "own"}, train=train, max_new_tokens=6)
    assert run.recipe.selects_by_score
    summary = run.train()
    assert summary["best_validation_score"] is not None and summary["best_validation_loss"] is None
    assert steps(run, "loss")[-1] < steps(run, "loss")[0]
    assert all(0 < length <= 7 for length in steps(run, "length"))
    kept = sorted((run.record / "train/rollouts").glob("*.jsonl"))
    assert len(kept) == summary["steps"]
    rows = [json.loads(line) for path in kept for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 4 * len(read_split(run.record).train)
    assert all(set(row) == {"where", "answer", "finished"} for row in rows)


def other_tokenizer(home: Path) -> Path:
    """The teacher with one more token, so that all else is the same."""
    folder = home / "other"
    if not folder.is_dir():
        shutil.copytree(home / "teacher", folder)
        special = ("<|im_start|>", "<|im_end|>", "<|more|>")
        byte_level(tiny_run.CHATML, special, eos="<|im_end|>").save_pretrained(folder)
    return folder


@pytest.mark.parametrize("source", ["examples", "own"])
def test_another_tokenizer_is_refused(home: Path, source: str) -> None:
    method = {"from": source, "teacher": str(other_tokenizer(home))}
    with pytest.raises(ModelError, match="another tokenizer than") as caught:
        open_run(home, f"mismatch-{source}", method).train()
    assert "from: samples" in str(caught.value.fix)


def test_samples_cross_tokenizers_and_are_kept(home: Path) -> None:
    method = {"from": "samples", "teacher": str(other_tokenizer(home)), "temperature": 0.3}
    run = open_run(home, "samples", method, max_new_tokens=6)
    run.train()
    kept = run.record.read_json("train/teacher.json")
    split = read_split(run.record)
    assert set(kept["answers"]) == {e.id for e in (*split.train, *split.validation)}
    said = [text for text in kept["answers"].values() if text is not None]
    assert sum(text in ("good", "bad") for text in said) > 0.7 * len(kept["answers"])
    assert steps(run, "loss")[-1] < steps(run, "loss")[0]
    before = (run.record / "train/teacher.json").stat().st_mtime_ns
    again = open_run(home, "samples", method, max_new_tokens=6, train=TRAIN | {"epochs": 1})
    again.train()
    assert (run.record / "train/teacher.json").stat().st_mtime_ns == before
    warmer = open_run(home, "samples", method | {"temperature": 1.0}, max_new_tokens=6)
    warmer.train()
    assert warmer.record.read_json("train/teacher.json")["key"] != kept["key"]


def test_the_students_answers_are_the_teachers(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is imitated is what the teacher said, behind what the student is asked."""
    from luthier.pipeline import training

    seen: list[Any] = []
    real = training.repeat_items
    monkeypatch.setattr(training, "repeat_items", lambda *given: seen.append(given[1:]) or real(*given))
    run = open_run(home, "imitated", {"from": "samples"}, max_new_tokens=6, train=TRAIN | {"epochs": 1})
    run.train()
    ((examples, items),) = seen
    answers = run.record.read_json("train/teacher.json")["answers"]
    assert len(examples) == len(items) > 0
    for example, item in zip(examples, items, strict=True):
        (sequence,) = item.sequences
        assert example.answer == answers[example.id]
        assert run.chat.decode(sequence.ids[sequence.prompt_tokens :]) == answers[example.id]
        assert sequence.ids[: sequence.prompt_tokens] == tuple(
            run.chat.prompt(run.chat.with_system([m.as_dict() for m in example.request], "Say good or bad."))
        )


def test_a_teacher_that_never_ends_is_told(home: Path) -> None:
    with pytest.raises(DataError, match="the teacher finished no answer within 1 tokens"):
        open_run(home, "endless", {"from": "samples"}, max_new_tokens=1).train()


def test_another_teacher_trains_again(home: Path) -> None:
    run = open_run(home, "changed", {}, train=TRAIN | {"epochs": 1})
    run.train()
    before = run.record.output_hash("train")
    changed = open_run(home, "changed", {"teacher": "model"}, train=TRAIN | {"epochs": 1})
    changed.train()
    assert changed.record.output_hash("train") != before
