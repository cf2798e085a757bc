"""Constrained decoding: every answer keeps to it, greedily and sampled, and costs what a plain loop says."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import validate
from tiny_models import FALLING_BACK, tiny
from tiny_run import write_model, write_recipe

import luthier
from luthier.candidates import ask
from luthier.chat import ChatFormat
from luthier.constrain import (
    Constraint,
    JsonUnderSchema,
    OneOfLabels,
    forbid_others,
    order_properties,
)
from luthier.errors import DataError, ModelError, RecipeError
from luthier.generate import Generated, generate
from luthier.models import LoadedModel
from luthier.pipeline import Run

LABELS = ("good", "bad", "go", "good enough", "é🙂", "Zurück")
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "mood": {"enum": ["good", "bad", "so so"]},
        "urgent": {"type": "boolean"},
        "stars": {"type": "integer", "minimum": 1, "maximum": 12},
        "code": {"anyOf": [{"type": "null"}, {"type": "string", "pattern": "^[A-C]{1,3}$"}]},
    },
    "required": ["mood", "urgent", "stars", "code"],
    "additionalProperties": False,
}
SPACED = [json.dumps({"mood": "good", "stars": 3})]
STOPLESS = pytest.mark.parametrize("temperature", [0.0, 1.0])


def prompts_of(chat: ChatFormat, count: int = 12) -> list[list[int]]:
    texts = [f"{'x' * (i % 4)} remark {i}" for i in range(count)]
    return [chat.prompt([{"role": "user", "content": text}]) for text in texts]


def plain_logprobs(
    model: Any, prompt: list[int], result: Generated, constraint: Constraint, stop: frozenset[int]
) -> float:
    """One row, one token at a time, the whole sequence computed anew: softmax over what is allowed.

    The end is any of the stop tokens.
    """
    walk, total = constraint.walk(), 0.0
    ids = list(result.ids)
    for step in range(len(ids) + int(result.finished)):
        with torch.inference_mode():
            logits = model(torch.tensor([[*prompt, *ids[:step]]]), use_cache=False).logits[0, -1].double()
        allowed = np.zeros(len(logits), dtype=np.bool_)
        walk.allow(allowed)
        chances = torch.where(torch.from_numpy(allowed), logits, -torch.inf).softmax(-1)
        if step == len(ids):
            return total + math.log(sum(chances[i].item() for i in stop))
        total += math.log(chances[ids[step]].item())
        walk.take(ids[step])
    return total


@pytest.fixture
def make(chat: ChatFormat) -> Callable[[str], Constraint]:
    return lambda kind: (
        OneOfLabels(LABELS, chat) if kind == "labels" else JsonUnderSchema(SCHEMA, chat, SPACED)
    )


def check(kind: str, text: str) -> None:
    if kind == "labels":
        assert text in LABELS
    else:
        value = json.loads(text)
        validate(value, SCHEMA)
        assert text == json.dumps(value)  # spaced as the examples are
        assert list(value) == list(SCHEMA["properties"])


@STOPLESS
@pytest.mark.parametrize("kind", ["labels", "schema"])
@pytest.mark.parametrize("batch_size", [5, 64])
def test_every_answer_of_a_random_model_keeps_to_it(
    kind: str,
    temperature: float,
    batch_size: int,
    loaded: LoadedModel,
    chat: ChatFormat,
    make: Callable[[str], Constraint],
) -> None:
    prompts, constraint = prompts_of(chat), make(kind)
    results = generate(
        loaded.model,
        prompts,
        max_new_tokens=120,
        stop_ids=chat.stop_ids,
        temperature=temperature,
        batch_size=batch_size,
        constraint=constraint,
    )
    texts = [chat.decode(result.ids) for result in results]
    for prompt, result, text in zip(prompts, results, texts, strict=True):
        assert result.finished
        check(kind, text)
        expected = plain_logprobs(loaded.model, prompt, result, constraint, chat.stop_ids)
        assert result.logprob == pytest.approx(expected, abs=2e-4)
    if temperature:
        assert len(set(texts)) > 2


@pytest.mark.filterwarnings("ignore::luthier.forest.sharing.FallbackWarning")
@pytest.mark.parametrize("kind", ["mamba", "gptj"])
def test_architectures_that_write_row_by_row(
    kind: str, tokenizer: Any, chat: ChatFormat, make: Callable[[str], Constraint]
) -> None:
    model = tiny(kind, vocab_size=len(tokenizer))
    assert kind in FALLING_BACK
    constraint, prompts = make("labels"), prompts_of(chat, 3)
    results = generate(model, prompts, max_new_tokens=20, stop_ids=chat.stop_ids, constraint=constraint)
    for prompt, result in zip(prompts, results, strict=True):
        assert chat.decode(result.ids) in LABELS
        expected = plain_logprobs(model, prompt, result, constraint, chat.stop_ids)
        assert result.logprob == pytest.approx(expected, abs=2e-4)


def test_without_a_constraint_nothing_changes(loaded: LoadedModel, chat: ChatFormat) -> None:
    class Anything:
        room = 0

        def walk(self) -> Any:
            return self

        def allow(self, allowed: np.ndarray) -> None:
            allowed[:] = True

        def take(self, token: int) -> None:
            pass

    def written(**more: Any) -> list[tuple[Any, ...]]:
        results = generate(loaded.model, prompts_of(chat), max_new_tokens=9, stop_ids=chat.stop_ids, **more)
        return [(r.ids, r.finished, pytest.approx(r.logprob)) for r in results]

    assert written(constraint=Anything()) == written()


def test_the_probabilities_of_all_labels_are_one(loaded: LoadedModel, chat: ChatFormat) -> None:
    """The confidence is that of the label among the labels, as a classifier's is."""
    constraint = OneOfLabels(LABELS, chat)
    (prompt,) = prompts_of(chat, 1)
    total = 0.0
    for label in LABELS:
        sequence = chat.sequence([{"role": "user", "content": "q"}], label)
        written = Generated(sequence.ids[sequence.prompt_tokens : -1], 0.0, 0, 0.0)
        total += math.exp(plain_logprobs(loaded.model, prompt, written, constraint, chat.stop_ids))
    assert total == pytest.approx(1.0, abs=1e-4)


