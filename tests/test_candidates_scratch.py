"""The small model that suits the task: tried on validation, recorded, and asked on the test side once."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_candidates import HAM, SPAM, TEST, TRAIN, example, examples
from tiny_run import write_examples, write_model, write_recipe

import luthier
from luthier.candidates import Scratch, answer_from_scratch, embedding, is_classification
from luthier.candidates.scratch_decoder import TRAINED_ON, Decoder, _budget
from luthier.chat import ChatFormat, TrainingSequence
from luthier.errors import RecipeError
from luthier.methods import Item
from luthier.pipeline import Run


def test_what_is_a_classification() -> None:
    assert is_classification(["a", "b", "a", "b"])
    assert not is_classification(["a", "b", "c"])
    assert not is_classification(['{"a": 1}'] * 6)
    assert not is_classification([str(i // 2) for i in range(120)])


def test_a_probe_learns_what_its_vectors_show_and_its_words_do_not() -> None:
    def hidden(texts: Sequence[str]) -> np.ndarray:
        dice = np.random.default_rng(0)
        side = np.array([1.0 if "even" in text else -1.0 for text in texts])
        return np.column_stack([side * 1e-3 + 5, dice.normal(size=len(texts)) * 50]).astype(np.float32)

    train = examples([(f"{'even' if i % 2 else 'odd'}", "AB"[i % 2]) for i in range(40)])
    probe = Scratch(train, seed=0, embed=hidden)
    answers = probe.answer([example(50, "even", "?"), example(51, "odd", "?")])
    assert [a.answer for a in answers] == ["B", "A"]
    assert all(a.confidence is not None and 0.5 < a.confidence <= 1 for a in answers)


def test_n_grams_answer_as_before() -> None:
    asked = examples([("prize money for you", "?"), ("another meeting", "?")], start=50)
    model = Scratch(examples(SPAM + HAM), seed=0)
    one = [(a.answer, a.confidence) for a in model.answer(asked)]
    assert one == [(a.answer, a.confidence) for a in answer_from_scratch(asked, examples(SPAM + HAM), seed=0)]
    assert [answer for answer, _ in one] == ["spam", "ham"]


def test_a_tiny_decoder_learns_to_answer_from_nothing(chat: ChatFormat) -> None:
    words = {"red": "blood and roses", "blue": "sea and sky", "green": "grass and leaves"}
    dice = random.Random(0)
    rows = [(f"{'so ' * dice.randrange(3)}{colour}", words[colour]) for colour in words for _ in range(20)]
    dice.shuffle(rows)
    train = examples(rows)
    decoder = Decoder(train[:50], train[50:], chat, seed=0, room=24)
    answers = decoder.answer(train[50:])
    assert [a.answer for a in answers] == [e.answer for e in train[50:]]
    assert all(a.prompt_tokens is None and a.answer_tokens is None for a in answers)
    assert all(a.confidence is not None and 0.5 < a.confidence <= 1 for a in answers)
    again = Decoder(train[:50], train[50:], chat, seed=0, room=24).answer(train[50:])
    assert [a.confidence for a in again] == [a.confidence for a in answers]


def test_the_decoder_keeps_to_its_budget() -> None:
    def items(count: int, length: int) -> list[Item]:
        sequence = TrainingSequence((1,) * length, (1.0,) * length)
        return [Item(f"{i}", (sequence,)) for i in range(count)]

    few, epochs = _budget(items(10, 100), 0)
    assert (len(few), epochs) == (10, 20)
    many, epochs = _budget(items(300, 1000), 0)
    assert (len(many), epochs) == (150, 1)
    some, epochs = _budget(items(60, 1000), 0)
    assert (len(some), epochs) == (60, 2)
    assert sum(item.tokens for item in some) * epochs <= TRAINED_ON
    assert len(_budget(items(1, 10**6), 0)[0]) == 1
    assert {item.where for item in _budget(items(300, 1000), 1)[0]} != {item.where for item in many}


# --- in a run ---------------------------------------------------------------------------------------


def make_run(folder: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Run:
    monkeypatch.setenv("LUTHIER_CACHE", str(folder / "cache"))
    if not (folder / "model").exists():
        write_model(folder / "model")
    write_recipe(folder, folder / "model", candidates=["scratch"], probes=[], **changes)
    return Run(luthier.load_recipe(folder / "recipe.yaml"), folder / "run")


class Hidden:
    """Stands in for the base model's vectors: they tell the label, words do not; remembers what it read."""

    def __init__(self, labels: dict[str, str]) -> None:
        self.labels = labels
        self.read: list[str] = []

    def __call__(self, model: Any, tokenizer: Any) -> embedding.Embed:
        def embed(texts: Sequence[str]) -> np.ndarray:
            self.read += texts
            return np.array([[1.0 if self.labels[t] == "good" else -1.0] for t in texts], dtype=np.float32)

        return embed


@pytest.mark.parametrize("told_by", ["words", "vectors"])
def test_the_better_of_n_grams_and_probe_is_chosen(
    told_by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_examples(tmp_path / "tickets.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "tickets.jsonl").read_text().splitlines()]
    dice = random.Random(0)
    for row in rows:
        if told_by == "vectors":
            row["messages"][1]["content"] = dice.choice(["good", "bad"])
    (tmp_path / "tickets.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    labels = {row["messages"][0]["content"]: row["messages"][1]["content"] for row in rows}
    hidden = Hidden(labels if told_by == "vectors" else dict.fromkeys(labels, "good"))
    monkeypatch.setattr(embedding, "base_embedder", hidden)
    run = make_run(tmp_path, monkeypatch)
    row = run.evaluate()["candidates"]["scratch"]
    found = run.record.read_json("search/scratch.json")
    kind = found["tried"][found["chosen"]]["kind"]
    assert [tried["kind"] for tried in found["tried"]] == ["ngrams", "probe"]
    assert kind == ("ngrams" if told_by == "words" else "probe")
    assert found["tried"][found["chosen"]]["n"] == len(run.split().validation)
    test = {e.input for e in run.split().test}
    if told_by == "words":
        assert not test & set(hidden.read)  # only what is chosen sees the test side
        assert row["prompt_tokens"] is None
    else:
        assert row["score"] == 1.0
        assert row["prompt_tokens"] > 5
        assert hidden.read[-len(test) :] == [e.input for e in run.split().test]


def test_json_and_free_text_have_no_probe_and_few_texts_no_decoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path, monkeypatch, grader="text_similarity", scratch="decoder")
    with pytest.raises(RecipeError, match="decoder does not suit this task: it needs 100 training examples"):
        run.evaluate()
    run = make_run(tmp_path, monkeypatch, scratch="decoder")
    with pytest.raises(RecipeError, match="graded by text_similarity"):
        run.evaluate()
    run = make_run(tmp_path, monkeypatch, scratch="ngrams")
    run.evaluate()
    found = run.record.read_json("search/scratch.json")
    assert [row["kind"] for row in found["tried"]] == ["ngrams"]
    assert found["reason"] == "the only one that suits"


def test_the_confidences_of_a_probe_are_of_the_labels() -> None:
    answers = Scratch(TRAIN, seed=0, embed=lambda t: np.ones((len(t), 3), dtype=np.float32)).answer(TEST)
    assert all(a.confidence is not None and 0 < a.confidence < 1 for a in answers)