# --- labels -----------------------------------------------------------------------------------------


def test_a_label_that_begins_another_may_end_or_go_on(chat: ChatFormat) -> None:
    constraint = OneOfLabels(["go", "good"], chat)
    walk = constraint.walk()
    ids = chat.sequence([{"role": "user", "content": "q"}], "go")
    for token in ids.ids[ids.prompt_tokens : -1]:
        walk.take(token)
    allowed = np.zeros(len(chat.tokenizer), dtype=np.bool_)
    walk.allow(allowed)
    assert set(np.flatnonzero(allowed)) >= chat.stop_ids
    room = [
        len(s.ids) - s.prompt_tokens
        for s in (chat.sequence([{"role": "user", "content": "q"}], x) for x in ("go", "good"))
    ]
    assert constraint.room == max(room)
    with pytest.raises(DataError, match="no labels"):
        OneOfLabels([], chat)


def test_ask_gives_a_constraint_the_room_it_needs(loaded: LoadedModel, chat: ChatFormat) -> None:
    asked = {str(i): [{"role": "user", "content": f"q {i}"}] for i in range(6)}
    constraint = OneOfLabels(["a very long label, and then some", "another very long one"], chat)
    for answer in ask(loaded.model, chat, asked, max_new_tokens=1, constraint=constraint):
        assert answer.answer in constraint.labels
        assert answer.confidence is not None
        assert 0.0 < answer.confidence <= 1.0


def test_a_constraint_that_allows_nothing_is_refused() -> None:
    class Nothing:
        def allow(self, allowed: np.ndarray) -> None:
            pass

        def take(self, token: int) -> None:
            pass

    with pytest.raises(ModelError, match="allows no token"):
        forbid_others(torch.zeros(1, 5), [Nothing()])


# --- schemas ----------------------------------------------------------------------------------------


def test_an_answer_that_is_cut_off_is_the_beginning_of_json(loaded: LoadedModel, chat: ChatFormat) -> None:
    constraint = JsonUnderSchema({"type": "array", "items": {"type": "string"}, "minItems": 40}, chat)
    (result,) = generate(
        loaded.model, prompts_of(chat, 1), max_new_tokens=12, stop_ids=chat.stop_ids, constraint=constraint
    )
    assert not result.finished
    assert chat.decode(result.ids).lstrip().startswith("[")


def test_a_schema_that_the_grammar_does_not_know(chat: ChatFormat) -> None:
    with pytest.raises(RecipeError, match="answers cannot be kept to this schema"):
        JsonUnderSchema({"type": "object", "unevaluatedProperties": {"type": "no such type"}, "if": 3}, chat)


def test_keys_come_in_the_order_of_the_examples() -> None:
    inner = {"properties": {"x": {}, "y": {}}}
    schema = {
        "properties": {"a": {}, "b": inner, "never": {}, "c": {"items": inner}},
        "required": ["a"],
    }
    values = [{"c": [{"y": 1, "x": 2}], "b": {"y": 1}}, {"a": 1, "b": {"x": 1, "y": 2}}, "no object"]
    ordered = order_properties(schema, values)
    assert list(ordered["properties"]) == ["c", "b", "a", "never"]
    assert list(ordered["properties"]["b"]["properties"]) == ["y", "x"]
    assert list(ordered["properties"]["c"]["items"]["properties"]) == ["y", "x"]
    assert ordered == schema  # as values: order means nothing to a schema
    either = order_properties({"anyOf": [{"type": "null"}, inner]}, [{"y": 1, "x": 1}])
    assert list(either["anyOf"][1]["properties"]) == ["y", "x"]


@settings(max_examples=25)
@given(st.booleans(), st.sampled_from([(", ", ": "), (",", ":")]))
def test_json_is_spaced_as_the_examples_are(ascii_only: bool, separators: tuple[str, str]) -> None:
    from luthier.constrain import _spacing

    texts = [
        json.dumps(v, ensure_ascii=ascii_only, separators=separators) for v in ({"a": [1, "é"]}, {"b": {}})
    ]
    assert _spacing([*texts, '{"a": 1,\n "b": 2}']) == {"whitespace_flexible": True}
    assert _spacing([*texts, "no json"]) == {"whitespace_flexible": True}
    assert _spacing(texts) == dict(zip(("item_separator", "key_separator"), separators, strict=True))


# --- in a run ---------------------------------------------------------------------------------------


def test_all_candidates_of_a_run_keep_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))
    write_recipe(
        tmp_path,
        write_model(tmp_path / "model"),
        probes=[],
        train={"epochs": 1, "learning_rate": 0.01, "batch_tokens": 400, "select": "score"},
        constrain="auto",
    )
    run = Run(luthier.load_recipe(tmp_path / "recipe.yaml"), tmp_path / "run")
    scores = run.evaluate()
    for name in scores["candidates"]:
        lines = (run.record / f"predictions/{name}.jsonl").read_text().splitlines()
        assert {json.loads(line)["answer"] for line in lines} <= {"good", "bad"}
    free = Run(luthier.load_recipe(tmp_path / "recipe.yaml", {"constrain": "none"}), tmp_path / "run")
    free.evaluate()
    lines = (run.record / "predictions/prompt.jsonl").read_text().splitlines()
    assert not {json.loads(line)["answer"] for line in lines} <= {"good", "bad"}
    texts = Run(luthier.load_recipe(tmp_path / "recipe.yaml", {"constrain": "schema"}), tmp_path / "run")
    with pytest.raises(DataError, match="no JSON Schema can be inferred"):
        texts.evaluate()


def test_labels_come_from_training_only(loaded: LoadedModel, chat: ChatFormat) -> None:
    from types import SimpleNamespace

    from luthier.examples import Example, Message, Split
    from luthier.pipeline.constraining import build_constraint
    from luthier.recipe import parse_recipe

    def side(*answers: str) -> tuple[Example, ...]:
        return tuple(
            Example(f"{i}", (Message("user", f"q {i}"), Message("assistant", a)), "f", i)
            for i, a in enumerate(answers)
        )

    def labels(grader: str | None, constrain: str, split: Split) -> Any:
        keys = {"model": "m", "data": "d.jsonl", "constrain": constrain, "grader": grader}
        recipe = parse_recipe(keys, base=Path("/"))
        return build_constraint(recipe, SimpleNamespace(chat=chat), split)  # type: ignore[arg-type]

    split = Split(side("Good", "Good", "good.", "bad", "bad"), side("worse"), side("worst"))
    assert labels("label", "auto", split).labels == ("Good", "bad")
    assert labels(None, "auto", split).labels == ("Good", "bad")
    assert labels("string_check", "auto", split) is None
    assert labels("label", "none", split) is None
    with pytest.raises(DataError, match="that is no set of labels"):
        labels("label", "labels", Split(side("a", "b", "c"), side("a"), side("a")))
    records = ['{"b": "x", "a": 1}', '{"b": "y", "a": 2}']
    found = labels("json_fields", "auto", Split(side(*records), side("1"), side("2")))
    assert isinstance(found, JsonUnderSchema)
